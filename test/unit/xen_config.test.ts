/** The configuration libxl tells of a domain, and what becomes of an xl that tells nothing. */
import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { configOf } from '../../src/host/xen/domain_config.js';
import { xl } from '../../src/host/xen/xl.js';
import { tempDir } from '../support/images.js';

test('the configuration is that of the domain asked for, without its domid', () => {
  const config = { c_info: { type: 'pv', domid: 3, name: 'g' }, b_info: { avail_vcpus: [0] }, disks: [] };
  const listed = JSON.stringify([
    { domid: 2, config: {} },
    { domid: 3, config },
  ]);
  const text = configOf(listed, 3) ?? '';
  assert.deepEqual(JSON.parse(text), { ...config, c_info: { type: 'pv', name: 'g' } });
  assert.match(text, /^\{\n {4}"c_info": \{\n[^]*\}\n$/);
  assert.equal(configOf(listed, 4), null);
  assert.equal(configOf('[\n\n]\n', 3), null);
});

/** An xl that does what the script says, first in the path until the test ends. */
function fakeXl(t: TestContext, script: string): void {
  const dir = tempDir(t);
  const path = join(dir, 'xl');
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  const before = process.env.PATH;
  process.env.PATH = `${dir}:${before}`;
  t.after(() => (process.env.PATH = before));
}

test('an xl that waits for libxl to let go of a domain is ended, and the domain is said to be locked', async (t) => {
  fakeXl(t, 'exec sleep 60');
  const begun = performance.now();
  await assert.rejects(xl(['list', '-l', '7'], { timeoutMs: 100, place: { domid: 7 } }), {
    code: 'LOCKED',
    guest: 'untouched',
    place: { domid: 7 },
  });
  assert.ok(performance.now() - begun < 20_000);
});

test('what xl says is the error, of the kind asked for', async (t) => {
  fakeXl(t, 'echo no such thing >&2; exit 1');
  await assert.rejects(xl(['destroy', '7']), {
    code: 'DOMAIN_WRONG_STATE',
    message: 'xl destroy: no such thing',
  });
  await assert.rejects(xl(['create', 'x'], { code: 'CONFIG_INVALID' }), { code: 'CONFIG_INVALID' });
  process.env.PATH = '/nonexistent';
  await assert.rejects(xl(['list']), { code: 'HOST_LACKS', message: /apt-get install/ });
});
