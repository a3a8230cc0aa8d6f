/** What can follow what on a command line, out of the table of verbs: the same for every shell. */
import type { Verb, VerbArgument, VerbOption } from '../verb.js';

export interface CommandLine {
  readonly verbs: readonly Verb[];
  /** First words that several verbs share, and what they are for. */
  readonly groups: Readonly<Record<string, string>>;
  readonly globalOptions: readonly VerbOption[];
}

/** What a word of the command line is: one of a few, the name of a domain, a path, or something nobody can guess. */
export type Kind = readonly string[] | 'domain' | 'file' | 'text';

export interface OptionWords {
  /** As typed: `-p`, `--paused`. */
  readonly names: readonly string[];
  readonly says: string;
  /** Of its value; undefined where it takes none. */
  readonly value: Kind | undefined;
}

export interface ArgumentWords {
  readonly says: string;
  readonly kind: Kind;
  readonly repeats: boolean;
}

const hosts = ['embedded', 'xen'];
const paths = /^(file|file-or-domain|folder|image|in|out|config|path)$/u;

function kindOf(name: string, choices: readonly string[] | undefined): Kind {
  if (choices !== undefined) return choices;
  if (name === 'host') return hosts;
  if (/^domains?$/u.test(name)) return 'domain';
  return paths.test(name) ? 'file' : 'text';
}

export function optionWords({ flags, says, choices }: VerbOption): OptionWords {
  const value = /<([^>]+)>/u.exec(flags)?.[1];
  const names = flags.replace(/ *<.*$/u, '').split(/, */u);
  return { names, says, value: value === undefined ? undefined : kindOf(value, choices) };
}

export function argumentWords({ form, says, choices }: VerbArgument): ArgumentWords {
  const [, name = '', dots] = /^[<[]([^.\]>]+)(\.\.\.)?/u.exec(form) ?? [];
  return { says, kind: kindOf(name, choices), repeats: dots !== undefined };
}

/** A verb's own, then those of all. */
export function optionsOf(verb: Verb, { globalOptions }: CommandLine): OptionWords[] {
  return [...verb.options, ...globalOptions].map(optionWords);
}

/** First words with what they are for: verbs, and the groups of those that have two words. */
export function firstWords({ verbs, groups }: CommandLine): [word: string, says: string][] {
  const words = new Map<string, string>();
  for (const { name, summary } of verbs) {
    const [first = '', second] = name.split(' ');
    words.set(first, second === undefined ? summary : (groups[first] ?? ''));
  }
  return [...words];
}

/** Second words of a group. */
export function secondWords({ verbs }: CommandLine, group: string): [word: string, says: string][] {
  return verbs.flatMap(({ name, summary }) => {
    const [first, second] = name.split(' ');
    return first === group && second !== undefined ? [[second, summary] as [string, string]] : [];
  });
}

/** Options, of any verb, after which comes a value that is no verb. */
export function valueOptions(line: CommandLine): string[] {
  const all = [...line.verbs.flatMap(({ options }) => options), ...line.globalOptions].map(optionWords);
  return [...new Set(all.flatMap(({ names, value }) => (value === undefined ? [] : names)))];
}

/** A shell command that prints the names of the guests without starting a host. */
export const guestNames = `dormouse host status --json 2>/dev/null | sed -n 's/^      "name": "\\([^"]*\\)",*$/\\1/p'`;

/** In single quotes, as all three shells read them. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
