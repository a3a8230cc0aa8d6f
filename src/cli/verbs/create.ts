import * as z from 'zod';
import { domainSpec, xlDomain } from '../create_spec.js';
import { figures } from '../documents.js';
import { applyOverride, type ConfigValue, isOverride, parseConfig, type Settings } from '../domain_config.js';
import { readConfigFile } from '../config_file.js';
import { DormouseError } from '../../errors.js';
import type { Host } from '../../host/contract.js';
import { printable } from '../../render/units.js';
import { flag, texts } from '../input.js';
import { defineVerb } from '../verb.js';

async function readSettings(args: readonly string[]): Promise<Settings> {
  const [file, ...more] = args.filter((argument) => !isOverride(argument));
  if (more.length > 0)
    throw new DormouseError('USAGE', `one configuration file, please; ${JSON.stringify(more[0])} is another`);
  const settings: Settings =
    file === undefined ? new Map<string, ConfigValue>() : parseConfig(await readConfigFile(file), file);
  for (const argument of args.filter(isOverride)) applyOverride(settings, argument);
  return settings;
}

/** xl takes the uuid of a domain that is there: two would answer to it. DOMAIN_EXISTS. */
async function requireOwnUuid(host: Host, settings: Settings): Promise<void> {
  const uuid = settings.get('uuid');
  if (typeof uuid !== 'string') return;
  const twin = (await host.list()).find((other) => !other.dying && other.uuid === uuid.toLowerCase());
  if (twin) throw new DormouseError('DOMAIN_EXISTS', `domain '${twin.name}' has the uuid ${uuid}`);
}

export const create = defineVerb({
  name: 'create',
  summary: 'Boots a new domain from a configuration',
  details:
    'The file has the syntax of xl.cfg(5); NAME=VALUE arguments come after it and win. On Xen xl create gets them.\n' +
    'The embedded host takes name, memory (MiB), vcpus, uuid, type, program (idle, counter, writer, churner, crasher, disker, talker), ' +
    'seed, steps, rate, disk_files and the settings of the programs (docs/operating.md), and passes over what only xl knows.',
  args: [{ form: '[config...]', says: 'a configuration file, then NAME=VALUE settings' }],
  options: [{ flags: '-p, --paused', says: 'leave the new domain paused' }],
  examples: [
    { command: 'dormouse create web1.cfg', says: 'as the file says' },
    {
      command: 'dormouse create name=web1 memory=512 vcpus=2 program=writer rate=20000',
      says: 'without a file: a guest that keeps writing to its memory',
    },
  ],
  document: z.object({
    domid: figures.count,
    name: z.string(),
    uuid: z.string(),
    paused: z.boolean(),
    ignoredSettings: z.array(z.string()),
  }),
  input: z.object({ config: texts, paused: flag }),
  cancellable: true,
  changes: true,
  async run(context, input) {
    const { paused } = input;
    const settings = await readSettings(input.config);
    const { domid, name, uuid, ignored } = await context.withHost(async (host) => {
      const forXl = (await host.capabilities())['xl-config'] === true;
      const { spec, ignored } = forXl ? { spec: xlDomain(settings), ignored: [] } : domainSpec(settings);
      if (forXl) await requireOwnUuid(host, settings);
      if (ignored.length > 0) context.warn(`settings without meaning here: ${ignored.join(', ')}`);
      return { ...(await host.info(await host.create(spec, { paused }))), ignored };
    });
    const text = `created ${printable(name)} (domain ${domid}), ${paused ? 'paused' : 'running'}\n`;
    return {
      document: { domid, name, uuid, paused, ignoredSettings: ignored },
      text,
      guest: paused ? 'paused' : 'running',
    };
  },
});
