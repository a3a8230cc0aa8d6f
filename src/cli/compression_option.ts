/** How the pages of a new image are stored. */
import * as z from 'zod';
import { compressions } from '../codec/compression.js';
import type { VerbOption } from './verb.js';

export const compressionOption: VerbOption = {
  flags: '--compression <how>',
  says: 'auto: only where that is faster than writing; none: pages as they are (default: lz4)',
  choices: compressions,
};

export const compressionField = z.enum(compressions).optional();
