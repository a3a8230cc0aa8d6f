/** Keys of hosts: made once, kept from others, trusted and forgotten. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { isSignedBy } from '../../src/image/signature.js';
import { imageSigner, KeyStore } from '../../src/trust/key_store.js';
import { keyLine, keyText, parseKey } from '../../src/trust/key_text.js';
import { tempDir } from '../support/images.js';

const invalid = { code: 'KEY_INVALID' };

test('a host has one key, mode 0600, that signs roots', (t) => {
  const folder = join(tempDir(t), 'a/b');
  const store = new KeyStore(folder);
  assert.equal(store.find(), null);
  const own = store.identity();
  assert.equal(statSync(join(folder, 'host.key')).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(folder), ['host.key']);
  assert.ok(new KeyStore(folder).identity().key.equals(own.key));
  const root = Buffer.alloc(32, 7);
  const signer = own.signRoot(root);
  assert.ok(isSignedBy(root, signer));
  assert.ok(!isSignedBy(Buffer.alloc(32, 8), signer));
  assert.ok(store.isTrusted(own.key));
});

test('of many that make the key at once all have the same one', async (t) => {
  const folder = join(tempDir(t), 'keys');
  const module = new URL('../../src/trust/key_store.js', import.meta.url).href;
  const script = `const { KeyStore } = await import(${JSON.stringify(module)});
    process.stdout.write(new KeyStore(${JSON.stringify(folder)}).identity().key.toString('hex'))`;
  const keys = await Promise.all(
    Array.from({ length: 8 }, async () => {
      const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let said = '';
      child.stdout.on('data', (bytes: Buffer) => (said += bytes.toString()));
      const [code] = (await once(child, 'close')) as [number];
      assert.equal(code, 0);
      return said;
    }),
  );
  assert.equal(new Set(keys).size, 1);
  assert.equal(keys[0], new KeyStore(folder).find()?.key.toString('hex'));
  assert.deepEqual(readdirSync(folder), ['host.key']);
});

test('a key that others may read or change is refused, and what is no key', (t) => {
  const folder = join(tempDir(t), 'keys');
  const store = new KeyStore(folder);
  const path = join(folder, 'host.key');
  store.identity();
  for (const mode of [0o640, 0o604, 0o660]) {
    chmodSync(path, mode);
    assert.throws(() => store.find(), invalid, mode.toString(8));
    assert.throws(() => store.isTrusted(Buffer.alloc(32)), invalid);
  }
  chmodSync(path, 0o600);
  chmodSync(folder, 0o777);
  assert.throws(() => store.find(), invalid);
  chmodSync(folder, 0o700);
  writeFileSync(path, 'nonsense');
  assert.throws(() => store.find(), invalid);
  const linked = new KeyStore(join(tempDir(t), 'linked'));
  mkdirSync(linked.folder, { mode: 0o700 });
  symlinkSync(path, join(linked.folder, 'host.key'));
  assert.throws(() => linked.find(), invalid);
});

test('another key is trusted until it is forgotten', (t) => {
  const [store, other] = ['a', 'b'].map((name) => new KeyStore(join(tempDir(t), name)));
  assert.ok(store && other);
  const { key } = other.identity();
  assert.equal(store.isTrusted(key), false);
  assert.equal(store.trust({ key, label: 'the other' }), true);
  assert.equal(store.trust({ key, label: 'again' }), false);
  assert.deepEqual(store.trusted(), [{ key, label: 'the other' }]);
  assert.equal(store.isTrusted(key), true);
  const path = join(store.folder, 'trusted', key.toString('hex'));
  const held = readFileSync(path, 'utf8');
  chmodSync(path, 0o666);
  assert.throws(() => store.isTrusted(key), invalid);
  chmodSync(path, 0o644);
  writeFileSync(path, keyLine({ key: Buffer.alloc(32, 1), label: '' }));
  assert.throws(() => store.isTrusted(key), invalid);
  writeFileSync(path, held);
  assert.equal(store.forget(key), true);
  assert.equal(store.forget(key), false);
  assert.equal(store.isTrusted(key), false);
});

test('keys as text: the line of key show, or base64 alone', () => {
  const key = Buffer.alloc(32, 5);
  const line = keyLine({ key, label: 'web host' });
  assert.equal(line, `dormouse-ed25519 ${keyText(key)} web host`);
  assert.deepEqual(parseKey(`${line}\n`), { key, label: 'web host' });
  assert.deepEqual(parseKey(keyText(key)), { key, label: '' });
  for (const wrong of ['', 'AAAA', keyText(Buffer.alloc(31)), `ssh-ed25519 ${keyText(key)}`, `${line}\u0007`])
    assert.equal(parseKey(wrong), null, wrong);
});

test('a label that could not be read back is refused, and a damaged file can be forgotten', (t) => {
  const store = new KeyStore(join(tempDir(t), 'keys'));
  const key = randomBytes(32);
  for (const label of ['a\nb', 'x'.repeat(129), ' blank'])
    assert.throws(() => store.trust({ key, label }), { code: 'KEY_INVALID' });
  assert.ok(store.trust({ key, label: 'fine' }));
  writeFileSync(join(store.folder, 'trusted', key.toString('hex')), 'no key at all');
  assert.match(store.trusted()[0]?.label ?? '', /not trusted/u);
  assert.throws(() => store.isTrusted(key), { code: 'KEY_INVALID' });
  assert.ok(store.forget(key));
  assert.deepEqual(store.trusted(), []);
});

test('a folder that cannot be looked into is KEY_INVALID, and images are not signed', (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'file'), '');
  const locked = join(dir, 'locked');
  mkdirSync(locked, { mode: 0 });
  // Root may look into each folder.
  const folders = [join(dir, 'file/dormouse'), ...(process.geteuid?.() === 0 ? [] : [join(locked, 'a')])];
  for (const folder of folders) {
    const store = new KeyStore(folder);
    assert.throws(() => store.find(), invalid);
    assert.throws(() => store.trusted(), invalid);
    assert.throws(() => store.identity(), invalid);
    assert.throws(() => store.isTrusted(Buffer.alloc(32, 1)), invalid);
    const before = process.env.DORMOUSE_KEY_DIR;
    process.env.DORMOUSE_KEY_DIR = folder;
    const said: string[] = [];
    assert.equal(
      imageSigner((text) => said.push(text)),
      null,
    );
    if (before === undefined) delete process.env.DORMOUSE_KEY_DIR;
    else process.env.DORMOUSE_KEY_DIR = before;
    assert.match(said.join(), /^the image will not be signed: .* cannot be looked into: E/u);
  }
});
