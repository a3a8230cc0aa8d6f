/** A conversion that is killed, or finds no room, leaves nothing under any name. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { packageRoot } from '../../src/addon.js';
import { convertFromXen } from '../../src/convert/from_xen.js';
import { dataPage, fileOf, pvParts } from '../support/xen_stream.js';

const folder = mkdtempSync(join(tmpdir(), 'dormouse-convert-fault-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const modules = join(packageRoot, 'dist/src/convert');
const xl = join(folder, 'guest.xl');
const image = join(folder, 'guest.image');
const directions = [
  { script: 'from_xen.js', name: 'convertFromXen', from: xl },
  { script: 'to_xen.js', name: 'convertToXen', from: image },
] as const;

/** Runs one conversion in a process of its own, with files of at most `limitKib`; `each` runs at every progress. */
function convertInChild(direction: (typeof directions)[number], limitKib: string, each: string) {
  const script = `
    import { ${direction.name} as convert } from ${JSON.stringify(join(modules, direction.script))};
    const onProgress = ({ phase, donePages }) => { ${each} };
    const [from, to] = process.argv.slice(1);
    await convert(from, to, { onProgress, directIo: false }).then(
      () => console.log('done'),
      (error) => console.log(error.code + ' ' + error.guest),
    );`;
  const node = [process.execPath, '--input-type=module', '-e', script, direction.from, join(folder, 'out')];
  const shell = ['-c', 'ulimit -f "$1"; shift; exec "$@"', 'sh', limitKib, ...node];
  return spawnSync('bash', shell, { encoding: 'utf8', timeout: 30_000 });
}

test('setting up', async () => {
  const batches = Array.from({ length: 3 }, (_, i) =>
    Array.from({ length: 1024 }, (_page, k) => dataPage(i * 1024 + k, 1 + i * 1024 + k)),
  );
  writeFileSync(xl, fileOf(pvParts({ batches })));
  await convertFromXen(xl, image);
});

for (const direction of directions) {
  test(`${direction.name}: no room`, () => {
    for (const limitKib of ['64', '6000', '10000']) {
      const done = convertInChild(direction, limitKib, '');
      assert.equal(done.stdout, 'NO_SPACE untouched\n', done.stderr);
      assert.deepEqual(readdirSync(folder).sort(), ['guest.image', 'guest.xl']);
    }
  });

  test(`${direction.name}: killed at each phase`, () => {
    for (const phase of ['verify', 'pages', 'commit']) {
      const each = `if (phase === '${phase}') process.kill(process.pid, 'SIGKILL');`;
      const done = convertInChild(direction, 'unlimited', each);
      assert.equal(done.signal, 'SIGKILL', `${phase}: ${done.stdout}${done.stderr}`);
      assert.deepEqual(readdirSync(folder).sort(), ['guest.image', 'guest.xl']);
    }
  });
}
