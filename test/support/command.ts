/** The real command line, `bin/dormouse`, as a process of its own. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import * as z from 'zod';
import { packageRoot } from '../../src/addon.js';
import { verbs } from '../../src/cli/program/verbs.js';
import type { ErrorCode } from '../../src/errors.js';

export interface Ended {
  /** Null if a signal ended it. */
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly pid: number;
  readonly ended: Promise<Ended>;
  /** False if it had ended before. */
  kill(signal: NodeJS.Signals): boolean;
}

const bin = join(packageRoot, 'bin/dormouse');

async function collect(child: ChildProcess): Promise<Ended> {
  let [stdout, stderr] = ['', ''];
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const [exitCode, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return { exitCode, signal, stdout, stderr };
}

/** Starts it; killed when the test ends if it still runs. `fileBlocks` limits what it may write to one file (ulimit -f). */
export function startCommand(
  t: TestContext,
  args: readonly string[],
  options: { readonly fileBlocks?: number } = {},
): Running {
  const line = [process.execPath, bin, ...args];
  const limit = `ulimit -f ${options.fileBlocks ?? 0} && exec "$@"`;
  const [program = '', ...rest] =
    options.fileBlocks === undefined ? line : ['sh', '-c', limit, 'sh', ...line];
  const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = collect(child);
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  return { pid: child.pid ?? 0, ended, kill: (signal) => child.kill(signal) };
}

/** Runs one command line to its end. */
export function command(t: TestContext, ...args: readonly string[]): Promise<Ended> {
  return startCommand(t, args).ended;
}

/** Runs a verb with --json and returns its document, checked against the schema that the verb documents. */
export async function documentOf(
  t: TestContext,
  verbName: string,
  args: readonly string[],
  exitCode: 0 | 3 = 0,
): Promise<Record<string, unknown>> {
  const ran = await command(t, ...verbName.split(' '), ...args, '--json');
  assert.equal(ran.exitCode, exitCode, `${verbName} ${args.join(' ')}: ${ran.stderr}`);
  const verb = verbs.find(({ name }) => name === verbName);
  assert.ok(verb, verbName);
  const printed: unknown = JSON.parse(ran.stdout);
  const parsed = verb.document.safeParse(printed);
  if (!parsed.success) assert.fail(`${verbName}: ${z.prettifyError(parsed.error)}`);
  assert.deepEqual(parsed.data, printed);
  return printed as Record<string, unknown>;
}

const errorSchema = z.strictObject({
  type: z.literal('exit_error'),
  code: z.int(),
  name: z.string(),
  guest: z.string(),
  message: z.string(),
  advice: z.string(),
  place: z.record(z.string(), z.union([z.string(), z.number()])).optional(),
  details: z.array(z.string()).optional(),
  done: z.record(z.string(), z.unknown()).optional(),
});
export type ErrorLine = z.infer<typeof errorSchema>;

/** The error document that --json leaves as the last line of stderr; stdout must be empty. */
export function errorOf(ran: Ended): ErrorLine {
  assert.equal(ran.stdout, '');
  const line = ran.stderr.trimEnd().split('\n').at(-1) ?? '';
  const error = errorSchema.parse(JSON.parse(line));
  assert.equal(error.code, ran.exitCode);
  return error;
}

/** Runs a command line that must fail with that error. */
export async function failure(
  t: TestContext,
  code: ErrorCode,
  exitCode: number,
  args: readonly string[],
): Promise<ErrorLine> {
  const ran = await command(t, ...args, '--json');
  const what = `${args.join(' ')}: ${ran.stderr}`;
  assert.equal(ran.exitCode, exitCode, what);
  const error = errorOf(ran);
  assert.equal(error.name, code, what);
  return error;
}
