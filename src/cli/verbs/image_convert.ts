import * as z from 'zod';
import { DormouseError } from '../../errors.js';
import type { FileFormat } from '../../xenstream/detect.js';
import { compressionField, compressionOption } from '../compression_option.js';
import { figures, pageCounts } from '../documents.js';
import { renderClasses } from '../../render/progress.js';
import { renderFacts } from '../../render/table.js';
import { formatBytes, formatDuration, formatRate, printable } from '../../render/units.js';
import { text } from '../input.js';
import { defineVerb, given } from '../verb.js';
import { domainTypes } from '../../domain/type.js';

type Target = 'native' | 'xen';

/** The other side of what the file is; --to may only confirm it. */
function target(path: string, found: FileFormat, wanted: Target | undefined): Target {
  if (found === 'unknown')
    throw new DormouseError(
      'IMAGE_DAMAGED',
      `${path}: not a dormouse image, or its first page is damaged, nor an xl save file`,
      { place: { path }, advice: `Run \`dormouse image verify ${path}\` for what there is of it.` },
    );
  const to = found === 'dormouse' ? 'xen' : 'native';
  if (wanted === undefined || wanted === to) return to;
  throw new DormouseError('USAGE', `${path} is of that format already`);
}

export const imageConvert = defineVerb({
  name: 'image convert',
  summary: 'Converts between an image and an xl save file',
  details:
    'The direction follows from what is in the input: an xl save file (plain or gzip, stream v2 or v3) becomes an image, ' +
    'an image becomes an xl save file.',
  args: [
    { form: '<in>', says: 'an image or an xl save file' },
    { form: '<out>', says: 'the file to write; must not exist' },
  ],
  options: [
    { flags: '--to <format>', says: 'fail unless that is the direction', choices: ['xen', 'native'] },
    compressionOption,
  ],
  examples: [
    { command: 'dormouse image convert web1.xl web1.dmi', says: 'take over what xl save wrote' },
    { command: 'dormouse image convert --to xen web1.dmi web1.xl', says: 'for xl restore' },
  ],
  document: z.object({
    from: z.enum(['dormouse', 'xl', 'xl-gzip']),
    to: z.enum(['native', 'xen']),
    path: z.string(),
    imageId: z.string().nullable(),
    name: z.string(),
    type: z.enum(domainTypes),
    counts: pageCounts,
    memoryBytes: figures.count,
    storedBytes: figures.count,
    elapsedMs: figures.milliseconds,
    notes: z.array(z.string()),
  }),
  input: z.object({
    in: text,
    out: text,
    to: z.enum(['xen', 'native']).optional(),
    compression: compressionField,
  }),
  cancellable: true,
  changes: true,
  async run(context, input) {
    const { in: from, out: path, compression } = input;
    const format = await context.services.detectFormat(from);
    const to = target(from, format, input.to);
    if (to === 'xen' && compression)
      throw new DormouseError('USAGE', '--compression is of images; an xl save file holds pages as they are');
    const result = await context.withProgress(`convert ${from}`, async (options) =>
      to === 'native'
        ? await context.services.convertFromXen(from, path, { ...options, ...given({ compression }) })
        : { ...(await context.services.convertToXen(from, path, options)), imageId: null },
    );
    const { imageId, name, type, counts, memoryBytes, storedBytes, elapsedMs, notes } = result;
    const text = renderFacts([
      [
        'converted',
        `${printable(name)} (${type}), ${to === 'native' ? 'to an image' : 'to an xl save file'}`,
      ],
      ['file', `${printable(path)}, ${formatBytes(storedBytes)}`],
      ['pages', renderClasses(counts)],
      ['took', `${formatDuration(elapsedMs)}, ${formatRate(memoryBytes, elapsedMs)}`],
    ]);
    const document = {
      ...{ from: format, to, path, imageId, name, type },
      ...{ counts, memoryBytes, storedBytes, elapsedMs, notes: [...notes] },
    };
    return { document, text: text + notes.map((note) => `note: ${printable(note)}\n`).join('') };
  },
});
