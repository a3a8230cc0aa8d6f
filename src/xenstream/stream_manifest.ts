/**
 * What an image keeps of the Xen stream it was made from (`manifest.stream`): headers, the order of the records, the
 * records no other field of the manifest holds, and how the pages were divided into PAGE_DATA records.
 */
import { Buffer } from 'node:buffer';
import * as z from 'zod';
import { DormouseError } from '../errors.js';
import { MAX_PFNS } from '../image/format.js';
import { maxOptionalDataBytes, maxRecordBytes, maxVcpus } from './stream_format.js';

const u32 = z.int().min(0).max(0xffffffff);
const blob = z.custom<Buffer>((value) => Buffer.isBuffer(value), 'expected bytes');
const count = z.int().min(1).max(MAX_PFNS);

/** Most runs, and most groups of batches, that are remembered; beyond it pages are written in stock order. */
export const maxLayoutEntries = 65536;

const streamItem = z.discriminatedUnion('kind', [
  /** A record whose body is only here. */
  z.object({
    kind: z.literal('record'),
    layer: z.enum(['libxl', 'libxc']),
    type: u32,
    body: blob.refine((body) => body.length <= maxRecordBytes),
  }),
  /** A libxc record whose body is made of manifest.geometry or manifest.state. */
  z.object({ kind: z.literal('state'), type: u32 }),
  /** A libxc record of one vCPU, made of manifest.state.vcpus. */
  z.object({
    kind: z.literal('vcpu'),
    type: u32,
    id: z
      .int()
      .min(0)
      .max(maxVcpus - 1),
  }),
  /** The next `records` PAGE_DATA records of the layout. */
  z.object({ kind: z.literal('pages'), records: count }),
]);

export const streamManifestSchema = z.object({
  schema: z.literal(1),
  xl: z.object({
    mandatoryFlags: u32,
    optionalFlags: u32,
    optionalData: blob.refine((data) => data.length <= maxOptionalDataBytes),
  }),
  libxl: z.object({ version: u32, options: u32 }),
  libxc: z.object({
    version: z.union([z.literal(2), z.literal(3)]),
    options: u32,
    type: z.enum(['pv', 'hvm']),
    xenMajor: u32,
    xenMinor: u32,
  }),
  items: z.array(streamItem).max(1 << 20),
  /**
   * PAGE_DATA records as `[pfns in a record, records like it]`, and the pfns they list, in order, as `[first, count]`.
   * Null: stock order, that is every pfn ascending, 1024 a record, all of them where the first `pages` item is.
   */
  layout: z
    .object({
      batches: z.array(z.tuple([count, count])).max(maxLayoutEntries),
      runs: z
        .array(
          z.tuple([
            z
              .int()
              .min(0)
              .max(MAX_PFNS - 1),
            count,
          ]),
        )
        .max(maxLayoutEntries),
    })
    .nullable(),
});

export type StreamManifest = z.infer<typeof streamManifestSchema>;
export type StreamItem = StreamManifest['items'][number];
export type PageLayout = NonNullable<StreamManifest['layout']>;

/** `manifest.stream` checked; null if the image was not made of a Xen stream. IMAGE_DAMAGED if it is not valid. */
export function readStreamManifest(stream: unknown): StreamManifest | null {
  if (stream === undefined || stream === null) return null;
  const checked = streamManifestSchema.safeParse(stream);
  if (checked.success) return checked.data;
  throw new DormouseError('IMAGE_DAMAGED', `manifest.stream is not valid: ${z.prettifyError(checked.error)}`);
}
