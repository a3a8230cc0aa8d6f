/** Puts a thing on a shelf in the folder that it is given and takes it away again, and prints `done` or what went wrong. */
import { Buffer } from 'node:buffer';
import { asDormouseError } from '../../src/errors.js';
import { FolderShelf } from '../../src/store/folder_shelf.js';

const [folder = ''] = process.argv.slice(2);
try {
  const shelf = new FolderShelf(folder);
  await shelf.putIfAbsent('thing', Buffer.from('what it is'));
  await shelf.delete('thing');
  process.stdout.write('done');
} catch (thrown) {
  process.stdout.write(asDormouseError(thrown).code);
}
