import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DormouseError, errorKinds, type ErrorCode } from '../../src/errors.js';
import { packNumbers, unpackNumbers } from '../../src/host/embedded/ops.js';
import {
  encodeFrame,
  errorFromWire,
  errorToWire,
  FrameDecoder,
  maxFrameBytes,
  parseReply,
  parseRequest,
} from '../../src/host/embedded/protocol.js';

const isProtocolError = (thrown: unknown) =>
  thrown instanceof DormouseError && thrown.code === 'HOST_PROTOCOL';

test('messages come out whole and in order, however the stream is cut', () => {
  const plain = { noNullPrototype: true } as const;
  const args = {
    text: fc.string(),
    number: fc.maxSafeInteger(),
    list: fc.array(fc.integer()),
    no: fc.constant(null),
  };
  const message = fc.record({ id: fc.nat(), op: fc.string(), args: fc.record(args, plain) }, plain);
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 50 })),
      (messages, cuts) => {
        const stream = Buffer.concat(messages.map((each) => encodeFrame(each)));
        const decoder = new FrameDecoder();
        const seen: unknown[] = [];
        let at = 0;
        for (const cut of cuts) {
          seen.push(...decoder.push(stream.subarray(at, at + cut)));
          at = Math.min(at + cut, stream.length);
        }
        seen.push(...decoder.push(stream.subarray(at)));
        assert.deepEqual(seen, messages);
      },
    ),
  );
});

test('bytes travel as bytes, also after the decoder was given more', () => {
  const decoder = new FrameDecoder();
  const blob = Buffer.from(Array.from({ length: 5168 }, (_, i) => i & 255));
  const [first] = decoder.push(encodeFrame({ id: 1, ok: blob })) as [{ ok: Buffer }];
  decoder.push(encodeFrame({ id: 2, ok: Buffer.alloc(5168, 7) }));
  assert.ok(Buffer.isBuffer(first.ok));
  assert.ok(first.ok.equals(blob));
});

test('a frame longer than the cap is refused before it is held', () => {
  const head = Buffer.alloc(4);
  head.writeUInt32LE(maxFrameBytes + 1);
  assert.throws(() => new FrameDecoder().push(head), isProtocolError);
  assert.throws(() => encodeFrame(Buffer.alloc(maxFrameBytes)), isProtocolError);
});

test('random bytes never give anything but messages or HOST_PROTOCOL', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 200 }), (body) => {
      const frame = Buffer.alloc(4 + body.length);
      frame.writeUInt32LE(body.length);
      frame.set(body, 4);
      try {
        for (const message of new FrameDecoder().push(frame)) {
          assert.throws(() => parseRequest(message), isProtocolError);
          assert.throws(() => parseReply(message), isProtocolError);
        }
      } catch (thrown) {
        assert.ok(isProtocolError(thrown), String(thrown));
      }
    }),
    { numRuns: 2000 },
  );
});

test('one peer cannot change how the bytes of another are read', () => {
  // A record definition (extension 0x72), which a decoder with a memory would apply to what follows.
  const hostile = Buffer.from([0, 0, 0, 0, 0xd4, 0x72, 0x40, 0x91, 0xa1, 0x61, 0x01]);
  hostile.writeUInt32LE(hostile.length - 4);
  try {
    new FrameDecoder().push(hostile);
  } catch (thrown) {
    assert.ok(isProtocolError(thrown));
  }
  const message = { id: 64, op: 'list', args: {} };
  assert.deepEqual(new FrameDecoder().push(encodeFrame(message)), [message]);
});

test('every error keeps its code, text, place and what it says of the guest', () => {
  for (const code of Object.keys(errorKinds) as ErrorCode[]) {
    const sent = new DormouseError(code, 'what happened', {
      place: { domid: 3, pfn: 2 ** 40 },
      guest: 'running',
    });
    const wire = parseReply(new FrameDecoder().push(encodeFrame({ id: 1, error: errorToWire(sent) }))[0]);
    assert.ok('error' in wire);
    const back = errorFromWire(wire.error);
    assert.deepEqual(
      [back.code, back.message, back.place, back.guest, back.exitCode],
      [code, 'what happened', { domid: 3, pfn: 2 ** 40 }, 'running', sent.exitCode],
    );
  }
});

test('packed numbers are exact, and refuse what is no whole number', () => {
  const numbers = [0, 1, 4095, 2 ** 40 + 1, Number.MAX_SAFE_INTEGER];
  assert.deepEqual(unpackNumbers(packNumbers(numbers)), numbers);
  assert.deepEqual(unpackNumbers(packNumbers([-1, 5]), -1), [-1, 5]);
  for (const bad of [
    packNumbers([-1]),
    packNumbers([0.5]),
    packNumbers([NaN]),
    packNumbers([2 ** 53]),
    Buffer.alloc(7),
  ])
    assert.throws(() => unpackNumbers(bad), isProtocolError);
});
