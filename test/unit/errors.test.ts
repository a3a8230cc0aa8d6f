import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asDormouseError, DormouseError, errorKinds, exitCodes, isErrorCode } from '../../src/errors.js';

test('an error of the addon keeps its code and place', () => {
  const thrown = Object.assign(new Error('chunk 3 is damaged'), {
    code: 'IMAGE_DAMAGED',
    chunk: 3,
    offset: 8192,
  });
  const error = asDormouseError(thrown);
  assert.equal(error.code, 'IMAGE_DAMAGED');
  assert.equal(error.exitCode, 12);
  assert.deepEqual(error.place, { chunk: 3, offset: 8192 });
});

test('anything else becomes INTERNAL and keeps its cause', () => {
  const cause = new TypeError('x is undefined');
  const error = asDormouseError(cause);
  assert.equal(error.code, 'INTERNAL');
  assert.equal(error.cause, cause);
  assert.equal(isErrorCode('constructor'), false);
});

test('every kind has an exit code that is told of, and advice; and none is told of that nothing gives', () => {
  const kinds = Object.values(errorKinds).map(({ exit }) => String(exit));
  // Done, findings and SIGTERM are no errors of the list.
  assert.deepEqual(new Set([...kinds, '0', '3', '129', '143']), new Set(Object.keys(exitCodes)));
  for (const [code, kind] of Object.entries(errorKinds)) {
    assert.ok(Object.hasOwn(exitCodes, kind.exit), code);
    assert.ok(kind.advice.length > 10, code);
  }
  assert.equal(new DormouseError('LOCKED', 'busy').exitCode, 11);
});
