import * as z from 'zod';
import { describeDomain, domainDocument } from '../documents.js';
import { flag, text } from '../input.js';
import { defineVerb } from '../verb.js';

export const domstate = defineVerb({
  name: 'domstate',
  summary: 'Says in one word how a domain is',
  details: 'The words are those of virsh: running, idle, paused, in shutdown, shut off, crashed.',
  args: [{ form: '<domain>', says: 'name, id or uuid' }],
  options: [{ flags: '--reason', says: 'say also why, where it is known' }],
  examples: [
    { command: 'dormouse domstate web1', says: 'running' },
    { command: 'dormouse domstate --reason web1', says: 'shut off (suspend)' },
  ],
  document: domainDocument,
  input: z.object({ domain: text, reason: flag }),
  cancellable: false,
  async run(context, input) {
    return await context.withHost(async (host) => {
      const document = describeDomain(await host.find(input.domain));
      const reason = input.reason ? ` (${document.reason})` : '';
      return { document, text: `${document.state}${reason}\n` };
    });
  },
});
