/**
 * The pause of the xen host over a Xen that is files (test/support/fake_xen.c): what is called in it, and what its journal and the
 * watcher make of one that fails. Where the addon is not built, or there is no compiler, there is nothing to test.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test, type TestContext } from 'node:test';
import { compileFakeXen, noFakeXen, watcherProgram, xenAddon } from '../support/built_xen.js';
import { tempDir } from '../support/images.js';
import type { PauseScene, PauseSeen } from '../support/xen_pauses.js';

describe('a pause on Xen', { skip: noFakeXen }, () => {
  const built = mkdtempSync(join(tmpdir(), 'dormouse-fake-xen-'));
  const xen = join(built, 'xen.so');
  after(() => rmSync(built, { recursive: true, force: true }));
  before(() => {
    compileFakeXen(xen);
  });

  /** `paused`: by somebody else, before. */
  function run(t: TestContext, scene: PauseScene, paused = false): PauseSeen {
    const dir = tempDir(t);
    mkdirSync(join(dir, 'store'));
    const state = {
      uuid: '01234567-89ab-cdef-0123-456789abcdef',
      pvh: '',
      calls: '',
      pauses: paused ? '.' : '',
    };
    for (const [file, text] of Object.entries(state)) writeFileSync(join(dir, file), text);
    const script = fileURLToPath(new URL('../support/xen_pauses.js', import.meta.url));
    const args = [script, xenAddon, watcherProgram, join(dir, 'run'), JSON.stringify(scene)];
    const env = { ...process.env, FAKE_XEN: dir, LD_PRELOAD: xen };
    return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8', env })) as PauseSeen;
  }

  test('it holds the log, what is shared, registers and the copying, and nothing that could be done before', (t) => {
    const { outcome, calls, pauses, journal } = run(t, {});
    assert.equal(outcome, 'done');
    const inPause = ['pause', 'vCPU', 'look at the log', 'grants', 'registers', 'standing', 'unpause'];
    // What was mapped for it is unmapped when the guest runs.
    assert.deepEqual(calls, ['policies', ...inPause, 'unmap: 1 mapped']);
    assert.deepEqual([pauses, journal], [0, ['logdirty']]);
  });

  test('by content there is no log', (t) => {
    const { outcome, calls } = run(t, { content: true });
    assert.equal(outcome, 'done');
    assert.deepEqual(calls, ['policies', 'pause', 'vCPU', 'registers', 'standing', 'unpause']);
  });

  test('too much for a pause: nobody is told, and the guest goes on', (t) => {
    const { outcome, calls, pauses } = run(t, { maxPages: 1 });
    assert.deepEqual([outcome, calls.includes('standing'), pauses], ['done', false, 0]);
  });

  test('nothing of the domain stays mapped once its lease has ended', (t) => {
    assert.equal(
      run(t, {})
        .later.calls.filter((line) => line.startsWith('unmap'))
        .at(-1),
      'unmap: 0 mapped',
    );
  });

  for (const [throws, outcome] of [
    ['error', 'PAGE_TABLE_INVALID'],
    ['text', 'INTERNAL'],
    ['dies', 'PAGE_TABLE_INVALID'],
  ] as const)
    test(`what is thrown in it (${throws}) is told, and the guest goes on`, (t) => {
      const seen = run(t, { throws });
      assert.deepEqual([seen.outcome, seen.pauses, seen.journal], [outcome, 0, ['logdirty']]);
      assert.deepEqual(seen.calls.slice(-3), ['standing', 'unpause', 'unmap: 1 mapped']);
    });

  test('what belongs to the instant is taken last, once memory is safe; if it cannot be the guest goes on', (t) => {
    for (const [frozen, outcome] of [
      ['good', 'done'],
      ['throws', 'COMMAND_FAILED'],
    ] as const) {
      const seen = run(t, { frozen });
      assert.deepEqual([seen.outcome, seen.pauses, seen.journal], [outcome, 0, ['logdirty']]);
      assert.deepEqual(seen.calls.slice(-4), ['standing', 'frozen', 'unpause', 'unmap: 1 mapped']);
    }
    assert.ok(
      !run(t, { frozen: 'good', maxPages: 1 }).calls.includes('frozen'),
      'of pages that are not captured',
    );
    // Of one that stands already it is asked for each part.
    const over = run(t, { frozen: 'throws' }, true);
    assert.deepEqual([over.outcome, over.pauses, over.calls.includes('frozen')], ['COMMAND_FAILED', 1, true]);
  });

  test('one that fails and cannot be taken back is for the end of the lease', (t) => {
    for (const files of [['stuck'], ['stuck', 'log fails']]) {
      const seen = run(t, { files });
      assert.notEqual(seen.outcome, 'done');
      assert.deepEqual([seen.pauses, seen.journal], [1, ['logdirty', 'pause']]);
      assert.equal(seen.later.pauses, 0);
    }
  });

  test('somebody who pauses the domain after one that failed is left alone', (t) => {
    const seen = run(t, { files: ['another pauses', 'log fails'] });
    assert.notEqual(seen.outcome, 'done');
    assert.deepEqual([seen.pauses, seen.journal, seen.later.pauses], [1, ['logdirty'], 1]);
  });

  test('of a domain that somebody else has paused, theirs stays whatever becomes of ours', (t) => {
    for (const files of [[], ['log fails']]) {
      const seen = run(t, { files }, true);
      assert.equal(seen.outcome === 'done', files.length === 0);
      assert.deepEqual([seen.pauses, seen.journal, seen.later.pauses], [1, ['logdirty'], 1]);
    }
    for (const files of [['stuck'], ['stuck', 'log fails']]) {
      const stuck = run(t, { files }, true);
      assert.notEqual(stuck.outcome, 'done');
      assert.deepEqual([stuck.pauses, stuck.journal, stuck.later.pauses], [2, ['logdirty', 'pause'], 1]);
    }
  });

  test('one that is held is noted as ours, over another too, and ends with the lease', (t) => {
    const alone = run(t, { does: 'hold' });
    assert.deepEqual([alone.pauses, alone.journal, alone.later.pauses], [1, ['logdirty', 'pause'], 0]);
    const over = run(t, { does: 'hold' }, true);
    assert.deepEqual([over.pauses, over.journal, over.later.pauses], [2, ['logdirty', 'pause'], 1]);
  });
});
