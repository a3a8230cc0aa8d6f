/** Runs one command line: parses, runs the verb, writes its outcome or its error, and returns the exit code. */
import { CommanderError } from 'commander';
import { asDormouseError, changed, DormouseError } from '../../errors.js';
import { hostWords, onHost } from '../advice.js';
import { Context, type Streams } from '../context.js';
import { buildProgram, type Chosen } from './program.js';
import { verbs } from './verbs.js';
import { errorDocument, renderError } from '../../render/error.js';
import type { Services } from '../services.js';
import type { Verb } from '../verb.js';

export interface Surroundings extends Streams {
  readonly services: Services;
  /** Aborted with the name of the signal that came. */
  readonly signal: AbortSignal;
  /** Told whether the verb cleans up by itself after the signal. */
  readonly cancellable: (cancellable: boolean) => void;
}

/** `argv` without node and script. Throws nothing. */
export async function runCli(argv: readonly string[], around: Surroundings): Promise<number> {
  const given = argv.includes('--') ? argv.slice(0, argv.indexOf('--')) : argv;
  let json = given.includes('--json');
  let verbose = false;
  let chosen: Chosen | null = null;
  try {
    chosen = await parse(argv, around);
    if (!chosen) return 0;
    ({ json, verbose } = chosen.globals);
    return await runVerb(chosen, around);
  } catch (thrown) {
    const error = await withHost(withHelp(translate(thrown, around.signal), given), chosen);
    around.stderr.write(json ? `${JSON.stringify(errorDocument(error))}\n` : renderError(error, verbose));
    return error.exitCode;
  }
}

/** Null if help or the version was asked for and printed. USAGE for what is no command line. */
async function parse(argv: readonly string[], around: Surroundings): Promise<Chosen | null> {
  let chosen: Chosen | undefined;
  const program = buildProgram((choice) => (chosen = choice), {
    out: (text) => around.stdout.write(text),
    err: (text) => around.stderr.write(text),
  });
  try {
    await program.parseAsync(argv, { from: 'user' });
  } catch (thrown) {
    if (!(thrown instanceof CommanderError)) throw thrown;
    if (thrown.exitCode === 0) return null;
    if (thrown.code === 'commander.help') throw new DormouseError('USAGE', 'a verb is missing');
    throw new DormouseError('USAGE', thrown.message.replace(/^error: /u, ''));
  }
  return chosen ?? null;
}

async function runVerb({ verb, input, globals }: Chosen, around: Surroundings): Promise<number> {
  around.cancellable(verb.cancellable);
  const context = new Context(globals, around.services, around.signal, around);
  const { document, text, exitCode } = await verb.run(context, input);
  around.stdout.write(globals.json ? `${JSON.stringify(conforming(verb, document), null, 2)}\n` : text);
  return exitCode ?? 0;
}

/** The document without what its schema does not have. What was done is done: a mismatch must not look like a failure. */
function conforming(verb: Verb, document: unknown): unknown {
  const parsed = verb.document.safeParse(document);
  return parsed.success ? parsed.data : document;
}

/** What was typed wrongly is explained by the help of the verb that was typed. */
function withHelp(error: DormouseError, argv: readonly string[]): DormouseError {
  if (error.code !== 'USAGE') return error;
  const words = argv.filter((word) => !word.startsWith('-')).join(' ');
  const verb = verbs.find(({ name }) => words === name || words.startsWith(`${name} `));
  return verb ? changed(error, { advice: `See \`dormouse ${verb.name} --help\`.` }) : error;
}

/** Advice that can be typed as it stands: it names the host that was meant. */
async function withHost(error: DormouseError, chosen: Chosen | null): Promise<DormouseError> {
  if (!chosen) return error;
  const { name } = chosen.input.options;
  const named = chosen.verb.name.startsWith('host ') && typeof name === 'string' ? name : undefined;
  const advice = onHost(error.advice, await hostWords(chosen.globals, named));
  return advice === error.advice ? error : changed(error, { advice });
}

/** What was thrown, with the exit code of the signal if it was one. */
function translate(thrown: unknown, signal: AbortSignal): DormouseError {
  const error = asDormouseError(thrown);
  const cancelled = error.code === 'CANCELLED' || (signal.aborted && (thrown as Error).name === 'AbortError');
  if (!cancelled) return error;
  const exitCode = signal.reason === 'SIGTERM' ? 143 : 130;
  const { message, guest, place, cause } = error;
  return new DormouseError('CANCELLED', message, {
    place,
    exitCode,
    ...(error.code === 'CANCELLED' && { guest }),
    ...(cause !== undefined && { cause }),
  });
}
