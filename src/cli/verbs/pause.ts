import * as z from 'zod';
import { changeDomain, domainArgument } from '../change_domain.js';
import { changeDocument } from '../documents.js';
import { text } from '../input.js';
import { defineVerb } from '../verb.js';

export const pause = defineVerb({
  name: 'pause',
  summary: 'Pauses a domain: no vCPU of it runs until it is unpaused',
  args: [domainArgument],
  options: [],
  examples: [{ command: 'dormouse pause web1', says: 'stop web1 where it is; memory stays' }],
  document: changeDocument,
  input: z.object({ domain: text }),
  cancellable: true,
  changes: true,
  run: (context, input) =>
    changeDomain(
      context,
      input.domain,
      { done: 'is paused', already: 'was already paused', guest: 'paused' },
      (info) => info.paused,
      (host, domid) => host.pause(domid),
    ),
});
