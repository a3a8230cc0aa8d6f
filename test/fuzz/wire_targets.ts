/** What comes over sockets and pipes: from xenstored, from the embedded host, from the save helper. */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { DormouseError } from '../../src/errors.js';
import {
  encodeFrame,
  errorFromWire,
  FrameDecoder,
  parseReply,
  parseRequest,
} from '../../src/host/embedded/protocol.js';
import { decodeJob, decodeReport, encodeLine } from '../../src/host/xen/job_wire.js';
import { XenstoreDecoder, type XenstoreMessage } from '../../src/host/xen/xenstore_decoder.js';
import type { Target } from './target.js';

const place = { domid: 3 };

function xenstoreMessage(type: number, payload: string): Buffer {
  const bytes = Buffer.alloc(16 + payload.length);
  [type, 1, 0, payload.length].forEach((word, i) => bytes.writeUInt32LE(word, 4 * i));
  bytes.write(payload, 16, 'latin1');
  return bytes;
}

/** Messages, and whether it ended with one that no xenstored may send. */
function messages(input: Buffer, pieceBytes: number): { all: XenstoreMessage[]; failed: unknown } {
  const decoder = new XenstoreDecoder();
  const all: XenstoreMessage[] = [];
  try {
    for (let at = 0; at < input.length; at += pieceBytes)
      for (const message of decoder.take(input.subarray(at, at + pieceBytes))) all.push(message);
  } catch (failed) {
    return { all, failed };
  }
  return { all, failed: null };
}

/** However the bytes come in pieces, they say the same, in the order in which they lie there. */
function takeXenstore(input: Buffer): void {
  const whole = messages(input, Math.max(1, input.length));
  const pieces = messages(input, 1 + ((input[0] ?? 0) % 40));
  assert.deepEqual(pieces.all, whole.all);
  assert.equal(pieces.failed === null, whole.failed === null);
  let at = 0;
  for (const { type, id, payload } of whole.all) {
    assert.equal(input.readUInt32LE(at), type);
    assert.equal(input.readUInt32LE(at + 4), id);
    assert.ok(payload.equals(input.subarray(at + 16, at + 16 + payload.length)));
    at += 16 + payload.length;
  }
  if (whole.failed !== null) throw whole.failed as Error;
}

/** What one decoder or the other understands is written again as it was read. */
function takeJob(input: Buffer): void {
  const line = input.toString('utf8');
  const failures = [decodeJob, decodeReport].map((decode) => {
    try {
      const value = decode(line);
      assert.deepEqual(decode(encodeLine(value)), value);
      return null;
    } catch (thrown) {
      return thrown;
    }
  });
  const [failed] = failures.filter(
    (one) => one !== null && !(one instanceof DormouseError && one.code === 'HOST_PROTOCOL'),
  );
  if (failed !== undefined) throw failed as Error;
}

/** A tool reads a host's frames and a host a tool's: each answers with a value or with HOST_PROTOCOL. */
function takeProtocol(input: Buffer): void {
  for (const message of new FrameDecoder().push(input))
    for (const read of [parseRequest, parseReply])
      try {
        const value = read(message);
        if ('error' in value) assert.ok(errorFromWire(value.error) instanceof DormouseError);
      } catch (thrown) {
        if (!(thrown instanceof DormouseError && thrown.code === 'HOST_PROTOCOL')) throw thrown;
      }
}

const lines = [
  encodeLine({ nonce: '0'.repeat(64), path: '/a', imageId: 'i', root: 'r', mostPfns: 9 }),
  encodeLine({ kind: 'failed', code: 'NO_MEMORY', message: 'none', place }),
  encodeLine({ kind: 'started', domid: 4 }),
  encodeLine({ kind: 'built' }),
  '{"kind":"progress","progress":{}}',
];

export const wireTargets: Readonly<Record<string, Target>> = {
  xenstore: {
    codes: ['HOST_UNAVAILABLE'],
    seeds: () => {
      const some = [
        xenstoreMessage(2, 'value'),
        xenstoreMessage(16, 'ENOENT\0'),
        xenstoreMessage(15, 'a/path\0token\0'),
        xenstoreMessage(1, 'a\0b\0'),
      ];
      return [...some, Buffer.concat(some)];
    },
    run: takeXenstore,
  },
  job: {
    codes: ['HOST_PROTOCOL'],
    words: ['"kind"', '"progress"', '"failed"', '"code"', '"place"', '{}', '[]', 'null', '"domid":', '1e9'],
    seeds: () => lines.map((line) => Buffer.from(line)),
    run: takeJob,
  },
  protocol: {
    codes: ['HOST_PROTOCOL'],
    seeds: () => [
      encodeFrame({ id: 1, op: 'hello', args: { version: 3 } }),
      encodeFrame({ id: 1, ok: [1, 2n ** 60n, null, 'x', Buffer.alloc(3)] }),
      encodeFrame({ id: 2, error: { code: 'LOCKED', message: 'm', guest: 'running', place } }),
      encodeFrame({ event: { kind: 'watch', watch: 1, path: '/a' } }),
      encodeFrame({
        event: { kind: 'domain', domain: { type: 'created', domid: 1, uuid: 'u', reason: null } },
      }),
    ],
    run: takeProtocol,
  },
};
