import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sideBySide } from './extent.js';
import { startLab, type Lab } from './lab.js';
import { measureSideBySide } from './side_by_side.js';

const { sizesMib, types } = sideBySide;
const sizeBar = 0.4;

/** `npm run bench -- --xen` writes the figures of all sizes; here they are printed. */
describe('dormouse beside xl', () => {
  let lab: Lab;
  before(async () => {
    lab = await startLab({ memoryMib: 2048 + Math.max(...sizesMib), dom0Vcpus: 2 });
  });
  after(() => lab.stop());

  for (const memoryMib of sizesMib)
    for (const type of types)
      test(`${type}, ${memoryMib} MiB: each does what the other does, in a smaller file`, async (t) => {
        const options = { name: `side-${type}`, type, memoryMib, loadMib: memoryMib / 8, clockUs: 1000 };
        const seen = await measureSideBySide(lab, options);
        t.diagnostic(JSON.stringify(seen));
        for (const { xl, ours } of [seen.save, seen.saveC])
          assert.ok(ours.fileBytes <= sizeBar * xl.fileBytes, `${ours.fileBytes} of ${xl.fileBytes} bytes`);
      });
});
