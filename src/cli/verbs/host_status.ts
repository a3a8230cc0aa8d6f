import * as z from 'zod';
import { describeDomain, domainDocument, figures } from '../documents.js';
import type { Context } from '../context.js';
import { embeddedName, meansXen, nameOption } from '../host_name.js';
import { renderList } from '../../render/list.js';
import { renderFacts } from '../../render/table.js';
import { formatBytes, printable } from '../../render/units.js';
import { maybeText } from '../input.js';
import { defineVerb, type Outcome } from '../verb.js';

function renderCapabilities(capabilities: Readonly<Record<string, true | string>>): [string, string][] {
  return Object.entries(capabilities).map(([can, why]) => [
    can,
    why === true ? 'yes' : `no: ${printable(why.replace(`${can}: `, ''))}`,
  ]);
}

function statusOfXen(context: Context): Promise<Outcome> {
  return context.withHost(async (host) => {
    const [capabilities, guests] = [await host.capabilities(), await host.list()];
    const facts = renderFacts([['host', host.description], ...renderCapabilities(capabilities)]);
    return {
      document: { name: 'xen', state: 'running', capabilities, guests: guests.map(describeDomain) },
      text: `${facts}\n${renderList(guests)}`,
    };
  });
}

export const hostStatus = defineVerb({
  name: 'host status',
  summary: 'Says whether a host runs, what it can do and what runs on it',
  details:
    'Starts nothing. Of an embedded host also names the guests that were lost if it died. In the control domain of Xen: of Xen, unless --name is given.',
  args: [],
  options: [nameOption],
  examples: [{ command: 'dormouse host status', says: 'of the default host' }],
  document: z.object({
    name: z.string(),
    state: z.enum(['running', 'stopped', 'died']),
    lostGuests: z.array(z.string()).optional(),
    pid: figures.count.optional(),
    version: z.string().optional(),
    startedAt: z.string().optional(),
    memoryBytes: figures.count.optional(),
    freeBytes: figures.count.optional(),
    quarantinedBytes: figures.count.optional(),
    snapshots: figures.count.optional(),
    trackers: figures.count.optional(),
    connections: figures.count.optional(),
    leases: z.array(z.object({ domid: figures.count, operation: z.string(), pid: figures.count })).optional(),
    /** true, or the reason why not. */
    capabilities: z.record(z.string(), z.union([z.literal(true), z.string()])).optional(),
    guests: z.array(domainDocument).optional(),
  }),
  input: z.object({ name: maybeText }),
  cancellable: false,
  async run(context, input) {
    if (await meansXen(context, input.name)) return await statusOfXen(context);
    const name = await embeddedName(context, input.name);
    const status = await context.services.hostStatus(name);
    if (status.state === 'stopped')
      return { document: { name, state: 'stopped' }, text: `embedded host ${name} is not running\n` };
    if (status.state === 'died') {
      const { lostGuests } = status;
      const text = `embedded host ${name} died; with it went ${lostGuests.map(printable).join(', ')}\n`;
      return { document: { name, state: 'died', lostGuests }, text };
    }
    const { report } = status;
    const { pid, version, startedAt, memoryBytes, freeBytes, guests } = report;
    const facts = renderFacts([
      [
        'host',
        `${name}, running as process ${pid} since ${printable(startedAt)}, version ${printable(version)}`,
      ],
      ['memory', `${formatBytes(freeBytes)} free of ${formatBytes(memoryBytes)}`],
      ...report.leases.map(
        (lease) => ['lease', `${lease.operation} of domain ${lease.domid} by process ${lease.pid}`] as const,
      ),
      ...renderCapabilities(report.capabilities),
    ]);
    const document = { ...report, name, state: 'running', guests: guests.map(describeDomain) };
    return { document, text: `${facts}\n${renderList(guests)}` };
  },
});
