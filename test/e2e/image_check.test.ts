import assert from 'node:assert/strict';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { packageRoot } from '../../src/addon.js';
import { engine } from '../../src/cli/services.js';
import { pageBytes } from '../../src/pfn/page_words.js';
import { cli, services, type Ran } from '../support/cli.js';
import { FakeHost } from '../support/fake_host.js';
import { tempDir } from '../support/images.js';
import { writeIncrement } from '../support/chains.js';
import { page, pvhDomain, random, writeImage } from '../support/images.js';

const { checkImage } = engine;
const check = (path: string, ...more: string[]): Promise<Ran> =>
  cli(services(new FakeHost([]), { checkImage }), ['image', 'check', path, ...more]);

async function assertFinding(path: string, code: string): Promise<void> {
  const { exitCode, stdout, stderr } = await check(path, '--json');
  assert.equal(exitCode, 3, stderr);
  const told = JSON.parse(stdout) as { restorable: boolean; signer: null; findings: { code: string }[] };
  assert.deepEqual([told.restorable, told.signer], [false, null]);
  assert.deepEqual(
    told.findings.map((one) => one.code),
    [code],
  );
  const text = await check(path);
  assert.equal(text.exitCode, 3);
  assert.match(text.stdout, new RegExp(`CANNOT BE RESTORED, 1 finding\n${code}: `, 'u'));
}

test('whatever is wrong with an image is a finding of image check', async (t) => {
  const dir = tempDir(t);
  const path = join(dir, 'a.dmi');
  const whole = readFileSync(join(packageRoot, 'test/golden/format-1.0.dormouse'));
  const flipped = Buffer.from(whole);
  flipped[whole.length - 100] = 1 ^ (whole[whole.length - 100] ?? 0);
  for (const bytes of [flipped, whole.subarray(0, -pageBytes), Buffer.alloc(5), Buffer.alloc(0)]) {
    writeFileSync(path, bytes);
    await assertFinding(path, 'IMAGE_DAMAGED');
  }
  const child = join(dir, 'c.dmi');
  const pages = Array.from({ length: 8 }, (_, pfn) => page(pfn, random(pfn + 1)));
  await writeImage(join(dir, 'p.dmi'), 8, [pages], {}, { domain: pvhDomain });
  await writeIncrement(child, join(dir, 'p.dmi'), 8, [{ pfn: 0, pageClass: 'zero', type: 0, body: null }]);
  renameSync(join(dir, 'p.dmi'), join(dir, 'elsewhere.dmi'));
  await assertFinding(child, 'IMAGE_NOT_FOUND');
  assert.equal((await check(join(dir, 'nothing.dmi'), '--json')).exitCode, 10);
});
