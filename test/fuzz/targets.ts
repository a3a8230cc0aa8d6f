/** What is fuzzed of TypeScript: parsers of bytes that somebody else made. Each gives a value, or an error of its list. */
import { Buffer } from 'node:buffer';
import { parseConfig } from '../../src/cli/domain_config.js';
import type { ErrorCode } from '../../src/errors.js';
import { decodeJob, decodeReport, encodeLine } from '../../src/host/xen/job_wire.js';
import { XenstoreDecoder } from '../../src/host/xen/xenstore_decoder.js';
import { FOOTER, HEADER, type Field } from '../../src/image/format.js';
import { decodeFooter, decodeHeader, encodeHeader, storedHash } from '../../src/image/frame.js';
import { decodeManifest, encodeManifest } from '../../src/image/manifest.js';
import { domainOfConfig, parseXlConfig } from '../../src/xenstream/xl_config.js';
import { readFrames } from '../../src/xenstream/frames/reader.js';
import {
  FRAME_HEAD,
  FRAME_HEAD_SIZE,
  STREAM_HEAD,
  STREAM_HEAD_SIZE,
} from '../../src/xenstream/frames/layout.js';
import { StreamWriter } from '../../src/xenstream/frames/writer.js';
import { parseStream } from '../../src/xenstream/stream_parser.js';
import { manifestFor, page, random, desc } from '../support/images.js';
import { BufferSource, writtenBy } from '../support/stream_bytes.js';
import { fileOf, hvmParts, pvParts, xlConfig } from '../support/xen_stream.js';
import { pageBytes } from '../../src/pfn/page_words.js';

export interface Target {
  readonly codes: readonly ErrorCode[];
  /** What the corpus begins with, beside the kept inputs of test/fuzz-corpus. */
  seeds(): Promise<readonly Buffer[]> | readonly Buffer[];
  run(input: Buffer): Promise<void> | void;
}

const nrPfns = 24;
const id = 'ab'.repeat(16);

/** A page whose checksum is right again, every other time: behind it lies what is to be fuzzed. */
function resealed(input: Buffer, [offset, size]: Field): Buffer {
  const bytes = Buffer.alloc(Math.max(input.length, offset + size));
  input.copy(bytes);
  if (((input[0] ?? 0) ^ input.length) % 8 !== 7)
    bytes.write(storedHash(bytes.subarray(0, offset)), offset, 'hex');
  return bytes;
}

/** A stream whose frames' checksums are right, where they are frames at all. */
function resealedFrames(input: Buffer): Buffer {
  const bytes = Buffer.from(input);
  if (bytes.length < STREAM_HEAD_SIZE || bytes.length % 16 === 15) return bytes;
  const put = (at: number, [offset]: Field, hash: string): void => void bytes.write(hash, at + offset, 'hex');
  put(0, STREAM_HEAD.checksum, storedHash(bytes.subarray(0, STREAM_HEAD.checksum[0])));
  const [idAt, idSize] = STREAM_HEAD.streamId;
  const id = bytes.subarray(idAt, idAt + idSize);
  for (let at = STREAM_HEAD_SIZE; at + FRAME_HEAD_SIZE <= bytes.length;) {
    const size = bytes.readUInt32LE(at + FRAME_HEAD.bodySize[0]);
    const body = bytes.subarray(at + FRAME_HEAD_SIZE, at + FRAME_HEAD_SIZE + size);
    put(at, FRAME_HEAD.bodyHash, storedHash(body));
    put(
      at,
      FRAME_HEAD.headHash,
      storedHash(Buffer.concat([bytes.subarray(at, at + FRAME_HEAD.headHash[0]), id])),
    );
    at += FRAME_HEAD_SIZE + size;
  }
  return bytes;
}

async function ownStream(): Promise<Buffer> {
  const next = random(9);
  const pages = Array.from({ length: nrPfns }, (_, pfn) => page(pfn, next));
  const none = Buffer.alloc(0);
  return writtenBy(async (fd) => {
    const stream = StreamWriter.create(fd, { format: 'frames', nrPfns, lanes: 1 });
    const { state, geometry, domain } = manifestFor(nrPfns, stream.counts());
    await stream.begin({
      ...{ tool: 'fuzz', type: domain.type, guestWidth: geometry.guestWidth, nrPfns },
      ...{ cpuidPolicy: state.cpuidPolicy, msrPolicy: none },
    });
    stream.append(
      0,
      BigUint64Array.from(pages, desc),
      Buffer.concat(pages.flatMap(({ body }) => body ?? [])),
    );
    await stream.end(manifestFor(nrPfns, stream.counts()));
    stream.release();
  });
}

const text = (...lines: string[]): Buffer[] => lines.map((line) => Buffer.from(line));
const counts = { data: 9, zero: 2, table: 3, noFrame: 4, broken: 5, alloc: 1, sameAsParent: 0 };
const place = { domid: 3 };

