// What `npm install` of the packed project runs: builds the addon from the sources in the package, for this Node.js and, where
// libxen-dev is installed, for Xen; and compiles the programs ahead. In a clone the programs are not there yet.
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildAddon } from './addon.mjs';
import { writeCodeCaches } from './code_cache.mjs';
import { need } from './needs.mjs';

const bundled = join(dirname(fileURLToPath(import.meta.url)), '../dist/bundle');

need(['build']);
buildAddon();
if (existsSync(bundled)) writeCodeCaches(bundled);
