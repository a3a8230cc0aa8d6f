/**
 * The manifest: what an image says of its domain besides the pages, coded in MessagePack.
 *
 * State blobs are canonical, as in libxc's stream: every MFN in them has been turned into its PFN.
 */
import { Packr, Unpackr } from 'msgpackr';
import { z } from 'zod';
import { DormouseError } from '../errors.js';
import { totalPages } from '../pfn/counts.js';
import { MAX_MANIFEST_BYTES, MAX_PFNS } from './format.js';

const text = (most: number) => z.string().max(most);
const count = z.int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const blob = z.custom<Buffer>((value) => Buffer.isBuffer(value), 'expected bytes');

const vcpu = z.object({ id: z.int().min(0).max(8191), basic: blob, extended: blob, xsave: blob, msrs: blob });

const state = z.object({
  vcpus: z.array(vcpu).max(8192),
  sharedInfo: blob,
  tscInfo: blob,
  cpuidPolicy: blob,
  msrPolicy: blob,
  hvmContext: blob,
  hvmParams: blob,
});

const geometry = z.object({
  nrPfns: z.int().min(1).max(MAX_PFNS),
  guestWidth: z.union([z.literal(4), z.literal(8), z.literal(0)]),
  p2mFrames: z.array(z.int().min(0).max(MAX_PFNS)),
  p2mGeneration: count,
});

const pages = z.object({
  data: count,
  zero: count,
  table: count,
  noFrame: count,
  broken: count,
  alloc: count,
  sameAsParent: count,
});

export const manifestSchema = z
  .object({
    tool: text(256),
    /** ISO 8601, UTC. */
    createdAt: z.iso.datetime(),
    consistency: z.enum(['suspend-point', 'paused']),
    domain: z.object({
      name: text(256),
      uuid: z.string().regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/),
      type: z.enum(['pv', 'pvh', 'hvm']),
      vcpus: z.int().min(1).max(8192),
      maxMemoryKib: count,
      /** Carried untouched. */
      config: text(16 << 20),
    }),
    /** What the domain ran on: "xen" or "embedded", for information. */
    hostKind: text(64),
    geometry,
    state,
    pages,
    timings: z.object({ pauseUs: count, elapsedUs: count }),
    /** Records of a Xen stream this image was made of, carried so that they can be written again. */
    stream: z.unknown().optional(),
  })
  .refine((m) => totalPages(m.pages) === m.geometry.nrPfns, 'page classes do not add up to nrPfns');

export type Manifest = z.infer<typeof manifestSchema>;

/** MessagePack markers this codec admits: every one has a fixed meaning, and none is a float or an extension. */
const MAX_DEPTH = 32;

/** Length of a scalar's or blob's item at `at`, or its children for a container. Throws RangeError on anything odd. */
function item(bytes: Buffer, at: number): { size: number; children: number } {
  const marker = bytes.readUInt8(at);
  if (marker < 0x80 || marker >= 0xe0) return { size: 1, children: 0 };
  if (marker < 0x90) return { size: 1, children: 2 * (marker & 0xf) };
  if (marker < 0xa0) return { size: 1, children: marker & 0xf };
  if (marker < 0xc0) return { size: 1 + (marker & 0x1f), children: 0 };
  switch (marker) {
    case 0xc0: // nil
    case 0xc2: // false
    case 0xc3: // true
      return { size: 1, children: 0 };
    case 0xc4: // bytes
    case 0xd9: // text
      return { size: 2 + bytes.readUInt8(at + 1), children: 0 };
    case 0xc5:
    case 0xda:
      return { size: 3 + bytes.readUInt16BE(at + 1), children: 0 };
    case 0xc6:
    case 0xdb:
      return { size: 5 + bytes.readUInt32BE(at + 1), children: 0 };
    case 0xdc: // array
      return { size: 3, children: bytes.readUInt16BE(at + 1) };
    case 0xdd:
      return { size: 5, children: bytes.readUInt32BE(at + 1) };
    case 0xde: // map
      return { size: 3, children: 2 * bytes.readUInt16BE(at + 1) };
    case 0xdf:
      return { size: 5, children: 2 * bytes.readUInt32BE(at + 1) };
  }
  const integer = { 0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8, 0xd0: 1, 0xd1: 2, 0xd2: 4, 0xd3: 8 }[marker];
  if (integer === undefined) throw new RangeError(`marker 0x${marker.toString(16)} at byte ${at}`);
  return { size: 1 + integer, children: 0 };
}

