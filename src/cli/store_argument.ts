/** What verbs that work with points have in common: where the points are, and what a point is to a program. */
import * as z from 'zod';
import { checkpointModes } from '../domain/checkpoint_mode.js';
import { consistencies } from '../image/format.js';
import type { Point } from '../store/domain_points.js';
import { type PointRecord, pointReasons } from '../store/record.js';
import type { Retention } from '../store/retention.js';
import { figures } from './documents.js';
import { parseCount, parseSize } from './parse.js';
import type { VerbOption } from './verb.js';

export const storeOption: VerbOption = {
  flags: '--store <folder>',
  says: 'where the points are',
};
export const storeField = z.string({ error: 'say where the points are: --store FOLDER' });

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
  disks: z.literal('none'),
});

/** A point as the documents show it. */
export function describePoint(record: PointRecord | Point, path: string): z.infer<typeof pointDocument> {
  const { domain, image, parent, reason, mode, pauseMs, elapsedMs, takenAt, disks } = record;
  const { uuid, name, domid } = domain;
  const { imageId, chainId, sequence, consistency, memoryBytes, storedBytes, changedPages } = image;
  return {
    ...{ point: record.id, takenAt, domain: { uuid, name, domid }, path, imageId, parent, chainId, sequence },
    ...{ consistency, reason, mode, memoryBytes, storedBytes, changedPages, pauseMs, elapsedMs },
    disks: disks.kind,
  };
}

const rules = ['last', 'secondly', 'minutely', 'hourly', 'daily', 'weekly'] as const;

const ruleSays: Readonly<Record<(typeof rules)[number], string>> = {
  last: 'keep the newest n points',
  secondly: 'keep the newest point of each of the last n seconds that have one',
  minutely: 'the same of minutes',
  hourly: 'the same of hours',
  daily: 'the same of days',
  weekly: 'the same of weeks',
};

export const retentionOptions: readonly VerbOption[] = rules.map((rule) => ({
  flags: `--keep-${rule} <n>`,
  says: ruleSays[rule],
}));

const maybeCount = z.string().transform(parseCount).optional();

export const retentionFields = {
  ...{ keepLast: maybeCount, keepSecondly: maybeCount, keepMinutely: maybeCount },
  ...{ keepHourly: maybeCount, keepDaily: maybeCount, keepWeekly: maybeCount },
};
type RetentionInput = { readonly [Name in keyof typeof retentionFields]?: number | undefined };

export function retentionOf(input: RetentionInput): Retention {
  const { keepLast: last, keepSecondly: secondly, keepMinutely: minutely } = input;
  const { keepHourly: hourly, keepDaily: daily, keepWeekly: weekly } = input;
  const given = Object.entries({ last, secondly, minutely, hourly, daily, weekly });
  return Object.fromEntries(given.filter(([, count]) => count !== undefined));
}

/** A size, in bytes. */
export const maybeSize = z.string().transform(parseSize).optional();
