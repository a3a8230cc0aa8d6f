// Writes beside each program that bin/ starts what V8 makes of it.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { moduleScript } from '../bin/start.mjs';

/** Programs of dist/bundle that bin/ starts. */
export const programs = ['dormouse', 'dormouse-save-helper'];

/**
 * The cache of each program in `folder`, functions included that run late or never: start.mjs hands it back, and a third of what
 * the program takes to start beside Node.js is saved. V8 refuses what another version of it wrote.
 */
export function writeCodeCaches(folder) {
  for (const name of programs) {
    const program = join(folder, `${name}.js`);
    setFlagsFromString('--no-lazy');
    const script = moduleScript(program);
    // The flags are part of what V8 compares.
    setFlagsFromString('--lazy');
    writeFileSync(`${program}.cache`, script.createCachedData());
  }
}
