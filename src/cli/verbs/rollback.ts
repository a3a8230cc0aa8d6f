import * as z from 'zod';
import { DormouseError } from '../../errors.js';
import type { Host } from '../../host/contract.js';
import type { PointRollbackResult } from '../../rollback/to_point.js';
import { renderParts } from '../../render/summary.js';
import { renderFacts } from '../../render/table.js';
import { formatDuration, printable } from '../../render/units.js';
import type { Context } from '../context.js';
import { disksField, disksOption } from '../disks_option.js';
import { downtime, figures, phases } from '../documents.js';
import { flag, maybeText, text } from '../input.js';
import { storeOption } from '../store_argument.js';
import { defineVerb, given } from '../verb.js';

const input = z.object({
  ...{ domain: text, point: maybeText, store: maybeText, image: maybeText },
  safety: z.union([z.string(), z.literal(false)]).optional(),
  keepDisks: flag,
  disks: disksField,
});
type Input = z.output<typeof input>;

/** Of a file: what it goes back to, and where it is kept as it was before. */
function filesOf({ image, safety, point }: Input): { image: string; safety?: string } {
  if (image === undefined || point !== undefined)
    throw new DormouseError('USAGE', 'say what it goes back to: a point and --store FOLDER, or --image FILE');
  if (safety === undefined)
    throw new DormouseError('USAGE', 'say --safety FILE to keep the domain as it is now, or --no-safety');
  return { image, ...(safety !== false && { safety }) };
}

type WentBack = Omit<PointRollbackResult, 'point'> & { readonly point: string | null };

/** Of an image no disks are known. */
const noneBack = { point: null, safetyPoint: null, disks: [] } as const;

function goBack(context: Context, host: Host, typed: Input): Promise<WentBack> {
  const { domain, store, point, image, safety, keepDisks, disks } = typed;
  return context.withProgress(`rollback ${domain}`, async (progress) => {
    const options = { ...progress, keepDisks };
    if (store === undefined) {
      if (disks) throw new DormouseError('USAGE', 'an image holds no disks: --disks needs --store');
      const files = filesOf(typed);
      const done = await context.services.rollback(host, domain, files.image, { ...options, ...files });
      return { ...done, ...noneBack };
    }
    if (image !== undefined || typeof safety === 'string')
      throw new DormouseError(
        'USAGE',
        'with --store there is no --image, and --safety is a point of the store',
      );
    const notice = (words: string): void => context.warn(words);
    const chosen = { ...options, notice, safety: safety !== false, ...given({ disks }) };
    return await context.services.rollbackToPoint(host, domain, store, point ?? 'latest', chosen);
  });
}

export const rollback = defineVerb({
  name: 'rollback',
  summary: 'Takes a domain back, in place, to a point or an image of it',
  details:
    'The domain keeps its id and goes on from the moment of the point or image, as paused as it is now; what it did since is lost, ' +
    'unless it is kept: with --store as a point, else by --safety. The disks that the point holds are put back while their backends are away, ' +
    'if they are still those that the domain has; a domain that writes to disks that the point does not hold is refused without --keep-disks.\n' +
    'The whole image is read and checked while the guest runs, and only pages that differ are put back in the pause. With ' +
    '--safety the pause is longer: the new image is complete and on disk before the domain goes back.\n' +
    'Once it goes back it is not stopped half way, by signals neither. If the tool dies then, the domain stays paused ' +
    '(domstate --reason: rewinding) until it is rolled back again or destroyed.',
  args: [
    { form: '<domain>', says: 'name, id or uuid' },
    { form: '[point]', says: 'as `points` shows it, or how that begins; latest (default), latest~2, @TIME' },
  ],
  options: [
    storeOption,
    {
      flags: '--image <image>',
      says: 'instead of a point: an image of this domain, with all that it needs beside it',
    },
    { flags: '--safety <file>', says: 'a light image of the domain as it is now; must not exist' },
    { flags: '--no-safety', says: 'keep it nowhere: there is no way back' },
    {
      flags: '--keep-disks',
      says: 'go back although disks that the domain writes to stay as they are: its file systems must bear it',
    },
    {
      ...disksOption,
      says: 'how its disks are kept as they were before (default: as in the point), and what puts back those of command:PROGRAM',
    },
  ],
  examples: [
    {
      command: 'dormouse rollback web1 latest~1 --store /srv/points',
      says: 'to the point before the last one; as it is now it is kept as a point',
    },
    {
      command: 'dormouse rollback web1 --image web1-3.dmi --safety web1-now.dmi',
      says: 'back to web1-3.dmi, and web1-now.dmi leads back again',
    },
    {
      command: 'dormouse rollback web1 --image web1-3.dmi --no-safety',
      says: 'what web1 did since is lost',
    },
  ],
  document: z.object({
    path: z.string(),
    domid: figures.count,
    name: z.string(),
    imageId: z.string(),
    point: z.string().nullable(),
    safety: z.string().nullable(),
    safetyPoint: z.string().nullable(),
    paused: z.boolean(),
    disks: z.array(z.string()),
    putPages: figures.count,
    samePages: figures.count,
    pauseMs: figures.milliseconds,
    elapsedMs: figures.milliseconds,
    phases,
    downtime,
  }),
  input,
  changes: true,
  cancellable: true,
  async run(context, typed) {
    const result = await context.withHost((host) => goBack(context, host, typed));
    const { verbose } = context.globals;
    const ending = result.paused ? 'paused' : 'running';
    const text = renderFacts([
      ['rolled back', `${printable(result.name)} (domain ${result.domid}), ${ending}`],
      result.point === null ? ['image', result.imageId] : ['to point', result.point],
      ['before', result.safetyPoint ?? (result.safety === null ? undefined : printable(result.safety))],
      ['disks', result.disks.length === 0 ? undefined : `${result.disks.join(', ')} put back`],
      ['pages', `${result.putPages} put back, ${result.samePages} the same`],
      ['took', formatDuration(result.elapsedMs)],
      ['  of that', verbose ? renderParts(result.phases) : undefined],
      ['paused for', formatDuration(result.pauseMs)],
      ['  of that', verbose ? renderParts(result.downtime) : undefined],
    ]);
    return { document: { ...result, disks: [...result.disks] }, text };
  },
});
