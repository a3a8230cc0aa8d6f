/** Writes those inputs of a target in TypeScript that reach what no smaller one does: minimise.js NAME FOLDER. */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Coverage } from './coverage.js';

const coverage = new Coverage();
const { targets } = await import('./targets.js');
const { inputsIn, judge, placesOf } = await import('./target.js');
const [name = '', folder = ''] = process.argv.slice(2);
const target = targets[name];
if (!target) throw new Error(`no target ${name}`);
// What every run makes of itself need not be kept.
for (const seed of await target.seeds()) await judge(target, seed);
coverage.note(coverage.take());
const { kept, grown } = placesOf(name);
for (const input of [...inputsIn(kept), ...inputsIn(grown)].sort((a, b) => a.length - b.length)) {
  await judge(target, input);
  const reached = coverage.take();
  if (!coverage.isNew(reached)) continue;
  coverage.note(reached);
  writeFileSync(join(folder, createHash('sha256').update(input).digest('hex').slice(0, 16)), input);
}
