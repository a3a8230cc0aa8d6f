import * as z from 'zod';
import type { BisectResult, Left, Trial } from '../../bisect/bisect.js';
import { leftAt } from '../../bisect/left_at.js';
import { verdicts } from '../../bisect/search.js';
import { DormouseError } from '../../errors.js';
import { renderFacts } from '../../render/table.js';
import { counted, formatDuration, printable } from '../../render/units.js';
import type { Context } from '../context.js';
import { disksField, disksOption } from '../disks_option.js';
import { figures } from '../documents.js';
import { flag, text, texts } from '../input.js';
import { parseDurationMs } from '../parse.js';
import { storeField, storeOption } from '../store_argument.js';
import { defineVerb, given } from '../verb.js';

const input = z.object({
  ...{ domain: text, command: texts, store: storeField },
  good: z.string({ error: 'say at which point it was good: --good POINT' }),
  bad: z.string({ error: 'say at which point it was bad: --bad POINT' }),
  timeout: z.string().transform(parseDurationMs).optional(),
  leave: z.enum(leftAt).default('before'),
  ...{ paused: flag, trustEnds: flag, keepDisks: flag, safety: z.boolean().default(true) },
  disks: disksField,
});

/** `is bad (exit 1, 1.20 s)`. */
function renderTrial({ point, verdict, exitCode, why, elapsedMs }: Trial): string {
  const word = verdict === 'skip' ? 'skipped' : verdict;
  const how = why ?? (exitCode === null ? 'took too long' : `exit ${exitCode}`);
  return `${point} is ${word} (${how}, ${formatDuration(elapsedMs)})`;
}

const renderLeft = ({ suspects, trials }: Left): string =>
  suspects === 1
    ? 'the first bad point is found'
    : `${counted(suspects, 'point')} left, about ${counted(trials, 'step')}`;

const places: Readonly<Record<BisectResult['left'], string>> = {
  before: 'where it was',
  good: 'at the last good point',
  bad: 'at the first bad point',
};

function render(result: BisectResult): string {
  const { name, domid, lastGood, firstBad, suspects, points, trials, safetyPoint, left, paused } = result;
  return renderFacts([
    firstBad === null ? ['first bad', `one of ${suspects.join(', ')}`] : ['first bad', firstBad],
    ['last good', lastGood],
    ['tried', `${trials.length} of ${counted(points, 'point')}`],
    ['domain', `${printable(name)} (domain ${domid}), ${places[left]}, ${paused ? 'paused' : 'running'}`],
    ['before', safetyPoint ?? undefined],
    ['took', formatDuration(result.elapsedMs)],
  ]);
}

async function find(context: Context, typed: z.output<typeof input>): Promise<BisectResult> {
  const { domain, store, timeout: timeoutMs, disks, ...options } = typed;
  if (!options.safety && options.leave === 'before')
    throw new DormouseError('USAGE', 'with --no-safety nothing leads back: say --leave good or --leave bad');
  const { host: hostName } = context.globals;
  return await context.withHost((host) =>
    context.services.bisect(host, domain, store, {
      ...options,
      ...given({ timeoutMs, disks }),
      // What COMMAND asks dormouse is meant of the same host.
      env: hostName === undefined ? {} : { DORMOUSE_HOST: hostName },
      signal: context.signal,
      rolling: (point, roll) => context.withProgress(`bisect ${domain}: to ${point}`, roll),
      onTrial: (trial, left) => context.step(`bisect ${domain}: ${renderTrial(trial)}; ${renderLeft(left)}`),
      notice: (words) => context.warn(words),
    }),
  );
}

export const bisect = defineVerb({
  name: 'bisect',
  summary: 'Finds the first point at which a command fails, by taking the domain back to points',
  details:
    'COMMAND is run as `git bisect run` runs it: exit code 0 says that the point is good, 1 to 127 that it is bad, but 125 that it cannot be ' +
    'judged; 128 or more, or a signal, ends the search. It has DORMOUSE_DOMAIN, DORMOUSE_DOMID and DORMOUSE_POINT in its environment; ' +
    'what it prints goes to stderr. If it takes longer than --timeout it is ended, and the point is bad.\n' +
    'The domain runs while COMMAND runs, whether it was paused or not, and stands between two points; with --paused it stands then too, as it ' +
    'was at the point. Its disks are taken back if the points hold them; its network is not.\n' +
    'First COMMAND is run at both ends: it must succeed at the good one and fail at the bad one. Only points that led from the one to the ' +
    'other are tried. One that is damaged or was forgotten is skipped. Exit code 3 if skipped points leave open which one is the first.\n' +
    'As it is before the domain is kept as a point. It goes back there in the end, and after Ctrl-C or any error, as paused as it was; ' +
    'after a result to where --leave says. If the tool is killed the domain stays at the point that was tried, perhaps paused, and the ' +
    'last point of the store, which is pinned, leads back.',
  args: [
    { form: '<domain>', says: 'name, id or uuid' },
    { form: '<command...>', says: 'what tells good from bad, with its arguments, after --' },
  ],
  options: [
    storeOption,
    { flags: '--good <point>', says: 'where all was well' },
    { flags: '--bad <point>', says: 'a later one, where it was not' },
    { flags: '--timeout <time>', says: 'what COMMAND may take: 30s, 5m (default: any time)' },
    { flags: '--trust-ends', says: 'do not try the two ends' },
    { flags: '--leave <where>', says: 'where the domain is left (default: before)', choices: leftAt },
    { flags: '-p, --paused', says: 'the domain stands while COMMAND runs' },
    {
      flags: '--keep-disks',
      says: 'the disks that it writes to stay as they are; without, points that do not hold them are refused',
    },
    {
      ...disksOption,
      says: 'how its disks are kept as they were before (default: as in the points), and what puts back those of command:PROGRAM',
    },
    { flags: '--no-safety', says: 'do not keep the domain as it is; for one that has crashed' },
  ],
  examples: [
    {
      command:
        'dormouse bisect web1 --store /srv/points --good @2026-11-22T09:00 --bad latest --timeout 30s -- ssh web1 systemctl is-active nginx',
      says: 'since when nginx is down',
    },
    {
      command:
        'dormouse bisect web1 --store /srv/points --good 20261122-09 --bad latest --leave good -- ./check.sh',
      says: 'and on from there',
    },
  ],
  document: z.object({
    domid: figures.count,
    name: z.string(),
    lastGood: z.string(),
    firstBad: z.string().nullable(),
    suspects: z.array(z.string()),
    points: figures.count,
    trials: z.array(
      z.object({
        point: z.string(),
        verdict: z.enum(verdicts),
        exitCode: figures.count.nullable(),
        why: z.string().nullable(),
        elapsedMs: figures.milliseconds,
      }),
    ),
    safetyPoint: z.string().nullable(),
    left: z.enum(leftAt),
    paused: z.boolean(),
    elapsedMs: figures.milliseconds,
  }),
  input,
  changes: true,
  cancellable: true,
  async run(context, typed) {
    const result = await find(context, typed);
    return { document: result, text: render(result), exitCode: result.firstBad === null ? 3 : 0 };
  },
});
