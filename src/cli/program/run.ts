/** Runs one command line: parses, runs the verb, writes its outcome or its error, and returns the exit code. */
import { CommanderError } from 'commander';
import { asDormouseError, changed, DormouseError } from '../../errors.js';
import { hostWords, onHost } from '../advice.js';
import { Context, type Streams } from '../context.js';
import { buildProgram, type Chosen } from './program.js';
import { verbs } from './verbs.js';
import { errorDocument, renderError } from '../../render/error.js';
import { renderJson } from '../../render/json.js';
import type { Services } from '../services.js';
import type { Outcome, Verb } from '../verb.js';
import { written } from './output.js';

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
    const parsed = await parse(argv, around);
    if (typeof parsed === 'string') {
      await put(around, parsed);
      return 0;
    }
    chosen = parsed;
    ({ json, verbose } = chosen.globals);
    return await runVerb(chosen, around);
  } catch (thrown) {
    const error = await withHost(withHelp(translate(thrown, around.signal), given), chosen);
    await written(
      around.stderr,
      json ? `${renderJson(errorDocument(error))}\n` : renderError(error, verbose),
    );
    return error.exitCode;
  }
}

/** The text of help or of the version where that was asked for. USAGE for what is no command line. */
async function parse(argv: readonly string[], around: Surroundings): Promise<Chosen | string> {
  let text = '';
  let chosen: Chosen | undefined;
  const program = buildProgram((choice) => (chosen = choice), {
    out: (part) => (text += part),
    err: (text) => around.stderr.write(text),
  });
  try {
    await program.parseAsync(argv, { from: 'user' });
  } catch (thrown) {
    if (!(thrown instanceof CommanderError)) throw thrown;
    // As the verb does it.
    if (thrown.code === 'commander.version' && argv.includes('--json'))
      return await parse(['version', '--json'], around);
    if (thrown.exitCode === 0) return text;
    if (thrown.code === 'commander.help') throw new DormouseError('USAGE', 'a verb is missing');
    throw new DormouseError('USAGE', thrown.message.replace(/^error: /u, ''));
  }
  return chosen ?? text;
}

async function runVerb({ verb, input, globals }: Chosen, around: Surroundings): Promise<number> {
  around.cancellable(verb.cancellable);
  const context = new Context(globals, around.services, around.signal, around);
  const { document, text, exitCode, guest } = await verb.run(context, input);
  const result = globals.json ? `${renderJson(conforming(verb, document), 2)}\n` : text;
  await put(around, result, { text, changes: verb.changes === true, guest });
  return exitCode ?? 0;
}

/** What was done and cannot be told where it should be. */
interface Done extends Pick<Outcome, 'text'> {
  readonly changes: boolean;
  readonly guest: Outcome['guest'] | undefined;
}

/** Writes a result to stdout. RESULT_LOST, with what was done, if it cannot be written. */
async function put({ stdout }: Surroundings, result: string, done?: Done): Promise<void> {
  const cause = await written(stdout, result);
  if (!cause) return;
  const why = `the result cannot be written to stdout (${cause.message})`;
  if (!done?.changes) throw new DormouseError('RESULT_LOST', why);
  throw new DormouseError('RESULT_LOST', `it was done, but ${why}:`, {
    exitCode: 21,
    guest: done.guest ?? 'untouched',
    details: done.text.trimEnd().split('\n'),
    advice: 'Do not do it again: what was done stays done.',
  });
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
  const exitCode = signal.reason === 'SIGTERM' ? 143 : signal.reason === 'SIGHUP' ? 129 : 130;
  if (error.code === 'CANCELLED') return changed(error, { exitCode });
  const { message, cause } = error;
  return new DormouseError('CANCELLED', message, { exitCode, cause });
}
