import * as z from 'zod';
import { asDormouseError, changed } from '../../errors.js';
import { embeddedName, nameOption } from '../host_name.js';
import { flag, maybeText } from '../input.js';
import { defineVerb } from '../verb.js';

export const hostStop = defineVerb({
  name: 'host stop',
  summary: 'Ends an embedded host',
  details: 'Refused while it has guests, unless --force: they end with it.',
  args: [],
  options: [nameOption, { flags: '--force', says: 'also with guests, which are lost' }],
  examples: [
    { command: 'dormouse host stop', says: 'the default host, if it has no guests' },
    { command: 'dormouse host stop --name lab --force', says: 'another one, with all its guests' },
  ],
  document: z.object({ name: z.string(), stopped: z.boolean() }),
  input: z.object({ name: maybeText, force: flag }),
  cancellable: false,
  changes: true,
  async run(context, input) {
    const name = await embeddedName(context, input.name);
    const stopped = await context.services.stopHost(name, { force: input.force }).catch((thrown: unknown) => {
      const error = asDormouseError(thrown);
      if (error.code !== 'DOMAIN_WRONG_STATE') throw error;
      const advice = 'Save or destroy them; `dormouse host stop --force` ends the host and loses them.';
      throw changed(error, { advice });
    });
    const text = stopped ? `embedded host ${name} stopped\n` : `embedded host ${name} was not running\n`;
    return { document: { name, stopped }, text };
  },
});
