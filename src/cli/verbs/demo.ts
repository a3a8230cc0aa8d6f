import * as z from 'zod';
import { figures } from '../documents.js';
import { defineVerb } from '../verb.js';

export const demo = defineVerb({
  name: 'demo',
  summary: 'Shows it all on a guest of its own: checkpoints, save, restore, proof',
  details:
    'Starts a private embedded host with a 1 GiB guest that keeps writing, in a temporary directory; both are gone ' +
    'afterwards. Takes about a minute and 3 GiB of memory.',
  args: [],
  options: [],
  examples: [{ command: 'dormouse demo', says: 'what npm run demo does' }],
  document: z.object({
    identical: z.boolean(),
    digest: z.string(),
    checkpoints: figures.count,
    rows: z.array(z.object({ what: z.string(), measured: z.string(), limit: z.string() })),
    elapsedMs: figures.milliseconds,
  }),
  input: z.object({}),
  cancellable: true,
  async run(context) {
    const { table, ...document } = await context.services.demo({
      say: (line) => context.say(line),
      signal: context.signal,
    });
    return { document, text: table };
  },
});
