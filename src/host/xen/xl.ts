/** What is xl's own business: building and removing domains with their devices. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { DormouseError } from '../../errors.js';

const run = promisify(execFile);
const timeoutMs = 300_000;

/** Runs xl; its own words are the error's. HOST_LACKS where there is none. */
export async function xl(...args: string[]): Promise<string> {
  try {
    return (await run('xl', args, { timeout: timeoutMs })).stdout;
  } catch (thrown) {
    const error = thrown as NodeJS.ErrnoException & { stderr?: string };
    if (error.code === 'ENOENT')
      throw new DormouseError('HOST_LACKS', 'xl is not installed (apt-get install xen-utils-4.17)', {
        cause: error,
      });
    const said = (error.stderr ?? '').trim() || error.message;
    throw new DormouseError('DOMAIN_WRONG_STATE', `xl ${args[0]}: ${said}`, { cause: error });
  }
}

/** Creates a domain from the text of an xl configuration file. CONFIG_INVALID for anything else. */
export async function xlCreate(config: string, paused: boolean): Promise<void> {
  if (config.trim() === '' || config.trimStart().startsWith('{'))
    throw new DormouseError(
      'CONFIG_INVALID',
      "on Xen a domain is created from an xl configuration file's text",
    );
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-'));
  try {
    const path = join(dir, 'domain.cfg');
    writeFileSync(path, config, { mode: 0o600 });
    await xl('create', '-q', ...(paused ? ['-p'] : []), path);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
