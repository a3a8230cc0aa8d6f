/** Runs test/support/tool.ts as a process of its own. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

const script = join(dirname(fileURLToPath(import.meta.url)), 'tool.js');

/** Resolves once it has printed `ready`; rejects with what it said if it ends before. Killed when the test ends. */
export async function startTool(
  t: TestContext,
  args: string[],
): Promise<{ pid: number; kill: () => Promise<void> }> {
  const child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
  t.after(kill);
  await new Promise<void>((resolve, reject) => {
    let said = '';
    const hear = (text: string) => {
      said += text;
      if (/^ready$/m.test(said)) resolve();
    };
    child.stdout.setEncoding('utf8').on('data', hear);
    child.stderr.setEncoding('utf8').on('data', hear);
    child.once('exit', () => reject(new Error(`the tool ended: ${said}`)));
  });
  return { pid: child.pid ?? 0, kill };
}
