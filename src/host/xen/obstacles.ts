/** What stands against a new domain on Xen, seen before libxl is asked to make it. */
import { readFileSync } from 'node:fs';
import { native } from '../../addon.js';
import { missingFeatures } from '../../domain/cpu_policy.js';
import type { DomainInfo } from '../../domain/state.js';
import { parseXlConfig } from '../../xenstream/xl_config.js';
import type { DomainSpec, DomainWanted, Obstacle, Xenstore } from '../contract.js';
import { diskObstacles } from './disks.js';
import type { XenNative } from './native.js';

const xlConf = '/etc/xen/xl.conf';

/** Whether xl takes memory from the control domain for a new one: xl.conf(5), autoballoon. */
export function autoballoons(conf: string, xenCommandLine: string): boolean {
  const [, said = 'auto'] = /^[ \t]*autoballoon[ \t]*=[ \t]*["']?(\w+)/mu.exec(conf) ?? [];
  if (said === 'auto') return !/(^| )dom0_mem=/u.test(xenCommandLine);
  return said === 'on' || said === '1';
}

function confText(): string {
  try {
    return readFileSync(xlConf, 'utf8');
  } catch {
    return '';
  }
}

function memoryObstacles(api: XenNative, neededKib: number): Obstacle[] {
  const freeKib = 4 * native(() => api.freePages());
  if (
    neededKib <= freeKib ||
    autoballoons(
      confText(),
      native(() => api.commandLine()),
    )
  )
    return [];
  return [
    { code: 'NO_MEMORY', message: `its pages take ${neededKib} KiB, the host has ${freeKib} KiB free` },
  ];
}

function cpuObstacles(api: XenNative, { cpu, spec }: DomainWanted): Obstacle[] {
  const missing = missingFeatures(
    cpu,
    native(() => api.guestPolicy(spec.type !== 'pv')),
  );
  if (missing.length === 0) return [];
  const message = `the guest was shown what this host has not: ${missing.join(', ')}`;
  return [{ code: 'CPU_INCOMPATIBLE', message }];
}

/** A configuration of another guest, such as one given in place of the image's. */
function configObstacles(spec: DomainSpec): Obstacle[] {
  const { c_info: create, b_info: build } = parseXlConfig(spec.config) ?? {};
  const wrong = (message: string): Obstacle => ({ code: 'CONFIG_INVALID', message });
  const keyed = Object.keys(build ?? {}).find(
    (key) => key.startsWith('type.') && key !== `type.${spec.type}`,
  );
  const most = build?.max_vcpus;
  return [
    ...(create?.type !== undefined && create.type !== spec.type
      ? [wrong(`the configuration is of a ${create.type} guest, the image of a ${spec.type} one`)]
      : []),
    ...(keyed !== undefined
      ? [wrong(`the configuration has ${keyed}, the image is of a ${spec.type} guest`)]
      : []),
    ...(create && most !== undefined && most < spec.vcpus
      ? [wrong(`the configuration has ${most} vCPUs, the image needs ${spec.vcpus}`)]
      : []),
  ];
}

export async function xenObstacles(
  api: XenNative,
  xenstore: Xenstore,
  there: readonly DomainInfo[],
  wanted: DomainWanted,
): Promise<Obstacle[]> {
  const { spec, neededKib } = wanted;
  const taken = there.some(({ name }) => name === spec.name);
  const alive = new Set(there.filter(({ dying }) => !dying).map(({ domid }) => domid));
  return [
    ...configObstacles(spec),
    ...cpuObstacles(api, wanted),
    ...(taken ? [{ code: 'DOMAIN_EXISTS', message: `there is a domain named '${spec.name}'` } as const] : []),
    ...memoryObstacles(api, neededKib),
    ...(await diskObstacles(parseXlConfig(spec.config)?.['disks'], xenstore, alive)),
  ];
}
