/** What the first and the last frame of a stream say. */
import { Buffer } from 'node:buffer';
import * as z from 'zod';
import { MAX_PFNS } from '../../image/format.js';
import { encodeManifest, manifestSchema, type Manifest } from '../../image/manifest.js';
import { decodeMessage, encodeMessage } from '../../image/message.js';
import { domainTypes } from '../../domain/type.js';

const blob = z.custom<Buffer>((value) => Buffer.isBuffer(value), 'expected bytes');

/** All that a receiver needs before the first page. */
const beginSchema = z.object({
  tool: z.string().max(256),
  type: z.enum(domainTypes),
  guestWidth: z.union([z.literal(4), z.literal(8), z.literal(0)]),
  nrPfns: z.int().min(1).max(MAX_PFNS),
  cpuidPolicy: blob,
  msrPolicy: blob,
});
export type StreamBegin = z.infer<typeof beginSchema>;

export const encodeBegin = (begin: StreamBegin): Buffer =>
  encodeMessage(beginSchema, begin, 'the first frame');
/** IMAGE_DAMAGED. */
export const decodeBegin = (bytes: Buffer): StreamBegin =>
  decodeMessage(beginSchema, bytes, 'the first frame');

/** A manifest as an image has it: geometry and state as they were when the guest stood still, and the pages by class. */
export const encodeEnd = (manifest: Manifest): Buffer => encodeManifest(manifest);
/** IMAGE_DAMAGED. */
export const decodeEnd = (bytes: Buffer): Manifest => decodeMessage(manifestSchema, bytes, 'the last frame');
