/** What is the same about events on every host. */
import type { DomainEvent } from './contract.js';

type Unnumbered<E> = E extends DomainEvent ? Omit<E, 'sequence'> : never;
/** An event before it has its place among those of a listener. */
export type Happening = Unnumbered<DomainEvent>;
export type DomainHappening = Exclude<Happening, { type: 'lost' }>;

/** Gives each event its number: 1, 2, 3 and so on. */
export function numbered(listener: (event: DomainEvent) => void): (happening: Happening) => void {
  let sequence = 0;
  return (happening) => listener({ ...happening, sequence: ++sequence });
}