/**
 * Walks the bytes without building anything: every length must fit into what is left, so that decoding allocates no
 * more than a small multiple of their size.
 */
function checkStructure(bytes: Buffer): void {
  const open: number[] = [1];
  let at = 0;
  while (open.length > 0) {
    const left = open[open.length - 1] ?? 0;
    if (left === 0) {
      open.pop();
      continue;
    }
    open[open.length - 1] = left - 1;
    const { size, children } = item(bytes, at);
    at += size;
    if (at > bytes.length || children > bytes.length - at) throw new RangeError(`length at byte ${at}`);
    if (children > 0 && open.push(children) > MAX_DEPTH) throw new RangeError(`nesting at byte ${at}`);
  }
  if (at !== bytes.length) throw new RangeError(`${bytes.length - at} bytes too many`);
}

const options = { useRecords: false, variableMapSize: true, encodeUndefinedAsNil: true } as const;
const packr = new Packr(options);
const unpackr = new Unpackr({ ...options, int64AsType: 'bigint' });

/** Integers of 2^32 and more travel as 64-bit integers, which msgpackr writes for BigInt only. */
function widen(value: unknown): unknown {
  if (typeof value === 'number' && Number.isInteger(value) && Math.abs(value) > 0x7fff_ffff)
    return BigInt(value);
  if (Array.isArray(value)) return value.map(widen);
  if (value === null || typeof value !== 'object' || value instanceof Uint8Array) return value;
  const entries = Object.entries(value).filter(([, inner]) => inner !== undefined);
  return Object.fromEntries(entries.map(([key, inner]) => [key, widen(inner)]));
}

/** 64-bit integers as numbers where they are exact. */
function narrow(value: unknown): unknown {
  if (typeof value === 'bigint') {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value;
  }
  if (Array.isArray(value)) return value.map(narrow);
  if (value === null || typeof value !== 'object' || value instanceof Uint8Array) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, narrow(inner)]));
}

/** Bytes of a manifest. Throws INTERNAL if it does not fit the schema, as only this program makes them. */
export function encodeManifest(manifest: Manifest): Buffer {
  const checked = manifestSchema.safeParse(manifest);
  if (!checked.success) throw new DormouseError('INTERNAL', `manifest: ${z.prettifyError(checked.error)}`);
  const bytes = packr.pack(widen(checked.data));
  try {
    checkStructure(bytes);
  } catch (cause) {
    throw new DormouseError('INTERNAL', 'the manifest holds a value its coding does not admit', { cause });
  }
  if (bytes.length > MAX_MANIFEST_BYTES)
    throw new DormouseError('INTERNAL', `the manifest would take ${bytes.length} bytes`);
  return bytes;
}

/** The manifest in these bytes; IMAGE_DAMAGED if they are none. Allocates a small multiple of their size. */
export function decodeManifest(bytes: Buffer): Manifest {
  if (bytes.length > MAX_MANIFEST_BYTES)
    throw new DormouseError('IMAGE_DAMAGED', `the manifest claims ${bytes.length} bytes`);
  let decoded: unknown;
  try {
    checkStructure(bytes);
    decoded = narrow(unpackr.unpack(bytes));
  } catch (cause) {
    throw new DormouseError('IMAGE_DAMAGED', `the manifest cannot be decoded: ${String(cause)}`, { cause });
  }
  const checked = manifestSchema.safeParse(decoded);
  if (checked.success) return checked.data;
  throw new DormouseError('IMAGE_DAMAGED', `the manifest is not valid: ${z.prettifyError(checked.error)}`);
}
