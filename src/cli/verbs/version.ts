import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { packageRoot } from '../../addon.js';
import { FORMAT_MAJOR, FORMAT_MINOR } from '../../image/format.js';
import type { Verb } from '../verb.js';

/** The version in package.json. */
export function packageVersion(): string {
  const parsed: unknown = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8'));
  return z.object({ version: z.string() }).parse(parsed).version;
}

export const version: Verb = {
  name: 'version',
  summary: 'Says which versions of the program, the image format and Node.js these are',
  args: [],
  options: [],
  examples: [{ command: 'dormouse version', says: 'for a bug report' }],
  document: z.object({ dormouse: z.string(), imageFormat: z.string(), node: z.string() }),
  cancellable: false,
  run() {
    const document = {
      dormouse: packageVersion(),
      imageFormat: `${FORMAT_MAJOR}.${FORMAT_MINOR}`,
      node: process.version,
    };
    const text = `dormouse ${document.dormouse} (image format ${document.imageFormat}, Node.js ${document.node})\n`;
    return Promise.resolve({ document, text });
  },
};
