import * as z from 'zod';
import { checkpointModes } from '../../domain/checkpoint_mode.js';
import type { ProtectResult } from '../../protect/protect.js';
import { renderFacts } from '../../render/table.js';
import { counted, formatBytes, formatCount, formatDuration, printable } from '../../render/units.js';
import { compressionField, compressionOption } from '../compression_option.js';
import { disksField, disksOption } from '../disks_option.js';
import { figures } from '../documents.js';
import { maybeSeconds, text } from '../input.js';
import { parseCount, parseDurationMs } from '../parse.js';
import {
  maybeSize,
  retentionFields,
  retentionOf,
  retentionOptions,
  storeField,
  storeOption,
} from '../store_argument.js';
import { defineVerb, given } from '../verb.js';

const duration = z.string().transform(parseDurationMs);

const input = z.object({
  ...{ domain: text, store: storeField, every: duration.default(1000) },
  count: z.string().transform(parseCount).optional(),
  mode: z.enum(checkpointModes).default('light'),
  disks: disksField,
  maxPause: duration.optional(),
  overBudget: z.enum(['take', 'skip']).default('take'),
  maxBytes: maybeSize,
  minFree: maybeSize.default(2 ** 30),
  ...retentionFields,
  ...{ compression: compressionField, deltas: z.boolean(), suspendTimeout: maybeSeconds },
});

function render({ name, domid, points, skipped, failed, ...result }: ProtectResult): string {
  const not = [
    ...(skipped > 0 ? [`${formatCount(skipped)} skipped for their pause`] : []),
    ...(failed > 0 ? [counted(failed, 'failure')] : []),
  ];
  return renderFacts([
    ['protected', `${printable(name)} (domain ${domid}), which runs on`],
    ['points', [counted(points, 'point'), ...not].join(', ')],
    ['size', formatBytes(result.storedBytes)],
    ['longest pause', formatDuration(result.longestPauseMs)],
    ['took', formatDuration(result.elapsedMs)],
  ]);
}

export const protect = defineVerb({
  name: 'protect',
  summary: 'Takes a point of a running domain every second, or as often as told, until it is stopped',
  details:
    'A point is an image of the domain at one instant, in a store; each but the first holds what changed since the one before. ' +
    'The disks that the domain writes to are in it only with --disks, of the same instant. Ctrl-C or SIGTERM end it: a point that is being taken is dropped, and the exit code is 0. What ' +
    'may pass is told on stderr and tried again, later each time: a store that is full or away, another tool at work on the ' +
    'domain, a reboot. If the domain stays away for 30 s it is DOMAIN_NOT_FOUND.\n' +
    'Without --keep all points stay. --max-bytes forgets the oldest ones first, a chain at a time, and begins a new chain when half ' +
    'of it is used; pinned points stay. With less than --min-free on the disk no point is taken.',
  args: [{ form: '<domain>', says: 'name, id or uuid' }],
  options: [
    { ...storeOption, says: 'where the points go; made if it is not there' },
    { flags: '--every <time>', says: 'from the start of one point to the next: 500ms, 2s, 5m (default: 1s)' },
    { flags: '--count <n>', says: 'end after n points' },
    ...retentionOptions,
    { flags: '--max-pause <time>', says: 'what the pause of a point may take' },
    {
      flags: '--over-budget <what>',
      says: 'with a point whose pause would be longer (default: take)',
      choices: ['take', 'skip'],
    },
    { flags: '--max-bytes <size>', says: "what the domain's points may take of the disk" },
    { flags: '--min-free <size>', says: 'what is left free on the disk (default: 1G)' },
    { flags: '--mode <mode>', says: 'how the domain is paused (default: light)', choices: checkpointModes },
    disksOption,
    compressionOption,
    {
      flags: '--no-deltas',
      says: 'store pages that changed little whole, not as what changed of them: more room, and points need fewer others',
    },
    { flags: '--suspend-timeout <seconds>', says: 'how long the guest may take to suspend (default: 60)' },
  ],
  examples: [
    {
      command: 'dormouse protect web1 --store /srv/points --keep-last 60 --keep-minutely 60 --keep-hourly 48',
      says: 'a point a second; a minute of them, an hour of minutes, two days of hours are kept',
    },
    {
      command: 'dormouse protect web1 --store /srv/points --every 5s --max-pause 5ms --over-budget skip',
      says: 'never pauses web1 for longer than 5 ms, as far as can be foreseen',
    },
  ],
  document: z.object({
    domid: figures.count,
    name: z.string(),
    points: figures.count,
    skipped: figures.count,
    failed: figures.count,
    storedBytes: figures.count,
    longestPauseMs: figures.milliseconds,
    elapsedMs: figures.milliseconds,
    ended: z.enum(['count', 'told']),
  }),
  input,
  changes: true,
  cancellable: true,
  async run(context, typed) {
    const { domain, store, every: everyMs, mode, overBudget, minFree: minFreeBytes } = typed;
    const { count, maxPause: maxPauseMs, maxBytes, compression, deltas, disks } = typed;
    const { suspendTimeout: suspendTimeoutMs } = typed;
    const result = await context.withHost((host) =>
      context.services.protect(host, domain, store, {
        ...{ everyMs, mode, overBudget, minFreeBytes, retention: retentionOf(typed) },
        ...{ signal: context.signal, reason: 'protect' as const, patient: true },
        ...given({ count, maxPauseMs, maxBytes, compression, suspendTimeoutMs, disks }),
        ...(!deltas && { deltas }),
        notice: (text) => context.warn(text),
        onPoint: ({ record: { id, image, pauseMs } }, late) => {
          const words = `${id}: ${formatBytes(image.storedBytes)}, paused for ${formatDuration(pauseMs)}`;
          if (late) context.warn(`${words}: longer than it may be`);
          else context.debug(words);
        },
      }),
    );
    return { document: result, text: render(result) };
  },
});
