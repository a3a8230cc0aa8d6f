import { changeDomain, domainArgument } from '../change_domain.js';
import { changeDocument } from '../documents.js';
import { textArgument, type Verb } from '../verb.js';

export const pause: Verb = {
  name: 'pause',
  summary: 'Pauses a domain: no vCPU of it runs until it is unpaused',
  args: [domainArgument],
  options: [],
  examples: [{ command: 'dormouse pause web1', says: 'stop web1 where it is; memory stays' }],
  document: changeDocument,
  cancellable: false,
  run: (context, input) =>
    changeDomain(
      context,
      textArgument(input, 0),
      { done: 'is paused', already: 'was already paused' },
      (info) => info.paused,
      (host, domid) => host.pause(domid),
    ),
};
