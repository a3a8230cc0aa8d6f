/** The shelves there are, and one of the tests, hold to the contract. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FolderShelf } from '../../src/store/folder_shelf.js';
import { Dice } from '../support/dice.js';
import { MemoryShelf, Things } from '../support/memory_shelf.js';
import { type FailingPlace, testFailures, testShelf } from '../support/shelf_contract.js';
import { SimulatedFiles } from '../support/simulated_files.js';

testShelf('a folder', (t) => {
  const root = mkdtempSync(join(tmpdir(), 'dormouse-shelf-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const dead = `.dead.0123456789ab.new`;
  const holder = { name: 'me', isDead: (name: string) => name === 'dead' };
  return {
    open: () => new FolderShelf(join(root, 'shelf'), undefined, holder),
    writeImage: async (shelf, name, bytes) => writeFileSync(await shelf.imagePath(name), bytes),
    fill: (path, bytes) => writeFileSync(path, bytes),
    leavePut: (folder) => {
      mkdirSync(join(root, 'shelf', folder), { recursive: true });
      writeFileSync(join(root, 'shelf', folder, dead), 'half of');
      return Promise.resolve();
    },
    leftPuts: () =>
      readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((path) => /(^|\/)\./u.test(path))
        .length,
  };
});

function onDyingDisk(): FailingPlace {
  const files = new SimulatedFiles();
  let died = 0;
  const open = (): FolderShelf => {
    const name = `life${died}`;
    const holder = { name, isDead: (other: string) => other.startsWith('life') && other !== name };
    return new FolderShelf('/shelf', files, holder);
  };
  const crash = (): void => {
    died++;
    files.revive(new Dice(died));
  };
  return {
    open,
    crash,
    writeImage: async (shelf, name, bytes) => files.writeUnnamed(await shelf.imagePath(name), bytes),
    fill: (path, bytes) => files.write(path, bytes),
    fail(how) {
      files.atStep = () => (how === null ? 'go on' : how === 'full' ? 'ENOSPC' : 'EIO');
    },
    async leavePut(folder) {
      const from = files.steps;
      files.atStep = (step) => (step === from + 5 ? 'crash' : 'go on');
      await open()
        .putIfAbsent(`${folder}/never`, Buffer.from('half of'))
        .catch(() => undefined);
      died++;
      files.revive(null);
    },
    leftPuts: () => files.paths().filter((path) => path.includes('/.')).length,
  };
}

testShelf('a folder on a disk that loses what is not synced', onDyingDisk);
testFailures('a folder on a disk that fails', onDyingDisk);

testShelf('memory', () => {
  const things = new Things();
  return {
    open: () => new MemoryShelf(things),
    writeImage: async (_shelf, name, bytes) => {
      await new MemoryShelf(things).putImage(name, { bytes });
    },
  };
});
