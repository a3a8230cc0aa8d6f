/**
 * The configuration of a domain as `xl save` would write it. What libxl keeps in its file is of when the domain began, and goes
 * stale as devices, vCPUs and memory come and go; libxl itself says what is true now.
 */
import { existsSync } from 'node:fs';
import { DormouseError } from '../../errors.js';
import { xl } from './xl.js';

const configDir = '/var/lib/xen';
/** libxl waits without an end for who holds its locks on the domain, as while a device is plugged. */
const timeoutMs = 30_000;

/**
 * The configuration of a domain in what `xl list -l DOMID` prints; null where there is none. In a file of `xl save` no
 * configuration has a domid, unless one is asked for.
 */
export function configOf(listed: string, domid: number): string | null {
  const all = JSON.parse(listed) as { domid: number; config: { c_info?: { domid?: number } } }[];
  const config = all.find((domain) => domain.domid === domid)?.config;
  if (!config) return null;
  delete config.c_info?.domid;
  return JSON.stringify(config, null, 4) + '\n';
}

/**
 * Empty for a domain that libxl did not make. LOCKED if libxl's own locks on the domain are held for half a minute, HOST_LACKS without
 * xl, HOST_UNAVAILABLE with xl's words.
 */
export async function domainConfig(domid: number, uuid: string): Promise<string> {
  if (!existsSync(`${configDir}/userdata-d.${domid}.${uuid}.libxl-json`)) return '';
  const { stdout, stderr } = await xl(['list', '-l', String(domid)], { timeoutMs, place: { domid } });
  const config = configOf(stdout, domid);
  if (config !== null) return config;
  const said = stderr.trim().split('\n').slice(-3).join('; ') || 'it lists none';
  throw new DormouseError(
    'HOST_UNAVAILABLE',
    `xl does not tell the configuration of domain ${domid}: ${said}`,
    {
      place: { domid },
    },
  );
}