export const targets: Readonly<Record<string, Target>> = {
  'image-header': {
    codes: ['IMAGE_DAMAGED', 'IMAGE_INCOMPATIBLE'],
    seeds: () => [
      encodeHeader({
        ...{ imageId: id, chainId: id, sequence: 0, nrPfns, consistency: 'suspend-point' },
        ...{ parent: null, hasPageHashes: true, hasChunkDigests: true },
      }),
      encodeHeader({
        ...{ imageId: id, chainId: id, sequence: 1, nrPfns, consistency: 'paused' },
        ...{ parent: { imageId: id, root: id + id }, hasPageHashes: false, hasChunkDigests: true },
      }),
      Buffer.alloc(pageBytes),
    ],
    run: (input) => void decodeHeader(resealed(input, HEADER.checksum)),
  },
  'image-footer': {
    codes: ['IMAGE_DAMAGED', 'IMAGE_INCOMPATIBLE'],
    seeds: () => [Buffer.concat([Buffer.from('444f524d464f4f54', 'hex'), Buffer.alloc(pageBytes - 8)])],
    run: (input) => void decodeFooter(resealed(input, FOOTER.checksum)),
  },
  manifest: {
    codes: ['IMAGE_DAMAGED'],
    seeds: () => [encodeManifest(manifestFor(nrPfns, counts)), ...text('\x80', '\xdf\xff\xff\xff\xff')],
    run: (input) => {
      decodeManifest(input);
    },
  },
  frames: {
    codes: ['STREAM_INVALID', 'STREAM_UNSUPPORTED'],
    seeds: async () => [await ownStream()],
    run: (input) => {
      const none = () => undefined;
      return readFrames(new BufferSource(resealedFrames(input)), { begin: none, pages: none, end: none });
    },
  },
  'xl-file': {
    codes: ['STREAM_INVALID', 'STREAM_UNSUPPORTED'],
    seeds: () => [fileOf(pvParts()), fileOf(hvmParts()), fileOf(hvmParts({ kind: 'pvh' }))],
    run: (input) =>
      parseStream(
        new BufferSource(input),
        {
          pages: async (_, readBodies) => {
            await readBodies();
          },
        },
        { maxPfns: 2 ** 20, maxStateBytes: 1 << 20 },
      ),
  },
  'xl-config': {
    codes: ['STREAM_INVALID'],
    seeds: () => text(xlConfig('pv'), xlConfig('pvh'), '{"c_info":{"uuid":"x"},"b_info":[]}', '{}\0'),
    run: (input) => {
      const config = input.toString('utf8');
      parseXlConfig(config);
      domainOfConfig(config, { type: 'pv', nrPfns, vcpus: 1 });
    },
  },
  'xl-cfg': {
    codes: ['CONFIG_INVALID'],
    seeds: () =>
      text(
        "name = 'g'\nmemory=0x20 ; vcpus = 2 # a comment\n",
        'disk = [ "a,b", \'c\', [1, [2, "\\x41\\101\\n"]], ]\nextra += "x"\nextra += \'y\'\n',
        'a=[[[[[[[[1]]]]]]]]\r\nb="\\q"',
      ),
    run: (input) => void parseConfig(input.toString('utf8'), 'input'),
  },
  job: {
    codes: ['HOST_PROTOCOL'],
    seeds: () => [
      ...text(encodeLine({ nonce: '0'.repeat(64), path: '/a', imageId: 'i', root: 'r' })),
      ...text(encodeLine({ kind: 'failed', code: 'NO_MEMORY', message: 'none', place })),
      ...text(
        encodeLine({ kind: 'started', domid: 4 }),
        encodeLine({ kind: 'built' }),
        '{"kind":"progress","progress":{}}',
      ),
    ],
    run: (input) => {
      const line = input.toString('utf8');
      let failed: unknown;
      try {
        decodeJob(line);
      } catch (thrown) {
        failed = thrown;
      }
      decodeReport(line);
      if (failed !== undefined) throw failed as Error;
    },
  },
  xenstore: {
    codes: ['HOST_UNAVAILABLE'],
    seeds: () => {
      const message = (type: number, payload: string): Buffer => {
        const bytes = Buffer.alloc(16 + payload.length);
        [type, 1, 0, payload.length].forEach((word, i) => bytes.writeUInt32LE(word, 4 * i));
        bytes.write(payload, 16, 'latin1');
        return bytes;
      };
      const some = [
        message(2, 'value'),
        message(16, 'ENOENT\0'),
        message(15, 'a/path\0token\0'),
        message(1, 'a\0b\0'),
      ];
      return [...some, Buffer.concat(some)];
    },
    run: (input) => {
      const decoder = new XenstoreDecoder();
      for (let at = 0; at < input.length; at += 40)
        for (const { payload } of decoder.take(input.subarray(at, at + 40))) payload.toString();
    },
  },
};
