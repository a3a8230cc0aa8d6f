import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import type { CheckpointResult } from '../../checkpoint/checkpoint.js';
import { compressions } from '../../codec/compression.js';
import { asDormouseError, changed, DormouseError } from '../../errors.js';
import type { Host } from '../../host/contract.js';
import type { Context } from '../context.js';
import { compressionField, compressionOption } from '../compression_option.js';
import { disksField, disksOption, disksWords } from '../disks_option.js';
import { downtime, figures, pageCounts, phases } from '../documents.js';
import { parseCount, parseIntervalMs } from '../parse.js';
import type { TakenPoint } from '../../protect/point_session.js';
import { renderSaved } from '../../render/summary.js';
import { renderFacts } from '../../render/table.js';
import { formatBytes, formatDuration, printable } from '../../render/units.js';
import { maybeSeconds, maybeText, text } from '../input.js';
import { describePoint, pointDocument, storeOption } from '../store_argument.js';
import { defineVerb, given, type Outcome } from '../verb.js';
import { consistencies } from '../../image/format.js';
import { checkpointModes } from '../../domain/checkpoint_mode.js';

const input = z.object({
  ...{ domain: text, file: maybeText, store: maybeText },
  mode: z.enum(checkpointModes).default('light'),
  count: z.string().transform(parseCount).optional(),
  interval: z.string().transform(parseIntervalMs).default(0),
  ...{ incrementalFrom: maybeText, compression: compressionField, suspendTimeout: maybeSeconds },
  disks: disksField,
});
type Input = z.output<typeof input>;

/** The files of the series. */
function pathsOf({ file, count, interval, store, disks }: Input): string[] {
  if (disks) throw new DormouseError('USAGE', 'disks are kept with points: --disks needs --store');
  if (file === undefined) throw new DormouseError('USAGE', 'say where: a file, or --store FOLDER');
  if (store !== undefined) throw new DormouseError('USAGE', 'a file is given and --store: say one of them');
  if (count === undefined) {
    if (file.includes('%d') || interval > 0)
      throw new DormouseError('USAGE', '%d in the file name and --interval are for a series: say --count');
    return [file];
  }
  if (!file.includes('%d'))
    throw new DormouseError('USAGE', 'with --count the file name holds %d, the place of the number');
  return Array.from({ length: count }, (_, i) => file.replaceAll('%d', String(i + 1)));
}

/** What stopped a series, with what it has nevertheless. */
function stoppedEarly(thrown: unknown, kept: string, done: Readonly<Record<string, unknown>>): DormouseError {
  const error = asDormouseError(thrown);
  return changed(error, { details: [...error.details, `kept: ${kept}`], done });
}

/** All of the series; what stops it early says which images there are. */
async function takeAll(
  context: Context,
  host: Host,
  request: Input,
  paths: readonly string[],
): Promise<CheckpointResult[]> {
  const results: CheckpointResult[] = [];
  try {
    await takeEach(context, host, request, paths, results);
    return results;
  } catch (thrown) {
    const [first, last] = [results[0], results.at(-1)];
    if (!first || !last) throw thrown;
    const files = first === last ? first.path : `${first.path} to ${last.path}`;
    const kept = `${results.length} of ${paths.length} images, whole: ${files}`;
    throw stoppedEarly(thrown, kept, { checkpoints: results });
  }
}

/** Adds each to `results` as soon as it is there. */
async function takeEach(
  context: Context,
  host: Host,
  request: Input,
  paths: readonly string[],
  results: CheckpointResult[],
): Promise<void> {
  const { domain, mode, compression, suspendTimeout: suspendTimeoutMs, interval: intervalMs } = request;
  // Each of a series is taken on the one before.
  let { incrementalFrom } = request;
  for (const path of paths) {
    const startedMs = performance.now();
    const result = await context.withProgress(`checkpoint ${domain}`, (options) => {
      const chosen = given({ compression, suspendTimeoutMs, incrementalFrom });
      const notice = (words: string): void => context.warn(words);
      return context.services.checkpoint(host, domain, path, { ...options, ...chosen, mode, notice });
    });
    results.push(result);
    if (incrementalFrom !== undefined) incrementalFrom = path;
    const restMs = intervalMs - (performance.now() - startedMs);
    if (restMs > 0 && results.length < paths.length) await rest(restMs, context.signal);
  }
}

/** Each on the last point that the store has of the domain, if it has any. */
async function takePoints(
  context: Context,
  host: Host,
  {
    domain,
    mode,
    compression,
    count,
    interval,
    incrementalFrom,
    disks,
    ...typed
  }: Input & { readonly store: string },
): Promise<TakenPoint[]> {
  if (typed.file !== undefined || incrementalFrom !== undefined)
    throw new DormouseError('USAGE', 'with --store there is no file and no --incremental-from');
  const taken: TakenPoint[] = [];
  try {
    await context.withProgress(`checkpoint ${domain}`, (options) =>
      context.services.protect(host, domain, typed.store, {
        ...{ count: count ?? 1, everyMs: interval, mode, reason: 'checkpoint', patient: false },
        ...{ retention: {}, overBudget: 'take', minFreeBytes: 0, signal: context.signal },
        ...given({
          compression,
          suspendTimeoutMs: typed.suspendTimeout,
          onProgress: options.onProgress,
          disks,
        }),
        notice: (words) => context.warn(words),
        onPoint: (point) => taken.push(point),
      }),
    );
    return taken;
  } catch (thrown) {
    const last = taken.at(-1);
    if (!last) throw thrown;
    const kept = `${taken.length} of ${count} points, the last is ${last.record.id}`;
    const points = taken.map(({ record, path }) => describePoint(record, path));
    throw stoppedEarly(thrown, kept, { points });
  }
}

