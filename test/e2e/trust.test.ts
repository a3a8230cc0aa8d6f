/** What an image may bring to a host: unsigned, signed here, signed elsewhere; and what stands against a restore. */
import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { convertToXen } from '../../src/convert/to_xen.js';
import { digestImage } from '../../src/digest/digest.js';
import { save } from '../../src/save/save.js';
import { frameConfig, standardStream } from '../../src/xenstream/standard_stream.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { command, documentOf, errorOf, failure } from '../support/command.js';
import { forgeManifest, withConfig } from '../support/forge_manifest.js';
import { bootGuest } from '../support/guests.js';
import { harmlessConfig, hostileConfigs, hostileText } from '../support/hostile_configs.js';
import { guestSpec, startTestHost } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { livelyPlan } from '../support/interrupt.js';

const host = ['--host', 'embedded:test'];
const uuid = '01234567-89ab-4def-8123-456789abcdef';
const script = '/images/script';
const harmless = harmlessConfig('pv', { name: 'guest', uuid, kib: 65_536 });
const hostile = JSON.stringify({ ...harmless, disks: [{ pdev_path: '/dev/sda', vdev: 'xvda', script }] });

/** Other keys than those of the other tests, until this one ends. */
function useKeys(t: TestContext, folder: string): void {
  const before = process.env.DORMOUSE_KEY_DIR;
  process.env.DORMOUSE_KEY_DIR = folder;
  t.after(() => {
    if (before === undefined) delete process.env.DORMOUSE_KEY_DIR;
    else process.env.DORMOUSE_KEY_DIR = before;
  });
}

/** An image of a guest that has ended. */
async function savedGuest(t: TestContext) {
  const [machine, dir] = [await startTestHost(t, { memoryMib: 512 }), tempDir(t)];
  useKeys(t, join(dir, 'keys'));
  t.after(closeWorkers);
  const image = join(dir, 'guest.dmi');
  await bootGuest(machine, 'guest', { ...livelyPlan, steps: 0 });
  await save(machine, 'guest', image, { then: 'destroy' });
  const restored = async (...args: string[]): Promise<void> => {
    const { domid } = await documentOf(t, 'restore', ['-p', ...args, ...host]);
    await machine.destroy(Number(domid));
  };
  const refused = async (...args: string[]): Promise<readonly string[]> => {
    const error = await failure(t, 'CONFIG_UNTRUSTED', 13, ['restore', ...args, ...host]);
    assert.deepEqual(await machine.list(), []);
    return error.details ?? [];
  };
  return { machine, dir, image, restored, refused };
}

test('an unsigned image whose configuration names things of the host is refused, with each of them', async (t) => {
  const { dir, image, restored, refused } = await savedGuest(t);
  forgeManifest(image, withConfig(JSON.stringify(harmless)));
  await restored(image);
  forgeManifest(image, withConfig(hostile));
  const files = readdirSync(dir);
  assert.deepEqual(await refused('-p', '--name', "o'hara", image), [
    'disks[0].pdev_path = "/dev/sda"',
    'disks[0].vdev = "xvda"',
    `disks[0].script = "${script}"`,
    `to restore it as it is: dormouse --host embedded:test restore --trust-config --paused --name 'o'\\''hara' ${image}`,
    `with a configuration of yours: dormouse --host embedded:test restore --config FILE --paused --name 'o'\\''hara' ${image}`,
  ]);
  const told = await command(t, 'restore', image, ...host);
  assert.match(
    told.stderr,
    /is not signed, and its configuration asks.*\n {2}disks\[0\]\.pdev_path = "\/dev\/sda"\n/,
  );
  const { findings, signer, restorable } = await documentOf(t, 'image check', [image, ...host], 3);
  assert.deepEqual([signer, restorable], ['unsigned', false]);
  assert.equal((findings as { code: string }[])[0]?.code, 'CONFIG_UNTRUSTED');
  await restored('--trust-config', image);
  const [json, cfg] = [join(dir, 'own.json'), join(dir, 'own.cfg')];
  writeFileSync(json, JSON.stringify(harmless));
  writeFileSync(cfg, 'name = "other"\nprogram = "idle"\n');
  await restored('--config', json, image);
  await restored('--config', cfg, image);
  await failure(t, 'CONFIG_INVALID', 2, ['restore', '--config', join(dir, 'absent'), image, ...host]);
  assert.deepEqual(readdirSync(dir).sort(), [...files, 'own.json', 'own.cfg'].sort());
});

test('a script and a name that is a path are refused', async (t) => {
  const { image, refused } = await savedGuest(t);
  for (const one of hostileConfigs('pv', script, '/dev/sda').slice(1, 3)) {
    forgeManifest(image, withConfig(hostileText(harmless, one)));
    assert.ok(
      (await refused(image)).some((line) => line.startsWith(one.listed)),
      one.name,
    );
  }
  forgeManifest(image, (manifest) => ({
    ...manifest,
    domain: { ...manifest.domain, name: '../a', config: '' },
  }));
  assert.match((await refused(image))[0] ?? '', /^name = "\.\.\/a"$/);
});

