/**
 * Makes small `xl save` files out of named parts that a test can drop, repeat, reorder or spoil. Written from the
 * specification alone; shares no constant with src/image/convert.
 */
import { Buffer } from 'node:buffer';

export interface Page {
  readonly pfn: number;
  /** Xen's page type nibble. */
  readonly type: number;
  /** 4096 bytes; only for types below 0xD. */
  readonly body?: Buffer;
}

export interface Part {
  readonly name: string;
  readonly bytes: Buffer;
}

const u16 = (value: number, big = false) => {
  const bytes = Buffer.alloc(2);
  if (big) bytes.writeUInt16BE(value);
  else bytes.writeUInt16LE(value);
  return bytes;
};
export const u32 = (value: number, big = false): Buffer => {
  const bytes = Buffer.alloc(4);
  if (big) bytes.writeUInt32BE(value);
  else bytes.writeUInt32LE(value);
  return bytes;
};
export const u64 = (value: bigint | number): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};

/** A record of either layer: type, length, body, padding. */
export function record(type: number, body: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([u32(type), u32(body.length), body, Buffer.alloc((8 - (body.length % 8)) % 8)]);
}

export function pageData(pages: readonly Page[]): Buffer {
  const list = pages.map(({ pfn, type }) => u64(BigInt(pfn) | (BigInt(type) << 60n)));
  const bodies = pages.flatMap(({ body }) => (body === undefined ? [] : [body]));
  return record(0x01, Buffer.concat([u32(pages.length), u32(0), ...list, ...bodies]));
}

export function xlHeader(
  config: string,
  options: { mandatory?: number; optional?: number; tail?: Buffer } = {},
): Buffer {
  const text = Buffer.from(config + '\0', 'utf8');
  const data = Buffer.concat([u32(text.length), text, options.tail ?? Buffer.alloc(0)]);
  return Buffer.concat([
    Buffer.from('Xen saved domain, xl format\n \0 \r', 'latin1'),
    u32(0x01020304),
    u32(options.mandatory ?? 3),
    u32(options.optional ?? 0),
    u32(data.length),
    data,
  ]);
}

export function libxlHeader(options = 0): Buffer {
  return Buffer.concat([Buffer.from('LibxlFmt', 'latin1'), u32(2, true), u32(options, true)]);
}

export function libxcHeader(version: number, type: 1 | 2, xen: readonly [number, number] = [4, 17]): Buffer {
  return Buffer.concat([
    Buffer.alloc(8, 0xff),
    Buffer.from('XENF', 'latin1'),
    u32(version, true),
    Buffer.alloc(8),
    u32(type),
    u16(12),
    u16(0),
    u32(xen[0]),
    u32(xen[1]),
  ]);
}

/** A page of bytes that only this seed gives; seed 0 gives zeroes. */
export function patternPage(seed: number): Buffer {
  const page = Buffer.alloc(4096);
  if (seed === 0) return page;
  let state = (seed * 2654435761) >>> 0;
  for (let at = 0; at < 4096; at += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    page.writeUInt32LE(state, at);
  }
  return page;
}

/** An ordinary page; seed 0 is a page of zeroes. */
export const dataPage = (pfn: number, seed: number): Page => ({ pfn, type: 0, body: patternPage(seed) });
export const tablePage = (pfn: number, type: number, seed: number): Page => ({
  pfn,
  type,
  body: patternPage(seed),
});
export const bodiless = (pfn: number, type: number): Page => ({ pfn, type });

export interface GuestOptions {
  readonly version?: 2 | 3;
  readonly config?: string;
  readonly width?: 4 | 8;
  /** PV: size of the pfn space; default one above the highest page. */
  readonly nrPfns?: number;
  /** The pages of each PAGE_DATA record. */
  readonly batches?: readonly (readonly Page[])[];
  /** Ids of the online vCPUs. */
  readonly vcpus?: readonly number[];
  /** vCPUs among these have empty extended, xsave and MSR records. */
  readonly emptyBlobs?: readonly number[];
  readonly policies?: boolean;
  readonly optionalTail?: Buffer;
  readonly sharedInfo?: Buffer;
}

