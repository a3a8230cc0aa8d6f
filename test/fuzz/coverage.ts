/** Which of this project's code an input reaches, as V8 counts it (precise block coverage). */
import { Session, type Profiler } from 'node:inspector';
import { pathToFileURL } from 'node:url';
import { join } from 'node:path';
import { packageRoot } from '../../src/addon.js';

const ours = pathToFileURL(join(packageRoot, 'dist/src')).href;

/** By script: 1 for each character of its text that was run. */
type Reached = ReadonlyMap<string, Uint8Array>;

/** Blocks lie in each other, and the inner one counts. */
function paint(functions: readonly Profiler.FunctionCoverage[]): Uint8Array {
  const end = functions.reduce((most, { ranges }) => Math.max(most, ranges[0]?.endOffset ?? 0), 0);
  const text = new Uint8Array(end);
  for (const { ranges } of functions)
    for (const { startOffset, endOffset, count } of ranges)
      text.fill(count > 0 ? 1 : 0, startOffset, endOffset);
  return text;
}

export class Coverage {
  readonly #session = new Session();
  readonly #seen = new Map<string, Uint8Array>();

  /** To be made before what is measured is loaded: what was compiled before has no counters. */
  constructor() {
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  /** What was run since the last call. */
  take(): Reached {
    let scripts: readonly Profiler.ScriptCoverage[] = [];
    this.#session.post('Profiler.takePreciseCoverage', (_, { result }) => (scripts = result));
    const own = scripts.filter(({ url }) => url.startsWith(ours));
    return new Map(own.map(({ scriptId, functions }) => [scriptId, paint(functions)]));
  }

  isNew(reached: Reached): boolean {
    for (const [script, text] of reached) {
      const seen = this.#seen.get(script);
      for (let at = 0; at < text.length; at++) if (text[at] === 1 && seen?.[at] !== 1) return true;
    }
    return false;
  }

  note(reached: Reached): void {
    for (const [script, text] of reached) {
      const seen = this.#seen.get(script) ?? new Uint8Array(0);
      const all = new Uint8Array(Math.max(seen.length, text.length));
      all.set(seen);
      for (let at = 0; at < text.length; at++) if (text[at] === 1) all[at] = 1;
      this.#seen.set(script, all);
    }
  }
}
