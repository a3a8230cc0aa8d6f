/** Outputs that cannot be written: refused before the guest is touched, and nothing that was there is changed. */
import assert from 'node:assert/strict';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ErrorCode } from '../../src/errors.js';
import { failure } from '../support/command.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { Undisturbed } from '../support/interrupt.js';
import { runNativeProgram } from '../support/native_program.js';

/** Paths below `dir`, and what is said to them. */
function refusedPaths(dir: string): [path: string, code: ErrorCode][] {
  const at = (name: string): string => join(dir, name);
  mkdirSync(at('folder'));
  mkdirSync(at('readonly'));
  chmodSync(at('readonly'), 0o500);
  writeFileSync(at('exists'), 'precious');
  symlinkSync('exists', at('link'));
  symlinkSync('nowhere', at('dangling'));
  return [
    [at('folder'), 'OUTPUT_INVALID'],
    [`${at('folder')}/`, 'OUTPUT_INVALID'],
    [at('exists'), 'OUTPUT_EXISTS'],
    [at('link'), 'OUTPUT_INVALID'],
    [at('dangling'), 'OUTPUT_INVALID'],
    [at('missing/new.dmi'), 'OUTPUT_INVALID'],
    [at('exists/new.dmi'), 'OUTPUT_INVALID'],
    [at('x'.repeat(300)), 'OUTPUT_INVALID'],
    ['', 'OUTPUT_INVALID'],
    ['/proc/new.dmi', 'OUTPUT_INVALID'],
    // Root may write anywhere that is not read-only by nature.
    ...(process.getuid?.() === 0 ? [] : [[at('readonly/new.dmi'), 'OUTPUT_INVALID'] as [string, ErrorCode]]),
  ];
}

test('save and checkpoint refuse what they may not write to', async (t) => {
  const host = await startTestHost(t);
  const domid = await host.create(guestSpec('guest'), { paused: false });
  const dir = tempDir(t);
  const paths = refusedPaths(dir);
  const before = await Undisturbed.note(host, dir);
  const verbs = [['save'], ['save', '-c'], ['checkpoint'], ['checkpoint', '--mode', 'cooperative']];
  for (const [i, [path, code]] of paths.entries()) {
    const verb = verbs[i % verbs.length] ?? ['save'];
    const error = await failure(t, code, 1, [...verb, '--host', 'embedded:test', 'guest', path]);
    assert.equal(error.guest, 'untouched', path);
  }
  await before.assertHost(5000);
  assert.deepEqual(readdirSync(dir).sort(), ['dangling', 'exists', 'folder', 'link', 'readonly']);
  assert.equal(readFileSync(join(dir, 'exists'), 'utf8'), 'precious');
  assert.ok(lstatSync(join(dir, 'link')).isSymbolicLink());
  assert.deepEqual([readdirSync(join(dir, 'folder')), readdirSync(join(dir, 'readonly'))], [[], []]);
  const { paused, shutdown } = await host.find('guest');
  assert.deepEqual([paused, shutdown], [false, null]);
  const from = (await host.progress(domid)).counters[0] ?? 0;
  await until('the guest runs', 1000, async () => ((await host.progress(domid)).counters[0] ?? 0) > from);
});

test('where there are no unnamed files, nothing that others put in the place of the hidden one is used', (t) => {
  const { status, output } = runNativeProgram(
    t,
    'partial_file_checks.cc',
    ['image/output_file.cc'],
    [tempDir(t)],
  );
  assert.equal(status, 0, output);
});
