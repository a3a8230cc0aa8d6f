import * as z from 'zod';
import { figures, pageCounts, phases } from '../documents.js';
import { restoreChoices, trustFields, trustOptions, typedOf } from '../restore_choices.js';
import { renderParts } from '../../render/summary.js';
import { renderFacts } from '../../render/table.js';
import { formatBytes, formatDuration, formatRate, printable } from '../../render/units.js';
import { flag } from '../input.js';
import { defineVerb } from '../verb.js';

export const restore = defineVerb({
  name: 'restore',
  summary: 'Builds a new domain from an image or an xl save file and lets it run',
  details:
    'The file is checked whole before a domain is made, and is never changed or removed. A file of xl save (plain or ' +
    'gzip) becomes a temporary image on the way, which needs room beside it or in --scratch. A configuration that names ' +
    'paths, scripts, devices or other things of the host is used only if a key trusted here signed the image, or with ' +
    '--trust-config; --config gives another one.',
  args: [{ form: '<file>', says: 'an image of save or of checkpoint, or a file of xl save' }],
  options: [
    { flags: '-p, --paused', says: 'leave the new domain paused' },
    {
      flags: '--scratch <folder>',
      says: 'where the temporary image of an xl save file goes (default: beside it)',
    },
    ...trustOptions,
  ],
  examples: [
    { command: 'dormouse restore web1.dmi', says: 'web1 goes on where it was saved' },
    { command: 'dormouse restore --trust-config web1.xl', says: 'web1 is taken over from xl save' },
    { command: 'dormouse restore -p --name copy web1.dmi', says: 'a paused copy under another name' },
  ],
  document: z.object({
    path: z.string(),
    domid: figures.count,
    name: z.string(),
    from: z.enum(['dormouse', 'xl', 'xl-gzip']),
    imageId: z.string(),
    paused: z.boolean(),
    counts: pageCounts,
    memoryBytes: figures.count,
    elapsedMs: figures.milliseconds,
    phases,
    notes: z.array(z.string()),
  }),
  input: z.object({ ...trustFields, paused: flag }),
  cancellable: true,
  changes: true,
  async run(context, input) {
    const { file: path, paused } = input;
    const result = await context.withHost(async (host) => {
      const chosen = await restoreChoices(context, host, input, await typedOf(context, input));
      return context.withProgress(`restore ${path}`, (options) =>
        context.services.restore(host, path, { ...options, paused, ...chosen }),
      );
    });
    const text = renderFacts([
      ['restored', `${printable(result.name)} (domain ${result.domid}), ${paused ? 'paused' : 'running'}`],
      [
        result.from === 'dormouse' ? 'image' : 'taken over from xl',
        result.from === 'dormouse' ? result.imageId : printable(path),
      ],
      ['memory', formatBytes(result.memoryBytes)],
      ['took', `${formatDuration(result.elapsedMs)}, ${formatRate(result.memoryBytes, result.elapsedMs)}`],
      ['  of that', context.globals.verbose ? renderParts(result.phases) : undefined],
    ]);
    const { notes } = result;
    return {
      document: { ...result, path, paused, notes: [...notes] },
      guest: paused ? 'paused' : 'running',
      text: text + notes.map((note) => `note: ${printable(note)}\n`).join(''),
    };
  },
});
