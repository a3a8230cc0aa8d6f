/**
 * Fuzzes one target in TypeScript: child.js NAME SECONDS EXECUTIONS SEED WATCHED. Each input is in the file WATCHED before it is tried, for
 * whoever watches this process (script.ts). The last line of standard output is the result.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { Coverage } from './coverage.js';
import { generator, inputOf } from './mutate.js';
import type { Target } from './target.js';

/** Before an input in the file: how many there were, and its length, in 8 bytes each. */
export const watchedHead = 16;

export interface ChildResult {
  readonly executions: number;
  readonly seconds: number;
  /** What was wrong with the input that is in the watched file, or null. */
  readonly wrong: string | null;
}

/** An input that was not as it should be; it is the one in the watched file. */
class Found extends Error {}

class Tried {
  executions = 0;
  readonly #head = Buffer.alloc(watchedHead);
  readonly #fd: number;

  constructor(
    private readonly target: Target,
    private readonly judge: (target: Target, input: Buffer) => Promise<string | null>,
    watched: string,
  ) {
    this.#fd = openSync(watched, 'r+');
  }

  async one(input: Buffer): Promise<void> {
    this.#head.writeBigUInt64LE(BigInt(++this.executions), 0);
    this.#head.writeBigUInt64LE(BigInt(input.length), 8);
    writeSync(this.#fd, Buffer.concat([this.#head, input]), 0, watchedHead + input.length, 0);
    const wrong = await this.judge(this.target, input);
    if (wrong !== null) throw new Found(wrong);
  }
}

/** Inputs tried together, so that coverage is looked at once for all of them. */
const batchMs = 200;
const batchMost = 4096;
const batchBytes = 16 << 20;

class Fuzzer {
  readonly corpus: Buffer[] = [];

  constructor(
    private readonly tried: Tried,
    private readonly coverage: Coverage,
    private readonly grown: string,
    private readonly words: readonly Buffer[],
    private readonly mostBytes: number,
  ) {}

  /** Those that reach what none did before join the corpus: the half that has one, and again. */
  private async sift(inputs: readonly Buffer[]): Promise<void> {
    for (const input of inputs) await this.tried.one(input);
    const reached = this.coverage.take();
    if (!this.coverage.isNew(reached)) return;
    const [only] = inputs;
    if (inputs.length === 1 && only) this.grow(only);
    else {
      const half = inputs.length >> 1;
      await this.sift(inputs.slice(0, half));
      await this.sift(inputs.slice(half));
    }
    // Also what ran between the inputs, or only in the first try.
    this.coverage.note(reached);
  }

  private grow(input: Buffer): void {
    this.corpus.push(input);
    const name = createHash('sha256').update(input).digest('hex').slice(0, 16);
    writeFileSync(join(this.grown, name), input);
  }

  async begin(inputs: readonly Buffer[]): Promise<void> {
    for (const input of inputs) {
      await this.tried.one(input);
      this.corpus.push(input);
    }
    this.coverage.note(this.coverage.take());
  }

  async go(seconds: number, executions: number, seed: number): Promise<void> {
    const next = generator(seed);
    const endMs = performance.now() + 1000 * seconds;
    while (performance.now() < endMs && this.tried.executions < executions) {
      const batch: Buffer[] = [];
      const batchEndMs = Math.min(endMs, performance.now() + batchMs);
      for (let bytes = 0; batch.length < batchMost && bytes < batchBytes;) {
        const input = inputOf(this.corpus, next, this.words).subarray(0, this.mostBytes);
        await this.tried.one(input);
        batch.push(input);
        bytes += input.length;
        if (batch.length % 16 === 0 && performance.now() > batchEndMs) break;
      }
      const reached = this.coverage.take();
      if (!this.coverage.isNew(reached)) continue;
      await this.sift(batch);
      this.coverage.note(reached);
    }
  }
}

async function main(args: readonly string[]): Promise<void> {
  const [name = '', seconds = '', executions = '', seed = '', watched = ''] = args;
  const coverage = new Coverage();
  const { targets } = await import('./targets.js');
  const { inputsIn, judge, mostBytes, placesOf } = await import('./target.js');
  const target = targets[name];
  if (!target) throw new Error(`no target ${name}`);
  const { kept, grown } = placesOf(name);
  mkdirSync(grown, { recursive: true });
  const tried = new Tried(target, judge, watched);
  const words = (target.words ?? []).map((word) => Buffer.from(word));
  const fuzzer = new Fuzzer(tried, coverage, grown, words, mostBytes);
  const startedMs = performance.now();
  let wrong: string | null = null;
  try {
    await fuzzer.begin([...(await target.seeds()), ...inputsIn(kept), ...inputsIn(grown)]);
    await fuzzer.go(Number(seconds), Number(executions), Number(seed));
  } catch (thrown) {
    if (!(thrown instanceof Found)) throw thrown;
    wrong = thrown.message;
  }
  const result: ChildResult = {
    executions: tried.executions,
    seconds: (performance.now() - startedMs) / 1000,
    wrong,
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

if (process.argv[1]?.endsWith('fuzz/child.js') === true) await main(process.argv.slice(2));
