import * as z from 'zod';
import { type ExportKind, exportKinds } from '../../convert/export_kind.js';
import { DormouseError } from '../../errors.js';
import { renderClasses } from '../../render/progress.js';
import { renderFacts } from '../../render/table.js';
import { formatBytes, formatDuration, formatRate, printable } from '../../render/units.js';
import { compressionField, compressionOption } from '../compression_option.js';
import { figures, pageCounts } from '../documents.js';
import { maybeText, text } from '../input.js';
import { storedDomain, storeField, storeOption, typedPoint } from '../store_argument.js';
import { defineVerb, given } from '../verb.js';

const kindWords: Readonly<Record<ExportKind, string>> = {
  image: 'an image',
  xl: 'a file of xl save',
  core: 'a core dump',
  raw: 'raw memory',
  lime: 'memory for LiME readers',
};

export const pointExport = defineVerb({
  name: 'point export',
  summary: 'Writes a point into a file of its own, of ours or of another kind',
  details:
    'image: all of it in one image, which needs no other. xl: for xl restore; not of a guest that was paused, as of light points on Xen. core: ' +
    'an ELF file in the format of xl dump-core, in which each page has the frame of its pfn. raw: memory, each page at its pfn, page tables ' +
    'with pfns in them; zeroes and pfns without a page are holes. lime: the same pages as raw in the LiME format, ' +
    'without pfns that have none.',
  args: [storedDomain, { ...typedPoint, form: '[point]', says: `${typedPoint.says} (default: latest)` }],
  options: [
    storeOption,
    { flags: '--to <file>', says: 'the file to write; must not exist' },
    { flags: '--as <kind>', says: 'what it is to be (default: image)', choices: exportKinds },
    compressionOption,
  ],
  examples: [
    {
      command: 'dormouse point export web1 latest --store /srv/points --to web1.dmi',
      says: 'to be kept, or restored elsewhere',
    },
    {
      command: 'dormouse point export web1 20261122-1835 --store /srv/points --as core --to web1.core',
      says: 'for a debugger',
    },
  ],
  document: z.object({
    point: z.string(),
    path: z.string(),
    as: z.enum(exportKinds),
    name: z.string(),
    imageId: z.string().nullable(),
    counts: pageCounts,
    memoryBytes: figures.count,
    fileBytes: figures.count,
    elapsedMs: figures.milliseconds,
    notes: z.array(z.string()),
  }),
  input: z.object({
    ...{ domain: text, point: maybeText, store: storeField },
    to: z.string({ error: 'say where it goes: --to FILE' }),
    as: z.enum(exportKinds).default('image'),
    compression: compressionField,
  }),
  cancellable: true,
  changes: true,
  async run(context, { domain, point, store, to, as, compression }) {
    if (as !== 'image' && compression !== undefined)
      throw new DormouseError('USAGE', '--compression is of images; other files hold pages as they are');
    const result = await context.withProgress(`export ${domain}`, (options) => {
      const chosen = { ...options, as, ...given({ compression }) };
      return context.services.exportPoint(store, domain, point ?? 'latest', to, chosen);
    });
    const { name, path, fileBytes, memoryBytes, elapsedMs, counts, notes } = result;
    const facts = renderFacts([
      ['exported', `${result.point} of ${printable(name)}, as ${kindWords[as]}`],
      ['file', `${printable(path)}, ${formatBytes(fileBytes)}`],
      ['pages', renderClasses(counts)],
      ['took', `${formatDuration(elapsedMs)}, ${formatRate(memoryBytes, elapsedMs)}`],
    ]);
    return {
      document: { ...result, notes: [...notes] },
      text: facts + notes.map((note) => `note: ${printable(note)}\n`).join(''),
    };
  },
});