test('what this host signed is used as it is; elsewhere once its key is trusted, until it is forgotten', async (t) => {
  const { machine, dir, image, restored, refused } = await savedGuest(t);
  forgeManifest(image, withConfig(hostile));
  await command(t, 'restore', '--trust-config', image, ...host);
  const signed = join(dir, 'signed.dmi');
  await documentOf(t, 'save', ['guest', signed, ...host]);
  await restored(signed);
  const shown = await documentOf(t, 'image inspect', [signed]);
  const { key, line } = await documentOf(t, 'key show', []);
  assert.deepEqual([shown.signer, shown.signerKey], ['trusted', key]);

  process.env.DORMOUSE_KEY_DIR = join(dir, 'keys elsewhere');
  assert.equal((await documentOf(t, 'image inspect', [signed])).signer, 'unknown');
  const lines = await refused(signed);
  assert.equal(
    lines.at(-1),
    `to trust all that this key signs: dormouse key trust 'dormouse-ed25519 ${String(key)}'`,
  );
  const file = join(dir, 'there.pub');
  writeFileSync(file, `${String(line)}\n`);
  assert.equal((await documentOf(t, 'key trust', [file, '--label', 'there'])).added, true);
  const again = await documentOf(t, 'key trust', [String(line), '--label', 'another']);
  assert.deepEqual([again.added, again.label], [false, 'there'], 'a label stays');
  await restored(signed);
  const own = await documentOf(t, 'key show', []);
  const { keys } = await documentOf(t, 'key list', []);
  assert.deepEqual(keys, [
    { key: own.key, label: own.label, own: true },
    { key, label: 'there', own: false },
  ]);
  // A file of that name, which anybody may have put into the folder, says nothing.
  const before = process.cwd();
  process.chdir(dir);
  try {
    writeFileSync('there', `${String(own.line)}\n`);
    assert.equal((await documentOf(t, 'key forget', ['there'])).key, key);
    rmSync('there');
  } finally {
    process.chdir(before);
  }
  const unknown = await failure(t, 'KEY_INVALID', 1, ['key', 'forget', 'there']);
  assert.match(unknown.message, /no trusted key has the text, label or file 'there'/);
  await failure(t, 'KEY_INVALID', 1, ['key', 'forget', String(own.line)]);
  await refused(signed);

  process.env.DORMOUSE_KEY_DIR = join(dir, 'keys');
  const bent = join(dir, 'bent.dmi');
  copyFileSync(signed, bent);
  forgeManifest(bent, (manifest) => ({ ...manifest, tool: 'another' }));
  await refused(bent);
  assert.deepEqual(await machine.list(), []);
});

test('a file of xl save is signed by nobody: the same is said of it, and of an image made of it', async (t) => {
  const { dir, image, restored, refused } = await savedGuest(t);
  const [xl, made, own] = [join(dir, 'guest.xl'), join(dir, 'made.dmi'), join(dir, 'own.xl')];
  assert.deepEqual((await convertToXen(image, own)).notes, []);
  forgeManifest(image, withConfig(hostile));
  const { notes } = await convertToXen(image, xl);
  const asked = /nobody trusted signed it asks for disks\[0\]\.pdev_path = "\/dev\/sda", /;
  assert.match(notes.join(), asked);
  // What counts is what the file says, whatever the image says of its domain.
  const [hidden, twice] = [join(dir, 'hidden.xl'), join(dir, 'twice.xl')];
  const withFile = (config: string): void =>
    forgeManifest(image, (manifest) => {
      const harmlessly = withConfig(JSON.stringify(harmless))(manifest);
      const stream = standardStream(harmlessly);
      return {
        ...harmlessly,
        stream: { ...stream, xl: { ...stream.xl, optionalData: frameConfig(config) } },
      };
    });
  withFile(hostile);
  assert.match((await convertToXen(image, hidden)).notes.join(), asked);
  assert.ok(readFileSync(hidden).includes(script));
  withFile(`${hostile.slice(0, -1)},"disks":[]}`);
  assert.match((await convertToXen(image, twice)).notes.join(), /a field that is named twice/);
  forgeManifest(image, (manifest) => ({ ...manifest, stream: undefined }));
  forgeManifest(image, withConfig(hostile));
  const told = await command(t, 'restore', '--json', xl, ...host);
  assert.match(errorOf(told).message, /guest\.xl is a file of xl save, which nobody signs/);
  assert.equal((await refused(xl))[0], 'disks[0].pdev_path = "/dev/sda"');
  await documentOf(t, 'image check', [xl, ...host], 3);
  await documentOf(t, 'image check', ['--trust-config', xl, ...host]);
  await documentOf(t, 'image convert', [xl, made]);
  assert.equal((await documentOf(t, 'image inspect', [made])).signer, 'unsigned');
  await refused(made);
  await restored('--trust-config', xl);
  assert.equal((await digestImage(made)).digest, (await digestImage(image)).digest);
});

