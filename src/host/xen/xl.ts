/** What is xl's own business: building and removing domains with their devices. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { DormouseError, type ErrorCode } from '../../errors.js';

const execute = promisify(execFile);
const timeoutMs = 300_000;

/** Runs xl; its own words are the error's. HOST_LACKS where there is none, else `code`. */
async function run(args: string[], code: ErrorCode): Promise<string> {
  try {
    return (await execute('xl', args, { timeout: timeoutMs })).stdout;
  } catch (thrown) {
    const error = thrown as NodeJS.ErrnoException & { stderr?: string };
    if (error.code === 'ENOENT')
      throw new DormouseError('HOST_LACKS', 'xl is not installed (apt-get install xen-utils-4.17)', {
        cause: error,
      });
    const said = (error.stderr ?? '').trim() || error.message;
    throw new DormouseError(code, `xl ${args[0]}: ${said}`, { cause: error });
  }
}

/** Runs xl on a domain. HOST_LACKS, and DOMAIN_WRONG_STATE with xl's own words. */
export function xl(...args: string[]): Promise<string> {
  return run(args, 'DOMAIN_WRONG_STATE');
}

/** Creates a domain from the text of an xl.cfg(5). HOST_LACKS, and CONFIG_INVALID with xl's own words; no domain is left then. */
export async function xlCreate(config: string, paused: boolean): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-'));
  try {
    const path = join(dir, 'domain.cfg');
    writeFileSync(path, config, { mode: 0o600 });
    await run(['create', '-q', ...(paused ? ['-p'] : []), path], 'CONFIG_INVALID');
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
