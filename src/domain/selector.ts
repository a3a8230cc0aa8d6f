/** How a user names a domain. */
import { DormouseError } from '../errors.js';
import { anyUuid } from '../uuid.js';

interface Named {
  readonly domid: number;
  readonly name: string;
  readonly uuid: string;
}

const id = /^\d+$/;

/**
 * The domain that is meant. As xl has it, digits only are a domid and never a name; anything else is a uuid, or else a name: nobody
 * takes another's uuid by its name. DOMAIN_NOT_FOUND.
 */
export function selectDomain<T extends Named>(all: readonly T[], selector: string): T {
  const found = id.test(selector)
    ? all.find(({ domid }) => domid === Number(selector))
    : (all.find(({ uuid }) => uuid.toLowerCase() === selector.toLowerCase()) ??
      all.find(({ name }) => name === selector));
  if (!found) throw new DormouseError('DOMAIN_NOT_FOUND', `no domain '${selector}'`);
  return found;
}

/** Why a new domain must not have that name, which stands for another one; null if it may. */
export function nameFault(name: string): string | null {
  if (id.test(name)) return `'${name}' is no name for a domain: digits stand for the domain of that id`;
  if (anyUuid.test(name))
    return `'${name}' is no name for a domain: a uuid stands for the domain that has it`;
  return null;
}

/** CONFIG_INVALID. */
export function requireName(name: string): void {
  const fault = nameFault(name);
  if (fault !== null)
    throw new DormouseError('CONFIG_INVALID', fault, {
      advice: 'Give it a name that is neither digits only nor a uuid.',
    });
}
