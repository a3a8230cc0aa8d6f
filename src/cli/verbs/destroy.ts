import * as z from 'zod';
import { changeDomain, domainArgument } from '../change_domain.js';
import { changeDocument } from '../documents.js';
import { text } from '../input.js';
import { defineVerb } from '../verb.js';

export const destroy = defineVerb({
  name: 'destroy',
  summary: 'Ends a domain at once; what it had in memory is gone',
  args: [domainArgument],
  options: [],
  examples: [{ command: 'dormouse destroy web1', says: 'as pulling its plug' }],
  document: changeDocument,
  input: z.object({ domain: text }),
  cancellable: true,
  changes: true,
  run: (context, input) =>
    changeDomain(
      context,
      input.domain,
      { done: 'is destroyed', already: 'was already gone', guest: 'gone' },
      (info) => info.dying,
      (host, domid) => host.destroy(domid),
    ),
});
