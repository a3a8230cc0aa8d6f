import { changeDomain, domainArgument } from '../change_domain.js';
import { changeDocument } from '../documents.js';
import { textArgument, type Verb } from '../verb.js';

export const destroy: Verb = {
  name: 'destroy',
  summary: 'Ends a domain at once; what it had in memory is gone',
  args: [domainArgument],
  options: [],
  examples: [{ command: 'dormouse destroy web1', says: 'as pulling its plug' }],
  document: changeDocument,
  cancellable: false,
  run: (context, input) =>
    changeDomain(
      context,
      textArgument(input, 0),
      { done: 'is destroyed', already: 'was already gone' },
      (info) => info.dying,
      (host, domid) => host.destroy(domid),
    ),
};
