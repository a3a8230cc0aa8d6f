/** Options that every verb takes. */
import type { VerbOption } from './verb.js';

export const globalOptions: readonly VerbOption[] = [
  { flags: '--host <host>', says: 'embedded, embedded:NAME or xen (environment: DORMOUSE_HOST)' },
  { flags: '--json', says: 'one JSON document on stdout; an error is the last line of stderr' },
  { flags: '-q, --quiet', says: 'no progress, no warnings' },
  { flags: '-v, --verbose', says: 'say more on stderr; stacks of errors' },
  { flags: '--no-progress', says: 'no progress' },
];
