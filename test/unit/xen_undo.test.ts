/**
 * What the real watcher undoes, over a Xen and a xenstored that are files (test/support/fake_xen.c). Where it is not built, or
 * there is no compiler, there is nothing to test.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { before, after, describe, test, type TestContext } from 'node:test';
import { tmpdir } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { compileFakeXen, noFakeXen, watcherProgram, xenAddon } from '../support/built_xen.js';
import { until } from '../support/hosts.js';
import { page, random, tempDir, writeImage } from '../support/images.js';

const uuid = '01234567-89ab-cdef-0123-456789abcdef';
const control = 'local,domain,5,control,shutdown';
const asked = 'local,domain,5,dormouse,suspend';

describe('what the watcher undoes', { skip: noFakeXen }, () => {
  let built: string;
  before(() => {
    built = mkdtempSync(join(tmpdir(), 'dormouse-fake-xen-'));
    compileFakeXen(join(built, 'xen.so'));
    writeFileSync(join(built, 'saver.c'), 'int pause(void);\nint main(void) { for (;;) pause(); }\n');
    execFileSync('cc', [join(built, 'saver.c'), '-o', join(built, 'saver')]);
    const xl = '#!/bin/sh\n[ ! -e "$FAKE_XEN/xl fails" ] || exit 1\necho "xl $*" >> "$FAKE_XEN/calls"\n';
    writeFileSync(join(built, 'xl'), xl, { mode: 0o755 });
  });
  after(() => rmSync(built, { recursive: true, force: true }));

  /** A domain whose verb died and left this journal. */
  class Scene {
    readonly dir: string;
    readonly run: string;

    constructor(t: TestContext, journal: readonly string[], state: Readonly<Record<string, string>> = {}) {
      this.dir = tempDir(t);
      this.run = join(this.dir, 'run');
      for (const path of [this.run, join(this.dir, 'store')]) mkdirSync(path);
      const files = { uuid, pauses: '', calls: '', ...state };
      for (const [file, text] of Object.entries(files)) this.write(file, text);
      writeFileSync(join(this.run, '5.lock'), `${2 ** 22 + 1} 1 ${uuid} save\n`);
      writeFileSync(join(this.run, '5.journal'), journal.map((line) => `${line}\n`).join(''));
    }

    write(file: string, text: string): void {
      writeFileSync(join(this.dir, file), text);
    }

    undo(): { status: number | null; said: string } {
      const path = `${built}:${process.env.PATH ?? ''}`;
      const env = { ...process.env, FAKE_XEN: this.dir, LD_PRELOAD: join(built, 'xen.so'), PATH: path };
      const done = spawnSync(watcherProgram, ['undo', this.run, '5'], { encoding: 'utf8', env });
      return { status: done.status, said: done.stdout + done.stderr };
    }

    /** Runs the host over it. */
    work(): Record<string, string> {
      const script = fileURLToPath(new URL('../support/xen_on_files.js', import.meta.url));
      const env = { ...process.env, FAKE_XEN: this.dir, LD_PRELOAD: join(built, 'xen.so') };
      const args = [script, xenAddon, watcherProgram, this.run];
      return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8', env })) as Record<
        string,
        string
      >;
    }

    read(file: string): string {
      return readFileSync(join(this.dir, file), 'utf8');
    }

    has(file: string): boolean {
      return existsSync(join(this.dir, file));
    }

    assertDone({ status, said }: { status: number | null; said: string }, calls: readonly string[]): void {
      assert.equal(status, 0, said);
      assert.deepEqual(readdirSync(this.run), []);
      assert.deepEqual(this.read('calls').split('\n').slice(0, -1), calls);
    }
  }

  /** Another toolstack's helper at work on the domain. */
  async function startSaver(t: TestContext): Promise<ChildProcess> {
    const saver = spawn(join(built, 'saver'), ['--save-domain', '9', '8', '5'], { stdio: 'ignore' });
    t.after(async () => {
      saver.kill('SIGKILL');
      await once(saver, 'exit');
    });
    await until('it has started', 5000, () =>
      readFileSync(`/proc/${saver.pid}/cmdline`, 'utf8').includes('--save-domain'),
    );
    return saver;
  }

  test('one that is half rewound stays paused, whatever else is undone', (t) => {
    const left = new Scene(t, ['logdirty', 'pause'], { pauses: 'p' });
    writeFileSync(join(left.run, '5.rewinding'), uuid);
    const { status, said } = left.undo();
    assert.equal(status, 0, said);
    assert.match(said, /left it paused: it is half rewound/);
    assert.equal(left.read('pauses'), 'p');
    assert.equal(left.read('calls'), 'log off\n');
    assert.deepEqual(readdirSync(left.run), ['5.rewinding'], 'the mark stays, the lease is over');
    const other = new Scene(t, ['pause'], { pauses: 'p' });
    writeFileSync(join(other.run, '5.rewinding'), uuid.replace('0', 'f'));
    assert.equal(other.undo().status, 0);
    assert.equal(other.read('pauses'), '', 'a mark of another domain of that id says nothing');
  });

  test('a guest that was suspended is resumed; a request that was not taken is withdrawn', (t) => {
    const gone = new Scene(t, ['suspend 0a', 'suspended'], { suspended: '', [`store/${asked}`]: '0a' });
    gone.assertDone(gone.undo(), ['resume']);
    const waiting = new Scene(t, ['suspend 0a'], {
      [`store/${asked}`]: '0a',
      [`store/${control}`]: 'suspend',
    });
    waiting.assertDone(waiting.undo(), []);
    assert.equal(waiting.read(`store/${control}`), '');
    assert.ok(!waiting.has(`store/${asked}`), 'as if never asked');
  });

  test('a request that xenstored does after its maker died is withdrawn as well', (t) => {
    const scene = new Scene(t, ['suspend 0a'], { 'on its way': '0a' });
    scene.assertDone(scene.undo(), []);
    assert.equal(scene.read(`store/${control}`), '');
    assert.ok(!scene.has(`store/${asked}`));
  });

  test('a request that was withdrawn before, by whoever died then, is not waited for', (t) => {
    const scene = new Scene(t, ['suspend 0a'], { [`store/${control}`]: '' });
    scene.assertDone(scene.undo(), []);
  });

  test('one that took its request and suspends late is waited for, named, and resumed', async (t) => {
    const scene = new Scene(t, ['logdirty', 'suspend 0a'], {
      log: '',
      [`store/${asked}`]: '0a',
      [`store/${control}`]: '',
    });
    const { status, said } = scene.undo();
    assert.equal(status, 4, said);
    assert.match(said, /is resumed as soon as it has suspended/);
    assert.equal(
      readFileSync(join(scene.run, '5.journal'), 'utf8'),
      'suspend 0a\n',
      'what is done is struck',
    );
    assert.equal(scene.undo().status, 4, 'the next verb is told too');
    scene.write('suspended', '');
    await until('it is resumed', 5000, () => !scene.has('suspended'));
    await until('the lease ends', 5000, () => readdirSync(scene.run).length === 0);
    assert.deepEqual(scene.read('calls'), 'log off\nresume\n');
  });

  test('whoever would wait and comes when all is done leaves nothing behind', async (t) => {
    const scene = new Scene(t, ['suspend 0a'], { [`store/${asked}`]: '0a', [`store/${control}`]: '' });
    assert.equal(scene.undo().status, 4);
    scene.write('late watcher', '');
    assert.equal(scene.undo().status, 4);
    scene.write('suspended', '');
    await until('the lease ends', 5000, () => !readdirSync(scene.run).includes('5.lock'));
    await sleep(1500);
    assert.deepEqual(readdirSync(scene.run), []);
  });

  test('a suspension that is not ours stays', async (t) => {
    const neverAsked = new Scene(t, ['suspend 0a'], { suspended: '', [`store/${asked}`]: '0b' });
    neverAsked.assertDone(neverAsked.undo(), []);
    const goesOn = new Scene(t, ['suspend 0a', 'suspended'], {
      [`store/${asked}`]: '0a',
      [`store/${control}`]: 'suspend',
    });
    goesOn.assertDone(goesOn.undo(), []);
    assert.equal(goesOn.read(`store/${control}`), 'suspend', "somebody else's request");
    await startSaver(t);
    const saved = new Scene(t, ['suspend 0a', 'suspended'], { suspended: '', [`store/${asked}`]: '0a' });
    saved.assertDone(saved.undo(), []);
  });

  test('a dirty log is ended, but not one that another tool has taken over', async (t) => {
    const ours = new Scene(t, ['logdirty'], { log: '' });
    ours.assertDone(ours.undo(), ['log off']);
    await startSaver(t);
    const theirs = new Scene(t, ['logdirty'], { log: '' });
    theirs.assertDone(theirs.undo(), []);
    assert.ok(theirs.has('log'));
  });

  test("our pause is taken back, and the operator's stays", (t) => {
    const ours = new Scene(t, ['pause'], { pauses: '.' });
    ours.assertDone(ours.undo(), ['unpause']);
    const notMade = new Scene(t, ['pause over'], { pauses: '.' });
    notMade.assertDone(notMade.undo(), ['unpause', 'pause']);
    assert.equal(notMade.read('pauses'), '.');
    const made = new Scene(t, ['pause over'], { pauses: '..' });
    made.assertDone(made.undo(), ['unpause']);
    assert.equal(made.read('pauses'), '.');
  });

  test('what cannot be undone keeps nothing else from it, and is done the next time', (t) => {
    const scene = new Scene(t, ['logdirty', 'pause', 'suspend 0a', 'suspended'], {
      ...{ log: '', 'log stays': '', pauses: '.', suspended: '', [`store/${asked}`]: '0a' },
    });
    const { status } = scene.undo();
    assert.ok(status !== 0 && status !== null);
    assert.equal(scene.read('calls'), 'unpause\nresume\n');
    rmSync(join(scene.dir, 'log stays'));
    scene.write('calls', '');
    scene.assertDone(scene.undo(), ['log off']);
  });

  test('what is not that image, whatever has its name, keeps no guest suspended', async (t) => {
    const dir = tempDir(t);
    const at = (name: string): string => join(dir, name);
    const { imageId } = await writeImage(at('image'), 1, [[page(0, random(1))]]);
    execFileSync('mkfifo', [at('fifo')]);
    mkdirSync(at('folder'));
    symlinkSync('loop', at('loop'));
    const other = imageId.replace(/./, (digit) => (digit === '0' ? '1' : '0'));
    const saved = { [`store/${asked}`]: '0a', suspended: '' };
    for (const name of ['fifo', 'folder', 'loop', 'image/below', 'none', 'image'])
      for (const then of ['destroy', 'pause']) {
        const decides = `saved ${then} ${other} ${at(name)}`;
        const scene = new Scene(t, ['suspend 0a', 'suspended', decides], saved);
        scene.assertDone(scene.undo(), ['resume']);
      }
    const there = new Scene(t, ['suspend 0a', 'suspended', `saved destroy ${imageId} ${at('image')}`], saved);
    there.assertDone(there.undo(), ['xl destroy 5']);
  });

  test('where the image cannot be read, what does not depend on it is undone, and the guest stands', (t) => {
    const decides = `saved destroy ${'0'.repeat(32)} /proc/self/mem`;
    const state = { log: '', pauses: '.', [`store/${asked}`]: '0a' };
    const suspended = ['suspend 0a', 'suspended', decides];
    const scene = new Scene(t, ['logdirty', 'pause', ...suspended], { ...state, suspended: '' });
    const { status, said } = scene.undo();
    assert.equal(status, 1, said);
    assert.match(said, /cannot be told: Input\/output error/);
    assert.equal(scene.read('calls'), 'log off\nunpause\n');
    assert.ok(scene.has('suspended'));
    const left = readFileSync(join(scene.run, '5.journal'), 'utf8');
    assert.equal(left, suspended.map((line) => `${line}\n`).join(''));
    // Here nothing but the pause keeps it from running beside its image.
    const paused = new Scene(t, ['logdirty', 'pause', decides], state);
    assert.equal(paused.undo().status, 1);
    assert.equal(paused.read('calls'), 'log off\n');
    const gone = new Scene(t, suspended);
    rmSync(join(gone.dir, 'uuid'));
    gone.assertDone(gone.undo(), []);
  });

  test('a domain id that is another domain by now is left alone', (t) => {
    const other = uuid.replace('0', '1');
    const scene = new Scene(t, ['logdirty', 'pause', 'destroy'], { uuid: other, log: '', pauses: '.' });
    scene.assertDone(scene.undo(), []);
  });

  test('what was to be destroyed is, and a failure of xl is told', (t) => {
    const scene = new Scene(t, ['destroy', 'pause'], { pauses: '.' });
    scene.assertDone(scene.undo(), ['xl destroy 5']);
    const failing = new Scene(t, ['destroy'], { 'xl fails': '' });
    assert.notEqual(failing.undo().status, 0);
    assert.equal(readFileSync(join(failing.run, '5.journal'), 'utf8'), 'destroy\n');
  });

  test('of a build, what is paused is removed; what was there before or runs stays', async (t) => {
    const half = new Scene(t, ['build'], { pauses: '.' });
    half.assertDone(half.undo(), ['xl destroy 5']);
    const before = new Scene(t, ['build', 'was 5'], { pauses: '.' });
    before.assertDone(before.undo(), []);
    // xl lets a domain go and then ends.
    const builder = spawn(join(built, 'saver'), [], { stdio: 'ignore', detached: true });
    const ended = once(builder, 'exit');
    const started = (readFileSync(`/proc/${builder.pid}/stat`, 'utf8').split(') ')[1] ?? '').split(' ')[19];
    const runs = new Scene(t, ['build', `group ${builder.pid} ${started}`]);
    runs.assertDone(runs.undo(), []);
    await ended;
    assert.equal(builder.signalCode, 'SIGKILL');
  });

  test('the host: what it notes when; a log that is on stays on', (t) => {
    const scene = new Scene(t, []);
    rmSync(scene.run, { recursive: true });
    const { journal = '', ...seen } = scene.work();
    const done = 'done';
    assert.match(journal, /^suspend [0-9a-f]{16}\nsuspended\n$/);
    assert.equal(journal.split(/[ \n]/)[1], scene.read(`store/${asked}`));
    assert.deepEqual(seen, {
      suspend: done,
      resume: done,
      paused: done,
      unpaused: done,
      afterwards: '',
      log: done,
      foreignLog: 'LOCKED untouched',
      release: done,
      endedLease: 'INTERNAL unknown',
      successor: 'pause\n',
    });
    const calls = ['resume', 'pause', 'unpause', 'pause', 'unpause'];
    scene.assertDone({ status: 0, said: '' }, calls);
    assert.ok(scene.has('log'));
  });

  test('the host: a guest that takes the request and does not suspend is left to be waited for', async (t) => {
    const scene = new Scene(t, [], { late: '' });
    rmSync(scene.run, { recursive: true });
    const seen = scene.work();
    assert.equal(seen['suspend'], 'SUSPEND_TIMEOUT unknown');
    assert.equal(seen['release'], 'SUSPEND_TIMEOUT unknown');
    assert.equal(readFileSync(join(scene.run, '5.journal'), 'utf8'), seen['journal']);
    scene.write('suspended', '');
    await until('it is resumed', 5000, () => !scene.has('suspended'));
    await until('the lease ends', 5000, () => readdirSync(scene.run).length === 0);
  });
});