export function xlConfig(type: string, name = 'guest'): string {
  const config = {
    c_info: { type, name, uuid: '217d4919-afa2-4b88-9e3c-ced9bd3fa095' },
    b_info: { max_vcpus: 2, max_memkb: 4096 },
  };
  return JSON.stringify(config, null, 4) + '\n';
}

export const defaultBatches: readonly (readonly Page[])[] = [
  [dataPage(0, 1), dataPage(1, 0), tablePage(2, 0xc, 2), bodiless(3, 0xf)],
  [tablePage(4, 1, 3), bodiless(5, 0xd), bodiless(6, 0xe), dataPage(7, 4)],
];

const cpuid = (): Buffer => Buffer.concat([patternPage(90).subarray(0, 48)]);
const msrs = (): Buffer => patternPage(91).subarray(0, 32);
const tsc = (): Buffer => Buffer.concat([u32(0), u32(2596121), u64(35185216168), u32(1), u32(0)]);

function headParts(type: 1 | 2, kind: string, options: GuestOptions): Part[] {
  const tail = options.optionalTail === undefined ? {} : { tail: options.optionalTail };
  return [
    { name: 'xl', bytes: xlHeader(options.config ?? xlConfig(kind), tail) },
    { name: 'libxl', bytes: libxlHeader() },
    { name: 'context', bytes: record(1) },
    { name: 'libxc', bytes: libxcHeader(options.version ?? 3, type) },
  ];
}

function staticParts(options: GuestOptions): Part[] {
  const policies = [
    { name: 'cpuid', bytes: record(0x11, cpuid()) },
    { name: 'msr', bytes: record(0x12, msrs()) },
  ];
  return [
    ...(options.policies === false ? [] : policies),
    ...((options.version ?? 3) === 3 ? [{ name: 'static', bytes: record(0x10) }] : []),
  ];
}

const pageParts = (options: GuestOptions): Part[] =>
  (options.batches ?? defaultBatches).map((pages) => ({ name: 'pages', bytes: pageData(pages) }));

const tailParts: readonly Part[] = [
  { name: 'end', bytes: record(0) },
  { name: 'libxl end', bytes: record(0) },
];

function vcpuParts(id: number, width: 4 | 8, isEmpty: boolean): Part[] {
  const blob = (bytes: number, seed: number) =>
    Buffer.concat(Array.from({ length: 2 }, (_, i) => patternPage(seed + i))).subarray(0, bytes);
  const part = (name: string, type: number, body: Buffer) => ({
    name: `${name} ${id}`,
    bytes: record(type, Buffer.concat([u32(id), u32(0), body])),
  });
  return [
    part('basic', 0x04, blob(width === 8 ? 5168 : 2800, 100 + id)),
    part('extended', 0x05, isEmpty ? Buffer.alloc(0) : blob(64, 200 + id)),
    part('xsave', 0x06, isEmpty ? Buffer.alloc(0) : blob(848, 300 + id)),
    part('msrs', 0x0c, isEmpty ? Buffer.alloc(0) : blob(32, 400 + id)),
  ];
}

/** PFNs of the p2m's leaves, as the P2M_FRAMES body's length rule wants them. */
export function p2mFramesOf(nrPfns: number, width: 4 | 8): number[] {
  return Array.from({ length: Math.ceil(nrPfns / (4096 / width)) }, (_, i) => (i * 7 + 1) % nrPfns);
}

