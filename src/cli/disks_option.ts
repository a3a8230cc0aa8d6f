/** `--disks`, of the verbs that take points, go back to them or look after them. */
import * as z from 'zod';
import type { KeptDisks } from '../disks/kept.js';
import { keepingKinds, parseDiskWay } from '../disks/way.js';
import { DormouseError } from '../errors.js';
import { figures } from './documents.js';
import type { VerbOption } from './verb.js';

export const disksOption: VerbOption = {
  flags: '--disks <way>',
  says: 'how the disks that it writes to are kept: reflink, lvm-thin, command:PROGRAM or none (default)',
};

/** Of verbs that keep none. */
export const keeperOption: VerbOption = {
  flags: '--disks <way>',
  says: 'command:PROGRAM: what keeps the disks of points that were taken so',
};

export const disksField = z.string().transform(parseDiskWay).optional();

/** The program alone. */
export const keeperField = disksField.transform((way) => {
  if (way === undefined) return undefined;
  if (way.kind === 'command') return way.program;
  throw new DormouseError('USAGE', 'only of command:PROGRAM it is to be said what keeps the disks');
});

export const disksDocument = {
  disks: z.enum(['none', ...keepingKinds]),
  keptDisks: z.array(
    z.object({ name: z.string(), path: z.string(), bytes: figures.count, where: z.string() }),
  ),
  disksMs: figures.milliseconds,
};

export function describeDisks(disks: KeptDisks): z.infer<z.ZodObject<typeof disksDocument>> {
  if (disks.kind === 'none') return { disks: 'none', keptDisks: [], disksMs: 0 };
  const keptDisks = disks.disks.map(({ name, path, bytes, where }) => ({ name, path, bytes, where }));
  return { disks: disks.kind, keptDisks, disksMs: disks.tookMs };
}

/** "reflink: xvda, xvdb" */
export function disksWords(disks: KeptDisks): string {
  if (disks.kind === 'none') return 'none';
  return `${disks.kind}: ${disks.disks.map(({ name }) => name).join(', ') || 'it had none'}`;
}