test('a key that others may read signs nothing, and the guest runs on', async (t) => {
  const { machine, dir } = await savedGuest(t);
  chmodSync(join(dir, 'keys', 'host.key'), 0o644);
  await bootGuest(machine, 'guest', { ...livelyPlan, steps: 0 });
  const error = await failure(t, 'KEY_INVALID', 1, ['save', 'guest', join(dir, 'no.dmi'), ...host]);
  assert.deepEqual([error.guest, error.place?.path], ['untouched', join(dir, 'keys', 'host.key')]);
  assert.match(error.message, /chmod 600/);
  assert.equal((await machine.find('guest')).shutdown, null);
  assert.ok(!readdirSync(dir).includes('no.dmi'));
});

test('what stands against a restore is said before a domain is made: name, memory, vCPUs', async (t) => {
  const { machine, dir, image } = await savedGuest(t);
  await documentOf(t, 'image check', [image, ...host]);
  await bootGuest(machine, 'guest', { ...livelyPlan, steps: 0 });
  const codes = async (...args: string[]): Promise<string[]> => {
    const { findings } = await documentOf(t, 'image check', [...args, ...host], 3);
    return (findings as { code: string }[]).map(({ code }) => code);
  };
  assert.deepEqual(await codes(image), ['DOMAIN_EXISTS']);
  await documentOf(t, 'image check', ['--name', 'other', image, ...host]);
  const { freeBytes } = await machine.status();
  await bootGuest(machine, 'hog', {
    ...livelyPlan,
    steps: 0,
    memoryMib: Math.floor(freeBytes / 2 ** 20) - 8,
  });
  assert.deepEqual(await codes(image), ['DOMAIN_EXISTS', 'NO_MEMORY']);
  assert.equal(
    (await failure(t, 'NO_MEMORY', 5, ['restore', '--name', 'other', image, ...host])).guest,
    'none',
  );
  assert.deepEqual((await machine.list()).map(({ name }) => name).sort(), ['guest', 'hog']);
  const wide = join(dir, 'wide.dmi');
  copyFileSync(image, wide);
  forgeManifest(wide, (manifest) => ({ ...manifest, domain: { ...manifest.domain, vcpus: 9 } }));
  assert.deepEqual(await codes('--name', 'other', wide), ['CONFIG_INVALID', 'NO_MEMORY']);
});

test('a second domain of one image gets a uuid of its own, and says so', async (t) => {
  const { machine, image } = await savedGuest(t);
  const uuids: string[] = [];
  for (const name of ['first', 'second']) {
    const { notes } = await documentOf(t, 'restore', ['-p', '--name', name, image, ...host]);
    const { uuid } = await machine.find(name);
    assert.deepEqual(
      notes,
      uuids.map(
        (taken) => `its uuid is ${uuid}, for that of the image, ${taken}, is the one of domain 'first'`,
      ),
    );
    uuids.push(uuid);
  }
  assert.equal(new Set(uuids).size, 2);
});

test('a guest whose online vCPUs are not the first ones is restored', async (t) => {
  const { machine, image } = await savedGuest(t);
  forgeManifest(image, (manifest) => {
    const [first, second] = manifest.state.vcpus;
    assert.ok(first && second && manifest.state.vcpus.length === 2);
    return { ...manifest, state: { ...manifest.state, vcpus: [first, { ...second, id: 3 }] } };
  });
  const { domid } = await documentOf(t, 'restore', ['-p', image, ...host]);
  const { vcpus } = await machine.readState(Number(domid));
  assert.deepEqual(
    vcpus.map(({ id }) => id),
    [0, 3],
  );
});

test('a name that stands for another domain is not given to a new one, made or restored', async (t) => {
  const { machine, image, restored } = await savedGuest(t);
  const other = guestSpec('victim');
  await machine.create(other, { paused: true });
  const refused = async (args: readonly string[], text: RegExp) => {
    const error = await failure(t, 'CONFIG_INVALID', 2, [...args, ...host]);
    assert.match(error.message, text);
    assert.deepEqual(
      (await machine.list()).map(({ name }) => name),
      ['victim'],
    );
    return error.details;
  };
  for (const name of ['4', other.uuid, other.uuid.toUpperCase()]) {
    await refused(['create', `name="${name}"`, 'memory=8'], /is no name for a domain/);
    await refused(['restore', '--name', name, image], /is no name for a domain/);
    const copy = `${image}.${name}`;
    copyFileSync(image, copy);
    forgeManifest(copy, (manifest) => ({ ...manifest, domain: { ...manifest.domain, name } }));
    const line = `to restore it under a name of yours: dormouse --host embedded:test restore --name NEW ${copy}`;
    assert.deepEqual(await refused(['restore', copy], /is no name for a domain/), [line]);
    const { findings } = await documentOf(t, 'image check', [copy, ...host], 3);
    assert.deepEqual(
      (findings as { code: string }[]).map(({ code }) => code),
      ['CONFIG_INVALID'],
    );
    await restored('--name', 'own', copy);
  }
});
