import * as z from 'zod';
import { DormouseError } from '../../errors.js';
import { figures } from '../documents.js';
import { maybeText } from '../input.js';
import { defineVerb } from '../verb.js';

export const digest = defineVerb({
  name: 'digest',
  summary: 'Digest of the memory and registers of a domain or an image',
  details:
    'Equal digests mean equal guests, whatever machine frames they have. A running domain is paused meanwhile.',
  args: [{ form: '[domain]', says: 'name, id or uuid' }],
  options: [{ flags: '--image <file>', says: 'of an image instead of a domain' }],
  examples: [
    { command: 'dormouse digest web1', says: 'of a domain' },
    { command: 'dormouse digest --image web1.dmi', says: 'of an image; needs no host' },
  ],
  document: z.object({
    of: z.enum(['domain', 'image']),
    digest: z.string().regex(/^[0-9a-f]+$/u),
    pages: figures.count,
    vcpus: figures.count,
  }),
  input: z.object({ domain: maybeText, image: maybeText }),
  cancellable: true,
  async run(context, input) {
    const { domain, image } = input;
    if ((domain === undefined) === (image === undefined))
      throw new DormouseError('USAGE', 'give either a domain or --image FILE');
    const result =
      image !== undefined
        ? await context.withProgress(`digest ${image}`, (options) =>
            context.services.digestImage(image, options),
          )
        : await context.withHost((host) =>
            context.withProgress(`digest ${String(domain)}`, (options) =>
              context.services.digestDomain(host, String(domain), options),
            ),
          );
    return {
      document: { of: image === undefined ? 'domain' : 'image', ...result },
      text: `${result.digest}\n`,
    };
  },
});