/** A PV guest's file in stock order. */
export function pvParts(options: GuestOptions = {}): Part[] {
  const width = options.width ?? 8;
  const highest = Math.max(...(options.batches ?? defaultBatches).flat().map(({ pfn }) => pfn));
  const nrPfns = options.nrPfns ?? highest + 1;
  const frames = p2mFramesOf(nrPfns, width);
  const info = Buffer.from([width, width === 8 ? 4 : 3, 0, 0, 0, 0, 0, 0]);
  return [
    ...headParts(1, 'pv', options),
    { name: 'info', bytes: record(0x02, info) },
    ...staticParts(options),
    { name: 'p2m', bytes: record(0x03, Buffer.concat([u32(0), u32(nrPfns - 1), ...frames.map(u64)])) },
    ...pageParts(options),
    { name: 'tsc', bytes: record(0x08, tsc()) },
    { name: 'shared', bytes: record(0x07, options.sharedInfo ?? patternPage(80)) },
    ...(options.vcpus ?? [0]).flatMap((id) =>
      vcpuParts(id, width, options.emptyBlobs?.includes(id) === true),
    ),
    ...tailParts,
  ];
}

/** An HVM or PVH guest's file in the order libxc 4.17 writes. */
export function hvmParts(options: GuestOptions & { readonly kind?: 'hvm' | 'pvh' } = {}): Part[] {
  const kind = options.kind ?? 'pvh';
  const params = Buffer.concat([u32(2), u32(0), u64(1), u64(0xfeffc), u64(5), u64(0xfeffd)]);
  const batches = (options.batches ?? defaultBatches).map((pages) =>
    pages.map((page) => (page.type < 0xd ? { ...page, type: 0 } : page)),
  );
  const emulator = (body: string) => Buffer.concat([u32(2), u32(0), Buffer.from(body, 'latin1')]);
  const emulators = [
    { name: 'emulator xenstore', bytes: record(2, emulator('physmap/0/name\0vga\0')) },
    { name: 'emulator', bytes: record(3, emulator('QEVM of some kind')) },
  ];
  return [
    ...headParts(2, kind, options),
    ...staticParts(options),
    ...pageParts({ ...options, batches }),
    { name: 'tsc', bytes: record(0x08, tsc()) },
    { name: 'context record', bytes: record(0x09, patternPage(70).subarray(0, 301)) },
    { name: 'params', bytes: record(0x0a, params) },
    { name: 'end', bytes: record(0) },
    ...(kind === 'hvm' ? emulators : []),
    { name: 'libxl end', bytes: record(0) },
  ];
}

export const fileOf = (parts: readonly Part[]): Buffer => Buffer.concat(parts.map(({ bytes }) => bytes));

/** The parts with the first of that name replaced by `by` (nothing, one or several). */
export function replacing(parts: readonly Part[], name: string, by: readonly Buffer[]): Part[] {
  const at = parts.findIndex((part) => part.name === name);
  if (at < 0) throw new Error(`no part ${name}`);
  return [...parts.slice(0, at), ...by.map((bytes) => ({ name, bytes })), ...parts.slice(at + 1)];
}

/** The parts with the first of that name moved to just before the first named `before`. */
export function moved(parts: readonly Part[], name: string, before: string): Part[] {
  const part = parts.find((one) => one.name === name);
  const rest = parts.filter((one) => one !== part);
  const at = rest.findIndex((one) => one.name === before);
  if (part === undefined || at < 0) throw new Error(`no part ${name} or ${before}`);
  return [...rest.slice(0, at), part, ...rest.slice(at)];
}

/** The parts with another put just before the first named `before`. */
export function inserted(parts: readonly Part[], before: string, bytes: Buffer): Part[] {
  const at = parts.findIndex((one) => one.name === before);
  if (at < 0) throw new Error(`no part ${before}`);
  return [...parts.slice(0, at), { name: 'inserted', bytes }, ...parts.slice(at)];
}

/** Byte offset of the first part of that name. */
export function offsetOf(parts: readonly Part[], name: string): number {
  const at = parts.findIndex((part) => part.name === name);
  if (at < 0) throw new Error(`no part ${name}`);
  return fileOf(parts.slice(0, at)).length;
}
