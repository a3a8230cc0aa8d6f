import * as z from 'zod';
import { renderFacts } from '../../render/table.js';
import { counted, formatBytes, formatDuration, printable } from '../../render/units.js';
import { compressionField, compressionOption } from '../compression_option.js';
import { figures } from '../documents.js';
import { text } from '../input.js';
import { storedDomain, storeField, storeOption, typedPoint } from '../store_argument.js';
import { defineVerb, given } from '../verb.js';

export const pointFlatten = defineVerb({
  name: 'point flatten',
  summary: 'Gives a point an image that needs no other',
  details:
    'What it takes from the points before it is put into one image, in the store, and it opens alone from then on. Points that were taken on it go ' +
    'on needing the image that it had. What no point needs any more goes with the next prune. No error if it needs no other already.',
  args: [storedDomain, typedPoint],
  options: [storeOption, compressionOption],
  examples: [
    {
      command: 'dormouse point flatten web1 latest --store /srv/points',
      says: 'before all others are pruned',
    },
  ],
  document: z.object({
    point: z.string(),
    flattened: z.boolean(),
    path: z.string(),
    fileBytes: figures.count,
    sharedBytes: figures.count,
    unneededImages: figures.count,
    unneededBytes: figures.count,
    elapsedMs: figures.milliseconds,
  }),
  input: z.object({ domain: text, point: text, store: storeField, compression: compressionField }),
  cancellable: true,
  changes: true,
  async run(context, { domain, point, store, compression }) {
    const document = await context.withProgress(`flatten ${domain}`, (options) =>
      context.services.flattenPoint(store, domain, point, { ...options, ...given({ compression }) }),
    );
    const { flattened, path, fileBytes, sharedBytes, unneededImages, unneededBytes, elapsedMs } = document;
    if (!flattened) return { document, text: `${document.point} needs no other already\n` };
    const shared = sharedBytes > 0 ? `, ${formatBytes(sharedBytes)} of it shared` : '';
    const facts = renderFacts([
      ['flattened', document.point],
      ['file', `${printable(path)}, ${formatBytes(fileBytes)}${shared}`],
      ['unneeded', `${counted(unneededImages, 'image')}, ${formatBytes(unneededBytes)}`],
      ['took', formatDuration(elapsedMs)],
    ]);
    return { document, text: facts };
  },
});
