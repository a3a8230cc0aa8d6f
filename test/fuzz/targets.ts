/** What is fuzzed of TypeScript, by name. */
import { imageTargets } from './image_targets.js';
import { streamTargets } from './stream_targets.js';
import type { Target } from './target.js';
import { textTargets } from './text_targets.js';
import { wireTargets } from './wire_targets.js';

export const targets: Readonly<Record<string, Target>> = {
  ...imageTargets,
  ...streamTargets,
  ...textTargets,
  ...wireTargets,
};
