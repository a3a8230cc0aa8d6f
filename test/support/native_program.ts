/** Small C++ programs that drive native code without JavaScript. */
import { execFileSync, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { packageRoot } from '../../src/addon.js';
import { tempDir } from './images.js';

const native = join(packageRoot, 'native');

/** Compiles test/support/NAME with these files of native/, runs it, and tells how it ended. */
export function runNativeProgram(
  t: TestContext,
  name: string,
  sources: readonly string[],
  args: readonly string[] = [],
): { readonly status: number | null; readonly output: string } {
  const program = join(tempDir(t), 'program');
  const files = [join(packageRoot, 'test/support', name), ...sources.map((file) => join(native, file))];
  execFileSync('g++', ['-O1', '-std=c++17', '-pthread', `-I${native}`, '-o', program, ...files]);
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  return { status, output: stdout + stderr };
}
