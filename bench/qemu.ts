/**
 * QEMU beside dormouse: the same bytes saved and restored through its mapped-ram file with multifd (QEMU 9.0 and newer). The
 * virtual machine never runs a step; what it holds is a file of those bytes. What counts is the migration alone, not
 * QEMU's start; a file that was written is synced within the time, as ours is.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fsyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import type { Buffer } from 'node:buffer';

const channels = 2;
const limitMs = 300_000;
const capabilities = ['mapped-ram', 'multifd', 'events'];

interface Reply {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
  readonly event?: string;
  readonly data?: { readonly status?: string };
}

/** One QEMU process and its monitor. */
class Qemu {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #replies: ((reply: Reply) => void)[] = [];
  #ended: ((status: string) => void) | undefined;
  #said = '';

  constructor(path: string, args: readonly string[]) {
    this.#child = spawn(path, [...args, '-qmp', 'stdio'], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child.stderr.on('data', (bytes: Buffer) => (this.#said += bytes.toString()));
    this.#child.stdin.on('error', () => undefined);
    createInterface({ input: this.#child.stdout }).on('line', (line) =>
      this.#take(JSON.parse(line) as Reply),
    );
    this.#child.on('exit', () => this.#fail('ended'));
    this.#child.on('error', (error) => this.#fail(error.message));
  }

  #take(reply: Reply): void {
    const { status } = reply.data ?? {};
    if (reply.event === 'MIGRATION' && (status === 'completed' || status === 'failed')) this.#ended?.(status);
    if ('return' in reply || 'error' in reply) this.#replies.shift()?.(reply);
  }

  #fail(why: string): void {
    for (const waiting of this.#replies.splice(0))
      waiting({ error: { desc: `QEMU: ${why}: ${this.#said}` } });
    this.#ended?.('failed');
  }

  /** The answer of a command; an Error with QEMU's own words if it refuses. */
  async ask(execute: string, args: object = {}): Promise<unknown> {
    this.#child.stdin.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    const reply = await new Promise<Reply>((resolve) => this.#replies.push(resolve));
    if (reply.error) throw new Error(`QEMU: ${execute}: ${reply.error.desc}`);
    return reply.return;
  }

  /** Seconds from the command until the migration has come to its end. */
  async migrate(execute: 'migrate' | 'migrate-incoming', path: string): Promise<number> {
    const end = new Promise<string>((resolve) => (this.#ended = resolve));
    const timer = setTimeout(() => this.#ended?.('late'), limitMs);
    const startedMs = performance.now();
    await this.ask(execute, { uri: `file:${path}` });
    const status = await end;
    clearTimeout(timer);
    if (status !== 'completed') throw new Error(`QEMU: ${execute} ${status}: ${this.#said}`);
    if (execute === 'migrate') syncFile(path);
    return (performance.now() - startedMs) / 1000;
  }

  /** Ready for a migration. Errors for a QEMU that is too old say so. */
  async prepare(): Promise<void> {
    await this.ask('qmp_capabilities');
    const known = (await this.ask('query-migrate-capabilities')) as { capability: string }[];
    const lacks = capabilities.filter((name) => !known.some(({ capability }) => capability === name));
    if (lacks.length > 0) throw new Error(`this QEMU has no ${lacks.join(', no ')}: 9.0 or newer is needed`);
    await this.ask('migrate-set-capabilities', {
      capabilities: capabilities.map((capability) => ({ capability, state: true })),
    });
    await this.ask('migrate-set-parameters', { 'multifd-channels': channels, 'max-bandwidth': 1e15 });
  }

  async quit(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
  }
}

function syncFile(path: string): void {
  const fd = openSync(path, 'r');
  fsyncSync(fd);
  closeSync(fd);
}

export class QemuPeer {
  readonly #memory: string;

  /** `bytes` of guest memory, a multiple of 1 MiB, filled with the corpus over and over, in the memory of this machine. */
  constructor(
    private readonly path: string,
    private readonly bytes: number,
    corpus: Buffer,
  ) {
    this.#memory = join('/dev/shm', `dormouse-bench-${process.pid}.memory`);
    const fd = openSync(this.#memory, 'wx', 0o600);
    for (let at = 0; at < bytes; at += corpus.length)
      writeSync(fd, corpus, 0, Math.min(corpus.length, bytes - at), at);
    closeSync(fd);
  }

  close(): void {
    rmSync(this.#memory, { force: true });
  }

  async #run(
    memory: string,
    more: readonly string[],
    body: (qemu: Qemu) => Promise<number>,
  ): Promise<number> {
    const machine = ['-machine', 'pc,accel=tcg,memory-backend=mem', '-nodefaults', '-display', 'none', '-S'];
    const object = `${memory},id=mem,size=${this.bytes}`;
    const qemu = new Qemu(this.path, [
      ...machine,
      '-object',
      object,
      '-m',
      `${this.bytes / 2 ** 20}`,
      ...more,
    ]);
    try {
      await qemu.prepare();
      return await body(qemu);
    } finally {
      await qemu.quit();
    }
  }

  /** Seconds to write a file that holds the memory, synced. The file must not exist. */
  save(file: string): Promise<number> {
    closeSync(openSync(file, 'wx', 0o600));
    const memory = `memory-backend-file,mem-path=${this.#memory},share=on`;
    return this.#run(memory, [], (qemu) => qemu.migrate('migrate', file));
  }

  /** Seconds to read it into fresh memory. */
  restore(file: string): Promise<number> {
    return this.#run('memory-backend-ram', ['-incoming', 'defer'], (qemu) =>
      qemu.migrate('migrate-incoming', file),
    );
  }
}
