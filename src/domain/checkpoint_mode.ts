/** `light`: the domain is paused from outside; `cooperative`: its kernel suspends when asked. */
export const checkpointModes = ['light', 'cooperative'] as const;
export type CheckpointMode = (typeof checkpointModes)[number];
