/** The domain that this program runs in. */
import { DormouseError } from '../../errors.js';

/** Stopping it would stop the host, and this process. */
export function refuseControlDomain(domid: number): void {
  if (domid !== 0) return;
  throw new DormouseError(
    'DOMAIN_WRONG_STATE',
    'Domain-0 runs this host and this program: it is not stopped',
    {
      place: { domid },
    },
  );
}
