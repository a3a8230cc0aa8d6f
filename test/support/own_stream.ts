/** Streams of ours in memory, whole and forged. */
import { Buffer } from 'node:buffer';
import { CHUNK_RUN_SIZE, type Field } from '../../src/image/format.js';
import { storedHash } from '../../src/image/frame.js';
import { parseChunkHead } from '../../src/image/parse.js';
import {
  FRAME_HEAD,
  FRAME_HEAD_SIZE,
  FRAME_KINDS,
  STREAM_HEAD,
  STREAM_HEAD_SIZE,
} from '../../src/xenstream/frames/layout.js';
import { decodeBegin, encodeBegin } from '../../src/xenstream/frames/messages.js';
import { StreamWriter } from '../../src/xenstream/frames/writer.js';
import { desc, manifestFor, page, random, type TestPage } from './images.js';
import { writtenBy } from './stream_bytes.js';

/** Of as many pages of any kind. */
export function ownStream(nrPfns: number): Promise<Buffer> {
  const next = random(9);
  return streamOf(Array.from({ length: nrPfns }, (_, pfn) => page(pfn, next)));
}

function streamOf(pages: readonly TestPage[]): Promise<Buffer> {
  const nrPfns = pages.length;
  return writtenBy(async (fd) => {
    const stream = StreamWriter.create(fd, { format: 'frames', nrPfns, lanes: 1 });
    const { state, geometry, domain } = manifestFor(nrPfns, stream.counts());
    await stream.begin({
      ...{ tool: 'fuzz', type: domain.type, guestWidth: geometry.guestWidth, nrPfns },
      ...{ cpuidPolicy: state.cpuidPolicy, msrPolicy: Buffer.alloc(0) },
    });
    for (const one of pages) stream.append(0, BigUint64Array.of(desc(one)), one.body ?? Buffer.alloc(0));
    await stream.end(manifestFor(nrPfns, stream.counts()));
    stream.release();
  });
}

/** The stream with the checksums of its frames made right again, where they are frames at all. */
export function resealed(stream: Buffer): Buffer {
  const bytes = Buffer.from(stream);
  const put = (at: number, [offset]: Field, hash: string): void => void bytes.write(hash, at + offset, 'hex');
  put(0, STREAM_HEAD.checksum, storedHash(bytes.subarray(0, STREAM_HEAD.checksum[0])));
  const [idAt, idSize] = STREAM_HEAD.streamId;
  const id = bytes.subarray(idAt, idAt + idSize);
  for (let at = STREAM_HEAD_SIZE; at + FRAME_HEAD_SIZE <= bytes.length;) {
    const size = bytes.readUInt32LE(at + FRAME_HEAD.bodySize[0]);
    const body = bytes.subarray(at + FRAME_HEAD_SIZE, at + FRAME_HEAD_SIZE + size);
    put(at, FRAME_HEAD.bodyHash, storedHash(body));
    const head = Buffer.concat([bytes.subarray(at, at + FRAME_HEAD.headHash[0]), id]);
    put(at, FRAME_HEAD.headHash, storedHash(head));
    at += FRAME_HEAD_SIZE + size;
  }
  return bytes;
}

/** A stream of a guest of `nrPfns` pages that lists these, one a frame. */
export async function sparseStream(nrPfns: number, pfns: readonly number[]): Promise<Buffer> {
  const whole = await streamOf(
    pfns.map((_, pfn) => ({ pfn, pageClass: 'data', type: 0, body: Buffer.alloc(4096, 1 + pfn) })),
  );
  const parts = [whole.subarray(0, STREAM_HEAD_SIZE)];
  const left = [...pfns];
  for (let at = STREAM_HEAD_SIZE; at < whole.length;) {
    const head = Buffer.from(whole.subarray(at, at + FRAME_HEAD_SIZE));
    const size = head.readUInt32LE(FRAME_HEAD.bodySize[0]);
    let body: Buffer = Buffer.from(whole.subarray(at + FRAME_HEAD_SIZE, at + FRAME_HEAD_SIZE + size));
    const kind = head.readUInt8(FRAME_HEAD.kind[0]);
    if (kind === FRAME_KINDS.begin) body = encodeBegin({ ...decodeBegin(body), nrPfns });
    if (kind === FRAME_KINDS.pages) moveFirstRun(body, left.shift() ?? 0);
    head.writeUInt32LE(body.length, FRAME_HEAD.bodySize[0]);
    parts.push(head, body);
    at += FRAME_HEAD_SIZE + size;
  }
  return resealed(Buffer.concat(parts));
}

function moveFirstRun(chunk: Buffer, pfn: number): void {
  const head = parseChunkHead(chunk);
  if (head?.runs !== 1) throw new Error(`a chunk of ${head?.runs ?? 0} runs of ${CHUNK_RUN_SIZE} bytes`);
  const at = 64 + head.payloadSize + 4 * head.blocks;
  chunk.writeBigUInt64LE((chunk.readBigUInt64LE(at) & (0xfffn << 52n)) | BigInt(pfn), at);
}
