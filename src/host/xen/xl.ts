/** What is xl's own business: building and removing domains with their devices. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { DormouseError, type ErrorCode, type ErrorPlace } from '../../errors.js';

const execute = promisify(execFile);
const maxOutput = 64 * 1024 * 1024;

interface XlOptions {
  /** Of every failure but those below. */
  readonly code?: ErrorCode;
  readonly timeoutMs?: number;
  readonly place?: ErrorPlace;
}

interface Said {
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs xl; its own words are the error's. HOST_LACKS where there is none, LOCKED if it does not end in time (it waits for
 * libxl's locks), else `code`, DOMAIN_WRONG_STATE by default.
 */
export async function xl(args: readonly string[], options: XlOptions = {}): Promise<Said> {
  const { code = 'DOMAIN_WRONG_STATE', timeoutMs = 300_000, place = {} } = options;
  try {
    return await execute('xl', args, { timeout: timeoutMs, maxBuffer: maxOutput });
  } catch (thrown) {
    const error = thrown as NodeJS.ErrnoException & { stderr?: string; killed?: boolean };
    const fail = (what: ErrorCode, text: string): DormouseError =>
      new DormouseError(what, text, { cause: error, place });
    if (error.code === 'ENOENT')
      throw fail('HOST_LACKS', 'xl is not installed (apt-get install xen-utils-4.17)');
    if (error.killed === true)
      throw fail(
        'LOCKED',
        `xl ${args[0]}: not done in ${timeoutMs / 1000} s: libxl is at work on the domain`,
      );
    throw fail(code, `xl ${args[0]}: ${(error.stderr ?? '').trim() || error.message}`);
  }
}

/** `xl create` of the text of an xl.cfg(5). HOST_LACKS, and CONFIG_INVALID with xl's own words. */
async function runCreate(config: string, options: readonly string[]): Promise<string> {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-'));
  try {
    const path = join(dir, 'domain.cfg');
    writeFileSync(path, config, { mode: 0o600 });
    return (await xl(['create', '-q', ...options, path], { code: 'CONFIG_INVALID' })).stdout;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Creates a domain. Errors as above; no domain is left then. */
export async function xlCreate(config: string, paused: boolean): Promise<void> {
  await runCreate(config, paused ? ['-p'] : []);
}

/** What libxl makes of it: its configuration as JSON. Errors as above. */
export function xlDryRun(config: string): Promise<string> {
  return runCreate(config, ['-n']);
}
