/** What is needed of the configuration in an xl header: a libxl_domain_config as JSON. */
import { randomUUID } from 'node:crypto';
import * as z from 'zod';
import type { Manifest } from '../image/manifest.js';
import { xlHeaderBytes } from './stream_format.js';
import { streamInvalid } from './frames/byte_reader.js';
import { withoutTrailingNuls } from '../domain/trailing_nuls.js';
import { anyUuid } from '../uuid.js';

const configSchema = z.looseObject({
  c_info: z
    .looseObject({
      type: z.string().optional(),
      name: z.string().min(1).max(256).optional(),
      uuid: z.string().regex(anyUuid).optional(),
    })
    .optional(),
  b_info: z
    .looseObject({
      max_vcpus: z.int().min(1).max(8192).optional(),
      max_memkb: z.int().min(0).optional(),
      target_memkb: z.int().optional(),
    })
    .optional(),
});
type XlConfig = z.infer<typeof configSchema>;

/** The configuration as an object, or null if it is no JSON object of libxl_domain_config's form. */
export function parseXlConfig(text: string): XlConfig | null {
  try {
    const checked = configSchema.safeParse(JSON.parse(withoutTrailingNuls(text)));
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

/** A domain and, where that is known, which of its vCPUs are online. */
export type ConfiguredDomain = Manifest['domain'] & { readonly onlineVcpus?: readonly number[] };

/** The least configuration `xl restore` needs, for a domain that was not made by xl. */
function minimalConfig(domain: ConfiguredDomain): string {
  const { name, uuid, type, maxMemoryKib } = domain;
  const { onlineVcpus = [] } = domain;
  const ids = onlineVcpus.length > 0 ? onlineVcpus : Array.from({ length: domain.vcpus }, (_, id) => id);
  const config = {
    c_info: { type, name, uuid, run_hotplug_scripts: 'True' },
    b_info: {
      max_vcpus: Math.max(domain.vcpus, ...ids.map((id) => id + 1)),
      avail_vcpus: ids,
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
export function configForXl(domain: ConfiguredDomain): string {
  const parsed = parseXlConfig(domain.config);
  if (parsed?.c_info === undefined || !Object.hasOwn(parsed, 'c_info')) return minimalConfig(domain);
  const { name, uuid } = parsed.c_info;
  if (name === domain.name && uuid?.toLowerCase() === domain.uuid) return withoutTrailingNuls(domain.config);
  const renamed = { ...parsed, c_info: { ...parsed.c_info, name: domain.name, uuid: domain.uuid } };
  return JSON.stringify(renamed, null, 4) + '\n';
}

/** A configuration to build a domain with. */
export interface BuildConfig {
  readonly config: string;
  /** What the guest was to balloon down to, where it holds more than that; else null. */
  readonly targetKib: number | null;
}

/**
 * The same for the domain's own toolstack to build from. It is written anew, so that whoever reads it reads what was judged
 * here (of two fields of one name libxl takes the first, JSON the last). libxl limits a new domain to its target, and a
 * guest that was ballooning holds more: the target is raised to what its pages take.
 */
export function buildConfig(domain: ConfiguredDomain, neededKib: number): BuildConfig {
  const parsed = JSON.parse(configForXl(domain)) as XlConfig;
  const { b_info: build = {}, c_info: create } = parsed;
  const most = build.max_memkb ?? neededKib;
  const target = build.target_memkb;
  const least = Math.min(neededKib, most);
  const raised = target !== undefined && target >= 0 && target < least;
  const config = {
    ...parsed,
    c_info: { ...create, type: domain.type },
    b_info: { ...build, ...(raised && { target_memkb: least }) },
  };
  return { config: JSON.stringify(config, null, 4) + '\n', targetKib: raised ? target : null };
}
