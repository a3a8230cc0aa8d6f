/** Which process saves a domain is read off command lines. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { savedDomain } from '../../src/host/xen/other_saver.js';

const line = (...words: string[]): string => words.map((word) => `${word}\0`).join('');

test('only a helper that saves names a domain', () => {
  const helper = '/usr/lib/xen-4.17/bin/libxl-save-helper';
  assert.equal(savedDomain(line(helper, '--save-domain', '9', '8', '12', '1', '0', '0')), 12);
  assert.equal(savedDomain(line('libxl-save-helper', '--save-domain', '9', '8', '0')), 0);
  assert.equal(savedDomain(line('/opt/other-helper', '--save-domain', '9', '8', '12')), 12);
  const xapi = [
    '-controlinfd',
    '5',
    '-controloutfd',
    '6',
    '-mode',
    'hvm_save',
    '-domid',
    '7',
    '-live',
    'true',
  ];
  assert.equal(savedDomain(line('/usr/libexec/xen/bin/emu-manager', ...xapi)), 7);
  assert.equal(savedDomain(line('xenguest', '--mode', 'save', '--domid', '7')), 7);
  const others = [
    '',
    line(helper),
    line(helper, '--restore-domain', '9', '8', '12'),
    line(helper, '--save-domain', '9', '8'),
    line(helper, '--save-domain', '9', '8', 'x12'),
    line('sh', helper, '--save-domain', '9', '8', '12'),
    line('node', '/opt/bin/dormouse-save-helper', '--save-domain', '9', '8', '12'),
    line('/usr/libexec/xen/bin/emu-manager', '-mode', 'hvm_restore', '-domid', '7'),
    line('/usr/libexec/xen/bin/emu-manager', '-mode', 'save', '-domid'),
    line('other', ...xapi),
  ];
  for (const other of others) assert.equal(savedDomain(other), null, JSON.stringify(other));
});
