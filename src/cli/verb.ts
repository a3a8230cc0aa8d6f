/** What a verb is: its words for the command line, its JSON document, and what it does. */
import type * as z from 'zod';
import { DormouseError, type GuestState } from '../errors.js';
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
  /** How it left the guest, where it touched one. */
  readonly guest?: GuestState;
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
  /** True where SIGINT and SIGTERM are cleaned up after, or what was begun is finished; else they end the process at once. */
  readonly cancellable: boolean;
  /** True where running it again is not the same as running it once: what was done must be told, whatever fails after it. */
  readonly changes?: true;
  /** Of its typed input. */
  readonly fields: readonly string[];
  run(context: Context, input: VerbInput): Promise<Outcome>;
}

/** A verb as its file writes it: `input` has a field for each argument and option, by the name it has on the command line. */
export interface TypedVerb<Input extends z.ZodObject> extends Omit<Verb, 'run' | 'fields'> {
  readonly input: Input;
  readonly run: (context: Context, input: z.output<Input>) => Promise<Outcome>;
}

/**
 * `<domain>`, `[domains...]`, `-p, --paused`, `--incremental-from <image>` as fields: domain, domains, paused, incrementalFrom.
 * `--no-safety` is a value of `safety`.
 */
export function fieldNames({ args, options }: Pick<Verb, 'args' | 'options'>): {
  args: string[];
  options: string[];
} {
  const camel = (name: string): string =>
    name.replace(/-([a-z])/gu, (_, letter: string) => letter.toUpperCase());
  return {
    args: args.map(({ form }) => camel(form.replace(/[^a-z-]/gu, ''))),
    options: options.map(({ flags }) => camel(/--(?:no-)?([a-z-]+)/u.exec(flags)?.[1] ?? '')),
  };
}

/** What was typed is read by the schema, once and before anything is done. USAGE for what it does not take. */
export function defineVerb<Input extends z.ZodObject>(typed: TypedVerb<Input>): Verb {
  const { input: schema, run, ...rest } = typed;
  return {
    ...rest,
    fields: Object.keys(schema.shape),
    run: (context, { args, options }) => {
      const names = fieldNames(rest).args;
      const given = { ...Object.fromEntries(names.map((name, i) => [name, args[i]])), ...options };
      const parsed = schema.safeParse(given);
      if (!parsed.success) {
        const said = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
        throw new DormouseError('USAGE', said.join('; '));
      }
      return run(context, parsed.data);
    },
  };
}

/** Without the fields that are undefined. */
export function given<Fields extends object>(
  fields: Fields,
): { [Name in keyof Fields]?: Exclude<Fields[Name], undefined> } {
  const there = Object.entries(fields).filter(([, value]) => value !== undefined);
  return Object.fromEntries(there) as { [Name in keyof Fields]?: Exclude<Fields[Name], undefined> };
}
