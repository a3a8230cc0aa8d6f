import * as z from 'zod';
import { FORMAT_MAJOR, FORMAT_MINOR } from '../../image/format.js';
import { version as ownVersion } from '../../version.js';
import { defineVerb } from '../verb.js';

export const version = defineVerb({
  name: 'version',
  summary: 'Says which versions of the program, the image format and Node.js these are',
  args: [],
  options: [],
  examples: [{ command: 'dormouse version', says: 'for a bug report' }],
  document: z.object({ dormouse: z.string(), imageFormat: z.string(), node: z.string() }),
  input: z.object({}),
  cancellable: false,
  run() {
    const document = {
      dormouse: ownVersion,
      imageFormat: `${FORMAT_MAJOR}.${FORMAT_MINOR}`,
      node: process.version,
    };
    const text = `dormouse ${document.dormouse} (image format ${document.imageFormat}, Node.js ${document.node})\n`;
    return Promise.resolve({ document, text });
  },
});
