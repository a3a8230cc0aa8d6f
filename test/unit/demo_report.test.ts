import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { percentile, renderReport, reportRows } from '../../src/demo/report.js';

test('a percentile is the smallest value that so many do not exceed', () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(1000), { minLength: 1 }),
      fc.integer({ min: 1, max: 100 }),
      (values, percent) => {
        const found = percentile(values, percent);
        const atMost = (limit: number): number => values.filter((value) => value <= limit).length;
        assert.ok(values.includes(found));
        assert.ok(atMost(found) * 100 >= percent * values.length);
        const below = values.filter((value) => value < found);
        if (below.length > 0) assert.ok(atMost(Math.max(...below)) * 100 < percent * values.length);
      },
    ),
  );
});

test('each figure stands beside what the machine allows', () => {
  const rows = reportRows({
    checkpoints: [{ pauseMs: 0.1 }, { pauseMs: 0.3 }, { pauseMs: 0.2 }],
    saved: { memoryBytes: 2 ** 30, storedBytes: 2 ** 28, elapsedMs: 1000 },
    restored: { memoryBytes: 2 ** 30, elapsedMs: 500 },
    limits: { memcpyGbps: 10.73741824, compressGbps: 2, decompressGbps: 8, cores: 2 },
  });
  assert.equal(
    renderReport(rows),
    [
      '                                   measured  beside, on this machine',
      'light checkpoint pause, p50        0.200 ms  100 ms: one memcpy of all its memory',
      'light checkpoint pause, p99 of 3   0.300 ms  100 ms: one memcpy of all its memory',
      'save                              1.07 GB/s  2.00 GB/s: LZ4 of the same memory on 2 cores',
      'restore                           2.15 GB/s  8.00 GB/s: LZ4 back on 2 cores; memcpy 10.74 GB/s',
      'image size                          256 MiB  1.00 GiB: the memory',
      '',
    ].join('\n'),
  );
});
