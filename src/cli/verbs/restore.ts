import { z } from 'zod';
import { figures, pageCounts } from '../documents.js';
import { renderFacts } from '../render/table.js';
import { formatBytes, formatDuration, formatRate, printable } from '../render/units.js';
import { flag, textArgument, textOption, type Verb } from '../verb.js';

export const restore: Verb = {
  name: 'restore',
  summary: 'Builds a new domain from an image and lets it run',
  details: 'The image is checked whole before a domain is made, and is never changed or removed.',
  args: [{ form: '<file>', says: 'an image of save or of checkpoint' }],
  options: [
    { flags: '-p, --paused', says: 'leave the new domain paused' },
    { flags: '--name <name>', says: 'name of the new domain, instead of the one in the image' },
  ],
  examples: [
    { command: 'dormouse restore web1.dmi', says: 'web1 goes on where it was saved' },
    { command: 'dormouse restore -p --name copy web1.dmi', says: 'a paused copy under another name' },
  ],
  document: z.object({
    path: z.string(),
    domid: figures.count,
    name: z.string(),
    imageId: z.string(),
    paused: z.boolean(),
    counts: pageCounts,
    memoryBytes: figures.count,
    elapsedMs: figures.milliseconds,
  }),
  cancellable: true,
  async run(context, input) {
    const path = textArgument(input, 0);
    const paused = flag(input, 'paused');
    const name = textOption(input, 'name');
    const result = await context.withHost((host) =>
      context.withProgress(`restore ${path}`, (options) =>
        context.services.restore(host, path, { ...options, paused, ...(name !== undefined && { name }) }),
      ),
    );
    const text = renderFacts([
      ['restored', `${printable(result.name)} (domain ${result.domid}), ${paused ? 'paused' : 'running'}`],
      ['image', result.imageId],
      ['memory', formatBytes(result.memoryBytes)],
      ['took', `${formatDuration(result.elapsedMs)}, ${formatRate(result.memoryBytes, result.elapsedMs)}`],
    ]);
    return { document: { ...result, path, paused }, text };
  },
};
