import * as z from 'zod';
import { DormouseError } from '../../errors.js';
import { changeDomain, domainArgument } from '../change_domain.js';
import { changeDocument } from '../documents.js';
import { rewindingAdvice } from '../../domain/states.js';
import { text } from '../input.js';
import { defineVerb } from '../verb.js';

export const unpause = defineVerb({
  name: 'unpause',
  summary: 'Lets a paused domain run again',
  args: [domainArgument],
  options: [],
  examples: [{ command: 'dormouse unpause web1', says: 'web1 goes on where it was paused' }],
  document: changeDocument,
  input: z.object({ domain: text }),
  cancellable: true,
  changes: true,
  run: (context, input) =>
    changeDomain(
      context,
      input.domain,
      { done: 'runs again', already: 'was not paused', guest: 'running' },
      (info) => !info.paused,
      async (host, domid) => {
        const info = await host.info(domid);
        if (info.rewinding)
          throw new DormouseError('DOMAIN_WRONG_STATE', `${info.name} is half rewound and cannot run`, {
            place: { domid },
            guest: 'paused',
            advice: rewindingAdvice(info.name),
          });
        if (info.building)
          throw new DormouseError('DOMAIN_WRONG_STATE', `${info.name} is still being built`, {
            place: { domid },
          });
        await host.unpause(domid);
      },
    ),
});
