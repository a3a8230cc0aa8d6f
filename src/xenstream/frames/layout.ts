/**
 * The stream between two save helpers of ours as constants: what docs/xen-streams.md specifies, field by field (a test
 * compares the two; native/image/page_stream.h has the frame's head once more). All integers are little-endian.
 */
import type { Field } from '../../image/format.js';

export const STREAM_MAJOR = 1;
export const STREAM_MINOR = 0;

/** "DormStrm". A libxc stream begins with eight bytes of ones instead. */
export const STREAM_MAGIC = '446f726d5374726d';
export const FRAME_MAGIC = '444d4652';

/** Bytes of the stream. */
export const STREAM_HEAD = {
  magic: [0, 8],
  major: [8, 2],
  minor: [10, 2],
  headSize: [12, 4],
  mustUnderstand: [16, 8],
  streamId: [24, 16],
  reserved: [40, 8],
  checksum: [48, 16],
} as const satisfies Readonly<Record<string, Field>>;
export const STREAM_HEAD_SIZE = 64;

export const FRAME_HEAD = {
  magic: [0, 4],
  kind: [4, 1],
  flags: [5, 1],
  headSize: [6, 2],
  number: [8, 4],
  bodySize: [12, 4],
  bodyHash: [16, 16],
  headHash: [32, 16],
} as const satisfies Readonly<Record<string, Field>>;
export const FRAME_HEAD_SIZE = 48;

export const FRAME_KINDS = { begin: 1, pages: 2, end: 3 } as const;
export type FrameKind = keyof typeof FRAME_KINDS;
