/** What is needed of the configuration in an xl header: a libxl_domain_config as JSON. */
import { randomUUID } from 'node:crypto';
import * as z from 'zod';
import type { Manifest } from '../image/manifest.js';
import { xlHeaderBytes } from './stream_format.js';
import { streamInvalid } from './frames/byte_reader.js';

const configSchema = z.looseObject({
  c_info: z
    .looseObject({
      type: z.string().optional(),
      name: z.string().min(1).max(256).optional(),
      uuid: z
        .string()
        .regex(/^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/)
        .optional(),
    })
    .optional(),
  b_info: z
    .looseObject({
      max_vcpus: z.int().min(1).max(8192).optional(),
      max_memkb: z.int().min(0).optional(),
    })
    .optional(),
});
type XlConfig = z.infer<typeof configSchema>;

/** The configuration as an object, or null if it is no JSON object of libxl_domain_config's form. */
export function parseXlConfig(text: string): XlConfig | null {
  try {
    const checked = configSchema.safeParse(JSON.parse(text.replace(/\0+$/, '')));
    return checked.success ? checked.data : null;
  } catch {
    return null;
  }
}

/** The manifest's description of a domain whose configuration is `config`. STREAM_INVALID if that is not JSON. */
export function domainOfConfig(
  config: string,
  guest: { type: 'pv' | 'hvm'; nrPfns: number; vcpus: number },
): Manifest['domain'] {
  const parsed = parseXlConfig(config);
  if (parsed === null) throw streamInvalid('the configuration is not that of an xl domain', xlHeaderBytes);
  const { c_info: create = {}, b_info: build = {} } = parsed;
  const pvh = guest.type === 'hvm' && create.type === 'pvh';
  return {
    name: create.name ?? 'unnamed',
    uuid: create.uuid?.toLowerCase() ?? randomUUID(),
    type: pvh ? 'pvh' : guest.type,
    vcpus: build.max_vcpus ?? Math.max(1, guest.vcpus),
    maxMemoryKib: build.max_memkb ?? guest.nrPfns * 4,
    config,
  };
}

/** The least configuration `xl restore` needs, for a domain that was not made by xl. */
function minimalConfig(domain: Manifest['domain']): string {
  const { name, uuid, type, vcpus, maxMemoryKib } = domain;
  const config = {
    c_info: { type, name, uuid, run_hotplug_scripts: 'True' },
    b_info: {
      max_vcpus: vcpus,
      avail_vcpus: Array.from({ length: vcpus }, (_, id) => id),
      max_memkb: maxMemoryKib,
      target_memkb: maxMemoryKib,
      [`type.${type}`]: {},
    },
    on_reboot: 'restart',
    on_soft_reset: 'soft_reset',
  };
  return JSON.stringify(config, null, 4) + '\n';
}

/**
 * The configuration for the xl header of a domain that was not read from one: its own if that is xl's, under the
 * domain's present name and uuid, else a minimal one.
 */
export function configForXl(domain: Manifest['domain']): string {
  const parsed = parseXlConfig(domain.config);
  if (parsed?.c_info === undefined) return minimalConfig(domain);
  const { name, uuid } = parsed.c_info;
  if (name === domain.name && uuid?.toLowerCase() === domain.uuid) return domain.config.replace(/\0+$/, '');
  const renamed = { ...parsed, c_info: { ...parsed.c_info, name: domain.name, uuid: domain.uuid } };
  return JSON.stringify(renamed, null, 4) + '\n';
}
