/** Which embedded host a `host` verb means: --name, else the one of --host, else that of DORMOUSE_HOST, else `default`. */
import { DormouseError } from '../errors.js';
import type { Context } from './context.js';

export const nameOption = {
  flags: '--name <name>',
  says: 'which embedded host (default: that of --host, else default)',
};

/** Whether what is meant is this machine's Xen: --host, else DORMOUSE_HOST, else where we are. */
export async function meansXen(context: Context, name: string | undefined): Promise<boolean> {
  if (name !== undefined) return false;
  const { parseHostSpec, defaultHostSpec } = await import('../host/open/open_host.js');
  const { host } = context.globals;
  return (host === undefined ? defaultHostSpec() : parseHostSpec(host)).kind === 'xen';
}

/** USAGE if --host or DORMOUSE_HOST names one that is not embedded, or --host another one than --name. */
export async function embeddedName(context: Context, name: string | undefined): Promise<string> {
  const { parseHostSpec, defaultHostName } = await import('../host/open/open_host.js');
  if (name !== undefined) {
    const typed = context.globals.host;
    const spec = typed === undefined ? null : parseHostSpec(typed);
    if (!spec || (spec.kind === 'embedded' && spec.name === name)) return name;
    throw new DormouseError('USAGE', `--host ${String(typed)} and --name ${name} are two hosts: give one`);
  }
  const selector = context.globals.host ?? process.env.DORMOUSE_HOST ?? '';
  if (selector === '') return defaultHostName;
  const host = parseHostSpec(selector, context.globals.host === undefined ? 'DORMOUSE_HOST' : '--host');
  if (host.kind === 'embedded') return host.name;
  throw new DormouseError('USAGE', `${selector} is not an embedded host; give --name`);
}
