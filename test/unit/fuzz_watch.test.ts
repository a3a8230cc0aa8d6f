/** The fuzzer itself: what it is told on its command line, and that inputs which hang, swell or end the process are found. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Coverage } from '../fuzz/coverage.js';
import { generator, inputOf } from '../fuzz/mutate.js';
import { fuzzScript, type Outcome } from '../fuzz/script.js';
import { judge, placesOf } from '../fuzz/target.js';
import { tempDir } from '../support/images.js';

const main = fileURLToPath(new URL('../fuzz/main.js', import.meta.url));

test('bad options are told and end with 2', () => {
  for (const [args, said] of [
    [['--seconds', '0'], /--seconds is a whole number from 1 to 1000000, not '0'\nusage: /],
    [['--seconds', '1.5'], /--seconds is a whole number/],
    [['--executions', 'many'], /--executions is a whole number from 1 to 1000000000, not 'many'/],
    [['--target', 'nothing'], /no target 'nothing'/],
    [['--quickly'], /'--quickly'[^]*usage: /],
    [['manifest'], /manifest/],
  ] as const) {
    const { status, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' });
    assert.equal(status, 2, stderr);
    assert.match(stderr, said);
  }
  assert.match(spawnSync(process.execPath, [main, '--help'], { encoding: 'utf8' }).stdout, /--target NAME/);
});

test('a target ends at as many executions as it is told', () => {
  const args = ['--executions', '300', '--target', 'key'];
  const { status, stdout } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' });
  assert.equal(status, 0);
  assert.match(stdout, /^fuzz: 1 targets, 300 executions each, /m);
  const [, executions = '0', seconds = '99'] = /key +(\d+) executions in ([\d.]+) s/.exec(stdout) ?? [];
  assert.ok(Number(executions) >= 300 && Number(seconds) < 20, stdout);
});

/** What is said of a process that tries "bad" and then does this. */
async function outcomeOf(t: TestContext, does: string): Promise<Outcome & { kept: string }> {
  const name = `test-${process.pid}`;
  t.after(() => rmSync(join(placesOf(name).found, '..'), { recursive: true, force: true }));
  const program = join(tempDir(t), 'child.mjs');
  const head = Buffer.alloc(19);
  head.writeBigUInt64LE(7n, 0);
  head.writeBigUInt64LE(3n, 8);
  head.write('bad', 16);
  const tries = `import { writeFileSync } from 'node:fs';
writeFileSync(process.argv[6], Buffer.from('${head.toString('hex')}', 'hex'));\n`;
  writeFileSync(program, tries + does);
  const outcome = await fuzzScript(name, { seconds: 1, executions: 1000, seed: 1 }, program);
  const kept = outcome.found === null ? '' : readFileSync(outcome.found.split('\n')[0] ?? '', 'utf8');
  return { ...outcome, kept };
}

test('an input that hangs is found after 5 s, and kept', async (t) => {
  const { found, kept, executions } = await outcomeOf(t, 'for (;;);');
  assert.match(found ?? '', /more than 5000 ms/);
  assert.deepEqual([kept, executions], ['bad', 7]);
});

test('so is one that takes a GiB of memory', async (t) => {
  const takes = 'const all = Buffer.alloc(1200 << 20, 1);\nsetInterval(() => all.length, 1000);';
  const { found, kept } = await outcomeOf(t, takes);
  assert.match(found ?? '', /MiB of memory/);
  assert.equal(kept, 'bad');
});

test('and one that ends the process', async (t) => {
  const { found, kept } = await outcomeOf(
    t,
    "process.kill(process.pid, 'SIGSEGV'); setTimeout(() => {}, 9999);",
  );
  assert.match(found ?? '', /SIGSEGV/);
  assert.equal(kept, 'bad');
  assert.equal(
    (await outcomeOf(t, 'console.log(\'{"executions":9,"seconds":1,"wrong":null}\')')).found,
    null,
  );
});

test('any error that is not in the list of a target is told', async () => {
  const target = (run: () => void) => ({ codes: [], seeds: () => [], run });
  const nothing = Buffer.alloc(0);
  assert.equal(
    await judge(
      target(() => undefined),
      nothing,
    ),
    null,
  );
  assert.match(
    (await judge(
      target(() => assert.fail('of another opinion')),
      nothing,
    )) ?? '',
    /of another opinion/,
  );
});

test('inputs follow from their seed', () => {
  const corpus = ['a first', 'and a second input'].map((text) => Buffer.from(text));
  const some = (seed: number): string[] => {
    const next = generator(seed);
    return Array.from({ length: 50 }, () => inputOf(corpus, next).toString('hex'));
  };
  assert.deepEqual(some(3), some(3));
  assert.notDeepEqual(some(3), some(4));
});

test('code that was not reached before is new, and noted only once', async () => {
  const coverage = new Coverage();
  const { withoutTrailingNuls } = await import('../../src/domain/trailing_nuls.js');
  const { formatBytes } = await import('../../src/render/units.js');
  coverage.note(coverage.take());
  withoutTrailingNuls('a\0');
  formatBytes(1);
  const reached = coverage.take();
  assert.ok(coverage.isNew(reached));
  coverage.note(reached);
  formatBytes(1);
  assert.ok(!coverage.isNew(coverage.take()));
});
