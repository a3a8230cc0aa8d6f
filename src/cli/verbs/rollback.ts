import * as z from 'zod';
import { DormouseError } from '../../errors.js';
import { renderParts } from '../../render/summary.js';
import { renderFacts } from '../../render/table.js';
import { formatDuration, printable } from '../../render/units.js';
import { downtime, figures, phases } from '../documents.js';
import { maybeText, text } from '../input.js';
import { defineVerb } from '../verb.js';

const input = z.object({
  domain: text,
  image: maybeText,
  safety: z.union([z.string(), z.literal(false)]).optional(),
});

/** What the domain goes back to, and where it is kept as it was before; null: nowhere. */
function pointOf({ image, safety }: z.output<typeof input>): { image: string; safety: string | null } {
  if (image === undefined) throw new DormouseError('USAGE', 'say what it goes back to: --image FILE');
  if (safety === undefined)
    throw new DormouseError('USAGE', 'say --safety FILE to keep the domain as it is now, or --no-safety');
  return { image, safety: safety === false ? null : safety };
}

export const rollback = defineVerb({
  name: 'rollback',
  summary: 'Takes a domain back, in place, to an image of it',
  details:
    'The domain keeps its id and goes on from the moment of the image, as paused as it is now; what it did since is lost, ' +
    'unless --safety keeps it. Disks and network are not taken back.\n' +
    'The whole image is read and checked while the guest runs, and only pages that differ are put back in the pause. With ' +
    '--safety the pause is longer: the new image is complete and on disk before the domain goes back.\n' +
    'Once it goes back it is not stopped half way, by signals neither. If the tool dies then, the domain stays paused ' +
    '(domstate --reason: rewinding) until it is rolled back again or destroyed.',
  args: [{ form: '<domain>', says: 'name, id or uuid' }],
  options: [
    { flags: '--image <image>', says: 'an image of this domain, with all that it needs beside it' },
    { flags: '--safety <file>', says: 'a light image of the domain as it is now; must not exist' },
    { flags: '--no-safety', says: 'without one: there is no way back' },
  ],
  examples: [
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
    safety: z.string().nullable(),
    paused: z.boolean(),
    putPages: figures.count,
    samePages: figures.count,
    pauseMs: figures.milliseconds,
    elapsedMs: figures.milliseconds,
    phases,
    downtime,
  }),
  input,
  cancellable: true,
  async run(context, typed) {
    const { image, safety } = pointOf(typed);
    const result = await context.withHost((host) =>
      context.withProgress(`rollback ${typed.domain}`, (options) =>
        context.services.rollback(host, typed.domain, image, {
          ...options,
          ...(safety !== null && { safety }),
        }),
      ),
    );
    const { verbose } = context.globals;
    const ending = result.paused ? 'paused' : 'running';
    const text = renderFacts([
      ['rolled back', `${printable(result.name)} (domain ${result.domid}), ${ending}`],
      ['image', result.imageId],
      ...(result.safety === null ? [] : [['before', printable(result.safety)] as const]),
      ['pages', `${result.putPages} put back, ${result.samePages} the same`],
      ['took', formatDuration(result.elapsedMs)],
      ['  of that', verbose ? renderParts(result.phases) : undefined],
      ['paused for', formatDuration(result.pauseMs)],
      ['  of that', verbose ? renderParts(result.downtime) : undefined],
    ]);
    return { document: result, text };
  },
});
