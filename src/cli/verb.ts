/** What a verb is: its words for the command line, its JSON document, and what it does. */
import type * as z from 'zod';
import type { Context } from './context.js';

export interface VerbArgument {
  /** Commander's form: `<domain>`, `[config]`, `[settings...]`. By the name shells know what to complete. */
  readonly form: string;
  readonly says: string;
  /** All that it can be. */
  readonly choices?: readonly string[];
}

export interface VerbOption {
  /** Commander's form: `-p, --paused`, `--name <name>`. */
  readonly flags: string;
  readonly says: string;
  /** All that its value can be. */
  readonly choices?: readonly string[];
}

export interface VerbExample {
  readonly command: string;
  readonly says: string;
}

/** What commander made of the command line; a variadic argument is a list of strings. */
export interface VerbInput {
  readonly args: readonly (string | readonly string[] | undefined)[];
  readonly options: Readonly<Record<string, string | boolean | undefined>>;
}

/** What a verb leaves on stdout: `text` for people or, with --json, `document`. */
export interface Outcome {
  readonly document: unknown;
  readonly text: string;
  /** 0 unless there are findings (3). */
  readonly exitCode?: 0 | 3;
}

export interface Verb {
  /** As typed, with its group: `save`, `host start`. */
  readonly name: string;
  readonly summary: string;
  /** Further help text: what is asked for first, and what happens then. */
  readonly details?: string;
  readonly args: readonly VerbArgument[];
  readonly options: readonly VerbOption[];
  readonly examples: readonly VerbExample[];
  /** The schema of its JSON document. */
  readonly document: z.ZodType;
  /** True where SIGINT and SIGTERM are to be cleaned up after; else they end the process at once. */
  readonly cancellable: boolean;
  run(context: Context, input: VerbInput): Promise<Outcome>;
}

/** The argument at `index`, which the verb's form makes mandatory. */
export function textArgument(input: VerbInput, index: number): string {
  const value = input.args[index];
  if (typeof value !== 'string') throw new TypeError(`argument ${index} is missing`);
  return value;
}

export function listArgument(input: VerbInput, index: number): readonly string[] {
  const value = input.args[index];
  return Array.isArray(value) ? (value as readonly string[]) : [];
}

export function flag(input: VerbInput, name: string): boolean {
  return input.options[name] === true;
}

export function textOption(input: VerbInput, name: string): string | undefined {
  const value = input.options[name];
  return typeof value === 'string' ? value : undefined;
}
