/** What pause, unpause and destroy have in common. */
import type { GuestState } from '../errors.js';
import type { Host } from '../host/contract.js';
import type { Context } from './context.js';
import { printable } from '../render/units.js';
import type { Outcome } from './verb.js';
import type { DomainInfo } from '../domain/state.js';

export const domainArgument = { form: '<domain>', says: 'name, id or uuid' };

/** Applies `change` unless `isDone` says there is nothing to do; both end with exit code 0. */
export async function changeDomain(
  context: Context,
  selector: string,
  words: { readonly done: string; readonly already: string; readonly guest: GuestState },
  isDone: (info: DomainInfo) => boolean,
  change: (host: Host, domid: number) => Promise<void>,
): Promise<Outcome> {
  return await context.withHost(async (host) => {
    const info = await host.find(selector);
    const changed = !isDone(info);
    if (changed) await change(host, info.domid);
    const text = `${printable(info.name)} ${changed ? words.done : words.already}\n`;
    return { document: { domid: info.domid, name: info.name, changed }, text, guest: words.guest };
  });
}
