import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from './addon.js';

const { version: found } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as {
  version: string;
};

/** This program's own version, from package.json. */
export const version = found;
