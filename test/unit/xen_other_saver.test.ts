/** Which process saves a domain is read off command lines. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { savedDomain } from '../../src/host/xen/other_saver.js';

const line = (...words: string[]): string => words.map((word) => `${word}\0`).join('');

test("only libxl's own helper that saves names a domain", () => {
  const helper = '/usr/lib/xen-4.17/bin/libxl-save-helper';
  assert.equal(savedDomain(line(helper, '--save-domain', '9', '8', '12', '1', '0', '0')), 12);
  assert.equal(savedDomain(line('libxl-save-helper', '--save-domain', '9', '8', '0')), 0);
  const others = [
    '',
    line(helper),
    line(helper, '--restore-domain', '9', '8', '12'),
    line(helper, '--save-domain', '9', '8'),
    line(helper, '--save-domain', '9', '8', 'x12'),
    line('sh', helper, '--save-domain', '9', '8', '12'),
    line('node', '/opt/bin/dormouse-save-helper', '--save-domain', '9', '8', '12'),
    line('/bin/other-save-helper', '--save-domain', '9', '8', '12'),
  ];
  for (const other of others) assert.equal(savedDomain(other), null, JSON.stringify(other));
});
