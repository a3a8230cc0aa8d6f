/**
 * The manifest: what an image says of its domain besides the pages, coded in MessagePack.
 *
 * State blobs are canonical, as in libxc's stream: every MFN in them has been turned into its PFN.
 */
import * as z from 'zod';
import { totalPages } from '../pfn/counts.js';
import { MAX_PFNS, consistencies } from './format.js';
import { decodeMessage, encodeMessage } from './message.js';
import { domainTypes } from '../domain/type.js';
import { lowerUuid } from '../uuid.js';

const text = (most: number) => z.string().max(most);
const count = z.int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const blob = z.custom<Buffer>((value) => Buffer.isBuffer(value), 'expected bytes');

const vcpu = z.object({ id: z.int().min(0).max(8191), basic: blob, extended: blob, xsave: blob, msrs: blob });

const links = z.object({
  unfit: text(1024),
  start: text(256),
  grants: blob,
  channels: blob,
  eventArrayPfn: z.int().min(0).max(MAX_PFNS),
  rings: blob,
  devices: text(1 << 20),
});

const state = z.object({
  vcpus: z.array(vcpu).max(8192),
  sharedInfo: blob,
  tscInfo: blob,
  cpuidPolicy: blob,
  msrPolicy: blob,
  hvmContext: blob,
  hvmParams: blob,
  links: links.optional(),
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
    consistency: z.enum(consistencies),
    domain: z.object({
      name: text(256),
      uuid: z.string().regex(lowerUuid),
      type: z.enum(domainTypes),
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

/** Bytes of a manifest. Throws INTERNAL if it does not fit the schema, as only this program makes them. */
export const encodeManifest = (manifest: Manifest): Buffer =>
  encodeMessage(manifestSchema, manifest, 'the manifest');

/** The manifest in these bytes; IMAGE_DAMAGED if they are none. Takes a few hundred MiB at most. */
export const decodeManifest = (bytes: Buffer): Manifest =>
  decodeMessage(manifestSchema, bytes, 'the manifest');
