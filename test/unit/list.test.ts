import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { renderList, stateLetters } from '../../src/render/list.js';
import { domainInfo } from '../support/fake_host.js';
import type { DomainInfo, ShutdownReason } from '../../src/domain/state.js';

const reasons: (ShutdownReason | null)[] = [
  null,
  'poweroff',
  'reboot',
  'suspend',
  'crash',
  'watchdog',
  'soft_reset',
];

test('the header and a row are those of xl list, byte for byte', () => {
  assert.equal(
    renderList([domainInfo()]),
    'Name                                        ID   Mem VCPUs\tState\tTime(s)\n' +
      'web1                                         1   256     2     r-----      12.3\n',
  );
});

test('the state letters of every combination of flags', () => {
  const letters = '-rscwS';
  for (const [at, shutdown] of reasons.entries())
    for (let flags = 0; flags < 16; flags++) {
      const [running, blocked, paused, dying] = [1, 2, 4, 8].map((bit) => (flags & bit) !== 0);
      const info = domainInfo({ running, blocked, paused, dying, shutdown } as Partial<DomainInfo>);
      const expected =
        `${running ? 'r' : '-'}${blocked ? 'b' : '-'}${paused ? 'p' : '-'}` +
        `${shutdown ? 's' : '-'}${shutdown ? (letters[at - 1] ?? '?') : '-'}${dying ? 'd' : '-'}`;
      assert.equal(stateLetters(info), expected);
    }
  assert.equal(stateLetters(domainInfo({ running: false, shutdown: 'suspend' })), '---ss-');
  assert.equal(stateLetters(domainInfo({ running: false, shutdown: 'crash' })), '---sc-');
});

const row = fc.record({
  name: fc.oneof(fc.string({ unit: 'grapheme-ascii', maxLength: 60 }), fc.string({ unit: 'grapheme' })),
  domid: fc.nat(32_767),
  memoryKib: fc.oneof(fc.nat(2 ** 30), fc.nat(2047)),
  vcpus: fc.nat(200_000),
  cpuTimeNs: fc.oneof(
    fc.nat(2 ** 31 - 1),
    fc.maxSafeNat(),
    fc.nat(4000).map((quarters) => quarters * 250_000_000),
  ),
});

/** What printf(3) makes of the same values; names are compared where a terminal can show them. */
function printf(rows: readonly DomainInfo[]): string {
  const values = rows.flatMap((info) => [
    info.name,
    String(info.domid),
    String(Math.floor(info.memoryKib / 1024)),
    String(info.vcpus),
    (Math.fround(info.cpuTimeNs) / 1e9).toFixed(40),
  ]);
  const done = spawnSync('/usr/bin/printf', ['%-40s %5d %5lu %5d     r-----  %8.1f\\n', ...values], {
    env: { LC_ALL: 'C' },
  });
  assert.equal(done.status, 0, done.stderr.toString());
  return done.stdout.toString();
}

test('rows are what printf makes of the format string of xl', () => {
  const clean = row.filter(
    ({ name }) => !/[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029\\]/u.test(name) && !name.startsWith('-'),
  );
  fc.assert(
    fc.property(fc.array(clean, { minLength: 1, maxLength: 20 }), (rows) => {
      const infos = rows.map((over) => domainInfo(over));
      assert.equal(renderList(infos).split('\n').slice(1).join('\n'), printf(infos));
    }),
    { numRuns: 50 },
  );
});

test('a name cannot drive the terminal', () => {
  const text = renderList([domainInfo({ name: 'a\u001b[2Jb\u202ec\n' })]);
  assert.match(text, /^a\?\[2Jb\?c\? +1 /mu);
});
