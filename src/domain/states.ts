import type { DomainInfo } from './state.js';
/** A domain's state in words, from the flags of XEN_DOMCTL_getdomaininfo. */

/** virsh's words. */
export const stateWords = ['running', 'idle', 'paused', 'in shutdown', 'shut off', 'crashed'] as const;
export type StateWord = (typeof stateWords)[number];

/** The word for a domain; a runnable domain that is on no CPU at this moment is running. */
export function stateWord(info: DomainInfo): StateWord {
  if (info.dying) return 'in shutdown';
  if (info.shutdown !== null) return info.shutdown === 'crash' ? 'crashed' : 'shut off';
  if (info.paused) return 'paused';
  return info.blocked && !info.running ? 'idle' : 'running';
}

/** What to do with a domain that is `rewinding`. */
export const rewindingAdvice = (name: string): string =>
  `Roll it back again (\`dormouse rollback ${name} --image FILE --no-safety\`) or end it (\`dormouse destroy ${name}\`).`;

/** Why it is in that state; `unknown` where the host does not say. */
export function stateReason(info: DomainInfo): string {
  if (info.shutdown !== null) return info.shutdown;
  if (info.rewinding) return 'rewinding';
  if (info.building) return 'starting up';
  if (info.dying) return 'destroyed';
  return info.paused ? 'user' : 'unknown';
}
