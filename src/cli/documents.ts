/** Schemas that several verbs' JSON documents share. Unit suffixes are part of the names. */
import * as z from 'zod';
import { operationPhases, pauseParts } from '../domain/operation.js';
import { stateReason, stateWord, stateWords } from '../domain/states.js';
import type { DomainInfo } from '../domain/state.js';
import { domainTypes } from '../domain/type.js';

const count = z.int().nonnegative();
const milliseconds = z.number().nonnegative();

export const figures = { count, milliseconds };

export const pageCounts = z.object({
  data: count,
  zero: count,
  table: count,
  noFrame: count,
  broken: count,
  alloc: count,
  sameAsParent: count,
});

const durations = <Part extends string>(parts: readonly Part[]) =>
  z.object(
    Object.fromEntries(parts.map((part) => [`${part}Ms`, milliseconds])) as Record<
      `${Part}Ms`,
      typeof milliseconds
    >,
  );

/** What an operation's elapsedMs is the sum of, and what a pause is. */
export const phases = durations(operationPhases);
export const downtime = durations(pauseParts);

export const domainDocument = z.object({
  domid: count,
  name: z.string(),
  uuid: z.string(),
  type: z.enum(domainTypes),
  state: z.enum(stateWords),
  reason: z.string(),
  memoryKib: count,
  maxMemoryKib: count,
  vcpus: count,
  cpuTimeNs: count,
  flags: z.object({
    running: z.boolean(),
    blocked: z.boolean(),
    paused: z.boolean(),
    shutdown: z.boolean(),
    dying: z.boolean(),
    building: z.boolean(),
  }),
});

/** A domain as the documents show it. */
export function describeDomain(info: DomainInfo): z.infer<typeof domainDocument> {
  const { domid, name, uuid, type, memoryKib, maxMemoryKib, vcpus, cpuTimeNs } = info;
  const { running, blocked, paused, dying, building } = info;
  return {
    ...{ domid, name, uuid, type, state: stateWord(info), reason: stateReason(info) },
    ...{ memoryKib, maxMemoryKib, vcpus, cpuTimeNs },
    flags: { running, blocked, paused, shutdown: info.shutdown !== null, dying, building },
  };
}

/** What verbs that change one domain leave behind. */
export const changeDocument = z.object({ domid: count, name: z.string(), changed: z.boolean() });
