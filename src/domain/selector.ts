/** How a user names a domain. */
import { DormouseError } from '../errors.js';

interface Named {
  readonly domid: number;
  readonly name: string;
  readonly uuid: string;
}

/**
 * The domain that is meant. As xl has it, digits only are a domid and never a name; anything else is a name, or else a uuid.
 * DOMAIN_NOT_FOUND.
 */
export function selectDomain<T extends Named>(all: readonly T[], selector: string): T {
  const found = /^\d+$/.test(selector)
    ? all.find(({ domid }) => domid === Number(selector))
    : (all.find(({ name }) => name === selector) ??
      all.find(({ uuid }) => uuid.toLowerCase() === selector.toLowerCase()));
  if (!found) throw new DormouseError('DOMAIN_NOT_FOUND', `no domain '${selector}'`);
  return found;
}
