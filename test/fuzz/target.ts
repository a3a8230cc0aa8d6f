/** What a target is, how its answer to an input is judged, and where its inputs are kept. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../src/addon.js';
import { DormouseError, type ErrorCode } from '../../src/errors.js';

/** A parser of bytes that somebody else made. It gives a value for which all that is asserted holds, or an error of its list. */
export interface Target {
  readonly codes: readonly ErrorCode[];
  /** Pieces that its text is made of, where it is text. */
  readonly words?: readonly string[];
  /** What the corpus begins with, beside the kept inputs. */
  seeds(): Promise<readonly Buffer[]> | readonly Buffer[];
  run(input: Buffer): Promise<void> | void;
}

/** Longer inputs are cut: behind that there is nothing new. */
export const mostBytes = 1 << 16;

/** Null, or what was wrong with how the target took the input. */
export async function judge(target: Target, input: Buffer): Promise<string | null> {
  try {
    const running = target.run(input);
    if (running) await running;
    return null;
  } catch (thrown) {
    if (thrown instanceof DormouseError && target.codes.includes(thrown.code)) return null;
    return thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
  }
}

export interface TargetPlaces {
  /** In the repository, for everybody. */
  readonly kept: string;
  /** Of this machine: what was reached so far, and what was found. */
  readonly grown: string;
  readonly found: string;
}

export function placesOf(name: string): TargetPlaces {
  const own = join(packageRoot, 'build/fuzz', name);
  return {
    kept: join(packageRoot, 'test/fuzz-corpus', name),
    grown: join(own, 'corpus'),
    found: join(own, 'found'),
  };
}

/** Inputs in a folder, by name; none where there is no folder. */
export const inputsIn = (dir: string): Buffer[] =>
  existsSync(dir)
    ? readdirSync(dir)
        .sort()
        .map((file) => readFileSync(join(dir, file)))
    : [];
