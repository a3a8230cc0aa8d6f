/** Command lines in what is told to people: they must reach the host that was meant, wherever they are typed. */
import type { Globals } from './context.js';

/** Verbs that work on a host, and mean another one without its name. */
const ofHost =
  /`dormouse (?=(?:create|list|domstate|pause|unpause|destroy|save|restore|checkpoint|rollback|bisect|protect|digest|dump-core|host \w+)\b)([^`]*)`/gu;

/** Those command lines with `words` at their end, but for the ones that name a host already. */
export function onHost(text: string, words: string): string {
  if (words === '') return text;
  return text.replace(ofHost, (line, command: string) =>
    / --(?:host|name|help)\b/u.test(line) ? line : `\`dormouse ${command} ${words}\``,
  );
}

/**
 * What names the host that a command line meant: `--host embedded:lab`. Nothing where it is the one that is meant without it;
 * DORMOUSE_HOST may not be set where advice is followed. `name`: the --name of a `host` verb.
 */
export async function hostWords({ host }: Pick<Globals, 'host'>, name?: string): Promise<string> {
  const { parseHostSpec, defaultHostSpec } = await import('../host/open/open_host.js');
  const { shellWord } = await import('../trust/shell_word.js');
  const typed = name === undefined ? (host ?? process.env.DORMOUSE_HOST ?? '') : `embedded:${name}`;
  if (typed === '') return '';
  try {
    const plain = (spec: ReturnType<typeof parseHostSpec>): string => JSON.stringify(spec);
    const isDefault = plain(parseHostSpec(typed)) === plain(defaultHostSpec(''));
    const elsewhere = (process.env.DORMOUSE_HOST ?? '') !== '';
    return isDefault && !elsewhere ? '' : `--host ${shellWord(typed)}`;
  } catch {
    // No host that could be named.
    return '';
  }
}
