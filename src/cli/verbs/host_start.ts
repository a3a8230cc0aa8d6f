import { totalmem } from 'node:os';
import * as z from 'zod';
import { formatBytes } from '../../render/units.js';
import { hostWords, onHost } from '../advice.js';
import { embeddedName, nameOption } from '../host_name.js';
import { parseSize } from '../parse.js';
import { maybeText } from '../input.js';
import { defineVerb, given } from '../verb.js';

export const hostStart = defineVerb({
  name: 'host start',
  summary: 'Starts an embedded host: a process that runs guests in software',
  details: 'Other verbs start it by themselves. Its guests live as long as it does.',
  args: [],
  options: [
    nameOption,
    { flags: '--memory <size>', says: 'machine memory, such as 8G (default: half of what is free)' },
  ],
  examples: [
    { command: 'dormouse host start', says: 'the default host' },
    {
      command: 'dormouse host start --name lab --memory 4G',
      says: 'another one; reach it with --host embedded:lab',
    },
  ],
  document: z.object({ name: z.string(), started: z.boolean() }),
  input: z.object({ name: maybeText, memory: z.string().transform(parseSize).optional() }),
  cancellable: false,
  changes: true,
  async run(context, input) {
    const name = await embeddedName(context, input.name);
    if (input.memory !== undefined && input.memory > totalmem())
      context.warn(
        `${formatBytes(input.memory)} is more than this machine has, ${formatBytes(totalmem())}: guests that use it end the host`,
      );
    const started = await context.services.startHost({
      name,
      ...given({ memoryBytes: input.memory }),
    });
    const status = onHost('`dormouse host status`', await hostWords(context.globals, input.name));
    const kept = input.memory === undefined ? '' : `, with the memory it has: ${status} says how much`;
    const text = `embedded host ${name} ${started ? 'started' : `was running already${kept}`}\n`;
    return { document: { name, started }, text };
  },
});
