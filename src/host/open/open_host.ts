/** Which host to work on: `--host` or DORMOUSE_HOST, else Xen where this is its control domain, else the embedded one. */
import { existsSync, readFileSync } from 'node:fs';
import { DormouseError } from '../../errors.js';
import type { Host } from '../contract.js';
import { EmbeddedHost } from '../embedded/host.js';
import { connectHost } from '../embedded/lifecycle.js';

export const defaultHostName = 'default';

export type HostSpec = { readonly kind: 'xen' } | { readonly kind: 'embedded'; readonly name: string };

function isXenControlDomain(): boolean {
  if (!existsSync('/dev/xen/privcmd') && !existsSync('/proc/xen/privcmd')) return false;
  try {
    return readFileSync('/proc/xen/capabilities', 'utf8').includes('control_d');
  } catch {
    return false;
  }
}

/** Reads `xen`, `embedded` or `embedded:NAME`. USAGE, naming `source`, for anything else. */
export function parseHostSpec(spec: string, source = '--host'): HostSpec {
  if (spec === 'xen') return { kind: 'xen' };
  if (spec === 'embedded') return { kind: 'embedded', name: defaultHostName };
  const prefix = 'embedded:';
  if (spec.startsWith(prefix) && spec.length > prefix.length)
    return { kind: 'embedded', name: spec.slice(prefix.length) };
  throw new DormouseError(
    'USAGE',
    `${source} names no host (xen, embedded or embedded:NAME): ${JSON.stringify(spec)}`,
  );
}

/** The host that is meant where --host names none; with `wanted` as '' where DORMOUSE_HOST does not either. */
export function defaultHostSpec(wanted = process.env.DORMOUSE_HOST): HostSpec {
  if (wanted !== undefined && wanted !== '') return parseHostSpec(wanted, 'DORMOUSE_HOST');
  return isXenControlDomain() ? { kind: 'xen' } : { kind: 'embedded', name: defaultHostName };
}

/**
 * A connection to the host, an embedded one being started where it does not run. USAGE for a spec that names none,
 * HOST_UNAVAILABLE if it cannot be reached, HOST_DIED once after one died with guests.
 */
export async function openHost(spec?: string): Promise<Host> {
  const wanted = spec === undefined ? defaultHostSpec() : parseHostSpec(spec);
  if (wanted.kind === 'xen') return (await import('../xen/host.js')).openXenHost();
  return openEmbeddedHost(wanted.name);
}

/** As openHost, with what only the embedded host can do besides. */
export async function openEmbeddedHost(name: string): Promise<EmbeddedHost> {
  return new EmbeddedHost(await connectHost(name), name);
}
