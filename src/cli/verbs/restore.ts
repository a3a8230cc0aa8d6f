import * as z from 'zod';
import { keeperField, keeperOption } from '../disks_option.js';
import { figures, pageCounts, phases } from '../documents.js';
import { restoreChoices, trustFields, trustOptions, typedOf } from '../restore_choices.js';
import { renderParts } from '../../render/summary.js';
import { renderFacts } from '../../render/table.js';
import { formatBytes, formatDuration, formatRate, printable } from '../../render/units.js';
import type { Host } from '../../host/contract.js';
import type { PointRestoreResult } from '../../restore/from_point.js';
import { DormouseError } from '../../errors.js';
import type { Context } from '../context.js';
import { flag, maybeText, text } from '../input.js';
import { storeOption } from '../store_argument.js';
import { defineVerb, given } from '../verb.js';

const input = z.object({
  ...{ fileOrDomain: text, point: maybeText, store: maybeText, paused: flag },
  ...{ diskDir: maybeText, keepDisks: flag, disks: keeperField },
  ...trustFields,
});
type Input = z.output<typeof input>;

type Restored = Omit<PointRestoreResult, 'point'> & { readonly point: string | null };

/** What is restored, as it is typed. USAGE. */
function wordsOf({ fileOrDomain, point, store, scratch, diskDir, keepDisks, disks }: Input): string[] {
  if (store === undefined) {
    if (diskDir !== undefined || keepDisks || disks !== undefined)
      throw new DormouseError('USAGE', 'disks are those of a point: say --store FOLDER');
    if (point === undefined) return [fileOrDomain];
    throw new DormouseError('USAGE', 'a point is of a store: say --store FOLDER');
  }
  if (scratch !== undefined)
    throw new DormouseError('USAGE', '--scratch is for files of xl save, of which a store has none');
  const ofDisks = [
    ...(diskDir === undefined ? [] : ['--disk-dir', diskDir]),
    ...(keepDisks ? ['--keep-disks'] : []),
    ...(disks === undefined ? [] : ['--disks', `command:${disks}`]),
  ];
  return [fileOrDomain, point ?? 'latest', '--store', store, ...ofDisks];
}

async function restoreIt(context: Context, host: Host, typed: Input): Promise<Restored> {
  const words = wordsOf(typed);
  const chosen = await restoreChoices(context, host, typed, await typedOf(context, typed, words));
  const { fileOrDomain, point, store, paused, diskDir, keepDisks, disks: program } = typed;
  return context.withProgress(`restore ${fileOrDomain}`, async (progress) => {
    const options = { ...progress, paused, ...chosen };
    if (store !== undefined)
      return await context.services.restorePoint(host, store, fileOrDomain, point ?? 'latest', {
        ...{ ...options, keepDisks },
        ...given({ diskDir, program }),
      });
    const restored = await context.services.restore(host, fileOrDomain, options);
    return { ...restored, path: fileOrDomain, point: null, disks: [] };
  });
}

export const restore = defineVerb({
  name: 'restore',
  summary: 'Builds a new domain from an image, an xl save file or a point, and lets it run',
  details:
    'With --store it is a point, which no prune takes away meanwhile; of one that holds disks it has to be said what becomes of them. A file is checked whole before a domain is made, and is never ' +
    'changed or removed. A file of xl save (plain or gzip) becomes a temporary image on the way, which needs room beside it or in ' +
    '--scratch. A configuration that names paths, scripts, devices or other things of the host is used only if a key trusted here ' +
    'signed the image, or with --trust-config; --config gives another one.',
  args: [
    {
      form: '<file-or-domain>',
      says: 'an image of save or of checkpoint, or a file of xl save; with --store the domain: its uuid, or the name that it had at its last point',
    },
    { form: '[point]', says: 'as `points` shows it, or how that begins; latest (default), latest~2, @TIME' },
  ],
  options: [
    storeOption,
    { flags: '-p, --paused', says: 'leave the new domain paused' },
    {
      flags: '--scratch <folder>',
      says: 'where the temporary image of an xl save file goes (default: beside it)',
    },
    {
      flags: '--disk-dir <folder>',
      says: 'make new disks for it there of those that the point holds, NAME.DEVICE.raw',
    },
    {
      flags: '--keep-disks',
      says: 'though the point holds disks it gets those of its configuration, as they are',
    },
    keeperOption,
    ...trustOptions,
  ],
  examples: [
    { command: 'dormouse restore web1.dmi', says: 'web1 goes on where it was saved' },
    { command: 'dormouse restore --trust-config web1.xl', says: 'web1 is taken over from xl save' },
    { command: 'dormouse restore -p --name copy web1.dmi', says: 'a paused copy under another name' },
    {
      command: 'dormouse restore --name then web1 latest~1 --store /srv/points',
      says: 'web1 as it was at the point before the last one',
    },
  ],
  document: z.object({
    path: z.string(),
    point: z.string().nullable(),
    domid: figures.count,
    name: z.string(),
    from: z.enum(['dormouse', 'xl', 'xl-gzip']),
    imageId: z.string(),
    paused: z.boolean(),
    disks: z.array(z.string()),
    counts: pageCounts,
    memoryBytes: figures.count,
    elapsedMs: figures.milliseconds,
    phases,
    notes: z.array(z.string()),
  }),
  input,
  cancellable: true,
  changes: true,
  async run(context, typed) {
    const { paused } = typed;
    const result = await context.withHost((host) => restoreIt(context, host, typed));
    const { path, point, notes } = result;
    const facts = renderFacts([
      ['restored', `${printable(result.name)} (domain ${result.domid}), ${paused ? 'paused' : 'running'}`],
      point === null
        ? result.from === 'dormouse'
          ? ['image', result.imageId]
          : ['taken over from xl', printable(path)]
        : ['point', point],
      ['new disks', result.disks.length === 0 ? undefined : result.disks.map(printable).join(', ')],
      ['memory', formatBytes(result.memoryBytes)],
      ['took', `${formatDuration(result.elapsedMs)}, ${formatRate(result.memoryBytes, result.elapsedMs)}`],
      ['  of that', context.globals.verbose ? renderParts(result.phases) : undefined],
    ]);
    return {
      document: { ...result, paused, notes: [...notes], disks: [...result.disks] },
      guest: paused ? 'paused' : 'running',
      text: facts + notes.map((note) => `note: ${printable(note)}\n`).join(''),
    };
  },
});