async function runInto(context: Context, typed: Input & { readonly store: string }): Promise<Outcome> {
  const taken = await context.withHost((host) => takePoints(context, host, typed));
  const points = taken.map(({ record, path }) => describePoint(record, path));
  const lines = points.map(({ point, path, pauseMs, storedBytes, memoryBytes, domain }, i) =>
    renderFacts([
      ['point', `${point} of ${printable(domain.name)} (domain ${domain.domid})`],
      ['file', printable(path)],
      ['size', `${formatBytes(memoryBytes)} of memory in ${formatBytes(storedBytes)}`],
      ['disks', disksWords(taken[i]?.record.disks ?? { kind: 'none' })],
      ['paused for', formatDuration(pauseMs)],
    ]),
  );
  return { document: { checkpoints: [], points }, text: lines.join('\n') };
}

async function rest(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch((cause: unknown) => {
    throw new DormouseError('CANCELLED', 'cancelled between two checkpoints', { cause });
  });
}

export const checkpoint = defineVerb({
  name: 'checkpoint',
  summary: 'Writes an image of a running domain, which goes on in place',
  details:
    'light: the domain is paused and never shut down. The embedded host copies on write, so its pause takes far less than ' +
    'a millisecond. On Xen memory is written while the guest runs, and what changed meanwhile is copied in the pause: the ' +
    'more the guest writes the longer, and for a PV guest the longer the more memory it has. Such an image is of a paused ' +
    'guest and cannot be restored into a new domain.\n' +
    'cooperative: the guest is asked to suspend and is resumed after the copy.\n' +
    '--incremental-from: the new image needs that one, and all that it needs itself, beside it under their names for as ' +
    'long as it is to be read. With --count each image is taken on the one before.',
  args: [
    { form: '<domain>', says: 'name, id or uuid' },
    { form: '[file]', says: 'the image to write; must not exist' },
  ],
  options: [
    { ...storeOption, says: 'take a point into this store instead, made if it is not there' },
    { flags: '--mode <mode>', says: 'how it is paused (default: light)', choices: checkpointModes },
    { flags: '--count <n>', says: 'take n checkpoints, one after the other; the file name holds %d' },
    { flags: '--interval <ms>', says: 'least time from one start to the next (default: 0)' },
    {
      flags: '--incremental-from <image>',
      says: 'store only what is not the same in that image, of the same folder',
    },
    { ...disksOption, says: `with --store: ${disksOption.says}` },
    compressionOption,
    { flags: '--suspend-timeout <seconds>', says: 'how long the guest may take to suspend (default: 60)' },
  ],
  examples: [
    { command: 'dormouse checkpoint web1 web1.dmi', says: 'a light checkpoint' },
    {
      command: 'dormouse checkpoint --count 10 --interval 1000 web1 web1-%d.dmi',
      says: 'ten, a second apart',
    },
    {
      command: 'dormouse checkpoint --store /srv/points web1',
      says: 'a point, on the last one of web1 there',
    },
    {
      command: 'dormouse checkpoint --incremental-from web1.dmi web1 web1-2.dmi',
      says: 'only what changed since',
    },
  ],
  document: z.object({
    points: z.array(pointDocument),
    checkpoints: z.array(
      z.object({
        path: z.string(),
        imageId: z.string(),
        parent: z.string().nullable(),
        compression: z.enum(compressions),
        domid: figures.count,
        name: z.string(),
        paused: z.boolean(),
        mode: z.enum(checkpointModes),
        consistency: z.enum(consistencies),
        counts: pageCounts,
        memoryBytes: figures.count,
        storedBytes: figures.count,
        pauseMs: figures.milliseconds,
        elapsedMs: figures.milliseconds,
        phases,
        downtime,
        cowPages: figures.count,
        copiedPages: figures.count,
      }),
    ),
  }),
  input,
  cancellable: true,
  changes: true,
  async run(context, typed) {
    const { store } = typed;
    if (store !== undefined) return await runInto(context, { ...typed, store });
    const paths = pathsOf(typed);
    const checkpoints = await context.withHost((host) => takeAll(context, host, typed, paths));
    const { verbose } = context.globals;
    const text = checkpoints
      .map((result) => {
        const ending = result.paused ? 'left paused' : 'runs on';
        const pause = ['paused for', result.pauseMs] as const;
        return renderSaved(`checkpoint (${result.mode})`, result, ending, pause, verbose);
      })
      .join('\n');
    return { document: { checkpoints, points: [] }, text };
  },
});
