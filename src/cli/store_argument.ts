/** What verbs that work with points have in common: where the points are, and what a point is to a program. */
import * as z from 'zod';
import { checkpointModes } from '../domain/checkpoint_mode.js';
import { consistencies } from '../image/format.js';
import { type PointRecord, pointReasons } from '../store/record.js';
import { type Retention, type RetentionRule, retentionRules } from '../store/retention.js';
import { describeDisks, disksDocument } from './disks_option.js';
import { figures } from './documents.js';
import { parseCount, parseSize } from './parse.js';
import type { VerbArgument, VerbOption } from './verb.js';

export const storeOption: VerbOption = {
  flags: '--store <folder>',
  says: 'where the points are',
};
export const storeField = z.string({ error: 'say where the points are: --store FOLDER' });

/** How a user names a domain of a store, which need not exist any more, and a point of it. */
export const storedDomain: VerbArgument = {
  form: '<domain>',
  says: 'its uuid, or the name that it had at its last point',
};
export const typedPoint: VerbArgument = {
  form: '<point>',
  says: 'as `points` shows it, or how that begins; latest, latest~2, @TIME',
};

export const pointDocument = z.object({
  point: z.string(),
  takenAt: z.string(),
  domain: z.object({ uuid: z.string(), name: z.string(), domid: figures.count }),
  path: z.string(),
  imageId: z.string(),
  parent: z.string().nullable(),
  chainId: z.string(),
  sequence: figures.count,
  consistency: z.enum(consistencies),
  reason: z.enum(pointReasons),
  mode: z.enum(checkpointModes),
  memoryBytes: figures.count,
  storedBytes: figures.count,
  changedPages: figures.count,
  pauseMs: figures.milliseconds,
  elapsedMs: figures.milliseconds,
  ...disksDocument,
  unfit: z.string(),
});

/** A point as the documents show it. */
export function describePoint(record: PointRecord, path: string): z.infer<typeof pointDocument> {
  const { domain, image, parent, reason, mode, pauseMs, elapsedMs, takenAt, disks, unfit } = record;
  const { uuid, name, domid } = domain;
  const { imageId, chainId, sequence, consistency, memoryBytes, storedBytes, changedPages } = image;
  return {
    ...{ point: record.id, takenAt, domain: { uuid, name, domid }, path, imageId, parent, chainId, sequence },
    ...{ consistency, reason, mode, memoryBytes, storedBytes, changedPages, pauseMs, elapsedMs },
    ...describeDisks(disks),
    unfit,
  };
}

const ruleSays: Readonly<Record<RetentionRule, string>> = {
  last: 'keep the newest n points',
  secondly: 'keep the newest point of each of the last n seconds that have one',
  minutely: 'the same of minutes',
  hourly: 'the same of hours',
  daily: 'the same of days',
  weekly: 'the same of weeks',
};

export const retentionOptions: readonly VerbOption[] = retentionRules.map((rule) => ({
  flags: `--keep-${rule} <n>`,
  says: ruleSays[rule],
}));

const maybeCount = z.string().transform(parseCount).optional();
type Field = `keep${Capitalize<RetentionRule>}`;
const fieldOf = (rule: RetentionRule): Field =>
  `keep${rule.charAt(0).toUpperCase()}${rule.slice(1)}` as Field;

export const retentionFields = Object.fromEntries(
  retentionRules.map((rule) => [fieldOf(rule), maybeCount]),
) as Record<Field, typeof maybeCount>;

export const retentionOf = (input: { readonly [Name in Field]?: number | undefined }): Retention =>
  Object.fromEntries(
    retentionRules.flatMap((rule) => {
      const count = input[fieldOf(rule)];
      return count === undefined ? [] : [[rule, count] as const];
    }),
  );

/** A size, in bytes. */
export const maybeSize = z.string().transform(parseSize).optional();
