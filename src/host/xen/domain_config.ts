/** The configuration of a domain as `xl save` would write it. */
import { readFileSync } from 'node:fs';
import { DormouseError } from '../../errors.js';
import { parseXlConfig } from '../../xenstream/xl_config.js';
import type { Xenstore } from '../contract.js';

const configDir = '/var/lib/xen';

function stored(domid: number, uuid: string): string {
  try {
    // libxl ends it with a NUL.
    return readFileSync(`${configDir}/userdata-d.${domid}.${uuid}.libxl-json`, 'utf8').replace(/\0+$/, '');
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return '';
    const text = `the configuration of domain ${domid} cannot be read`;
    throw new DormouseError('HOST_UNAVAILABLE', text, { cause: thrown });
  }
}

/** libxl keeps the memory a domain began with; what it was set to since is in xenstore. */
async function memoryNow(xenstore: Xenstore, domid: number): Promise<Record<string, number>> {
  const home = `/local/domain/${domid}/memory`;
  const [target, max, video] = await Promise.all(
    ['target', 'static-max', 'videoram'].map(async (name) => {
      const value = await xenstore.read(`${home}/${name}`);
      return value !== null && /^\d{1,15}$/.test(value) ? Number(value) : undefined;
    }),
  );
  return {
    ...(target !== undefined && { target_memkb: target + Math.max(0, video ?? 0) }),
    ...(max !== undefined && { max_memkb: max }),
  };
}

/** Empty where libxl keeps none, as of a domain it did not make. */
export async function domainConfig(xenstore: Xenstore, domid: number, uuid: string): Promise<string> {
  const text = stored(domid, uuid);
  const parsed = parseXlConfig(text);
  if (parsed === null) return text;
  const now = await memoryNow(xenstore, domid);
  const { b_info: build = {} } = parsed;
  if (Object.entries(now).every(([name, value]) => build[name] === value)) return text;
  return JSON.stringify({ ...parsed, b_info: { ...build, ...now } }, null, 4) + '\n';
}
