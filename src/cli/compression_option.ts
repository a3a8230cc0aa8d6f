/** How the pages of a new image are stored. */
import { type Compression, compressions } from '../codec/compression.js';
import { textOption, type VerbInput, type VerbOption } from './verb.js';

export const compressionOption: VerbOption = {
  flags: '--compression <how>',
  says: 'auto: only where that is faster than writing; none: pages as they are (default: lz4)',
  choices: compressions,
};

export function compressionOf(input: VerbInput): { readonly compression?: Compression } {
  const how = textOption(input, 'compression');
  const compression = compressions.find((each) => each === how);
  return compression === undefined ? {} : { compression };
}
