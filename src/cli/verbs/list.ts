import * as z from 'zod';
import { rewindingAdvice } from '../../domain/states.js';
import { describeDomain, domainDocument } from '../documents.js';
import { renderJson } from '../../render/json.js';
import { renderList } from '../../render/list.js';
import { flag, texts } from '../input.js';
import { defineVerb } from '../verb.js';

export const list = defineVerb({
  name: 'list',
  summary: 'Lists the domains of the host',
  details:
    'The columns are those of xl list. State letters: r running, b blocked, p paused, s shut down, then why ' +
    '(- powered off, r reboot, s suspend, c crash, w watchdog, S soft reset), d dying.',
  args: [{ form: '[domains...]', says: 'names, ids or uuids; all domains if none is given' }],
  options: [
    { flags: '-l, --long', says: 'print everything known of each domain, with its configuration, as JSON' },
  ],
  examples: [
    { command: 'dormouse list', says: 'all domains, in the columns of xl list' },
    { command: 'dormouse list --json web1', says: 'one domain for a program to read' },
  ],
  document: z.object({ domains: z.array(domainDocument.extend({ config: z.string().optional() })) }),
  input: z.object({ domains: texts, long: flag }),
  cancellable: false,
  async run(context, input) {
    const { domains: selectors, long } = input;
    return await context.withHost(async (host) => {
      const domains =
        selectors.length === 0
          ? await host.list()
          : await Promise.all(selectors.map((name) => host.find(name)));
      const described = [];
      for (const info of domains)
        described.push({ ...describeDomain(info), ...(long && { config: await host.config(info.domid) }) });
      for (const { name, rewinding } of domains)
        if (rewinding) context.warn(`${name} is half rewound and stays paused: ${rewindingAdvice(name)}`);
      const text = long ? `${renderJson(described, 2)}\n` : renderList(domains);
      return { document: { domains: described }, text };
    });
  },
});
