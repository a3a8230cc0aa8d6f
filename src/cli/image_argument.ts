/** The argument of verbs that look into images. */
import { DormouseError } from '../errors.js';
import type { Context } from './context.js';

/** USAGE for a file of `xl save`; IMAGE_NOT_FOUND, IMAGE_READ_FAILED. What else is no image is told by who reads it. */
export async function imageArgument(context: Context, path: string): Promise<string> {
  const format = await context.services.detectFormat(path);
  if (format !== 'xl' && format !== 'xl-gzip') return path;
  throw new DormouseError(
    'USAGE',
    `${path} is a file of xl save: \`restore\` takes it as it is, \`image convert\` makes an image of it`,
  );
}
