/** What images and streams say of a domain besides its pages, coded in a strict subset of MessagePack. */
import type { Buffer } from 'node:buffer';
import { Packr, Unpackr } from 'msgpackr';
import * as z from 'zod';
import { DormouseError } from '../errors.js';
import { MAX_MANIFEST_BYTES } from './format.js';

/** MessagePack markers this codec admits: every one has a fixed meaning, and none is a float or an extension. */
const MAX_DEPTH = 32;
/** Most values in all, so that each of 2^32 pfns' p2m leaves can be named; a decoded number takes some tens of bytes. */
const MAX_VALUES = 10_000_000;
/** Most maps and arrays: even an empty one takes more than a hundred bytes once decoded. */
const MAX_CONTAINERS = 1 << 19;

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

const isContainer = (marker: number): boolean =>
  (marker >= 0x80 && marker < 0xa0) || (marker >= 0xdc && marker <= 0xdf);

/**
 * Walks the bytes without building anything: every length must fit into what is left, and values are counted, so that
 * decoding takes a few hundred MiB at most.
 */
function checkStructure(bytes: Buffer): void {
  const open: number[] = [1];
  let [at, values, containers] = [0, 0, 0];
  while (open.length > 0) {
    const left = open[open.length - 1] ?? 0;
    if (left === 0) {
      open.pop();
      continue;
    }
    open[open.length - 1] = left - 1;
    const { size, children } = item(bytes, at);
    containers += isContainer(bytes.readUInt8(at)) ? 1 : 0;
    if (++values > MAX_VALUES || containers > MAX_CONTAINERS) throw new RangeError('too many values');
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

/** Bytes of a value. Throws INTERNAL if it does not fit the schema, as only this program makes them. */
export function encodeMessage<T>(schema: z.ZodType<T>, value: T, what: string): Buffer {
  const checked = schema.safeParse(value);
  if (!checked.success) throw new DormouseError('INTERNAL', `${what}: ${z.prettifyError(checked.error)}`);
  const bytes = packr.pack(widen(checked.data));
  try {
    checkStructure(bytes);
  } catch (cause) {
    throw new DormouseError('INTERNAL', `${what} holds a value its coding does not admit`, { cause });
  }
  if (bytes.length > MAX_MANIFEST_BYTES)
    throw new DormouseError('INTERNAL', `${what} would take ${bytes.length} bytes`);
  return bytes;
}

/** The value in these bytes; IMAGE_DAMAGED if they hold none, or more values than any domain needs. */
export function decodeMessage<T>(schema: z.ZodType<T>, bytes: Buffer, what: string): T {
  if (bytes.length > MAX_MANIFEST_BYTES)
    throw new DormouseError('IMAGE_DAMAGED', `${what} claims ${bytes.length} bytes`);
  let decoded: unknown;
  try {
    checkStructure(bytes);
    decoded = narrow(unpackr.unpack(bytes));
  } catch (cause) {
    throw new DormouseError('IMAGE_DAMAGED', `${what} cannot be decoded: ${String(cause)}`, { cause });
  }
  const checked = schema.safeParse(decoded);
  if (checked.success) return checked.data;
  throw new DormouseError('IMAGE_DAMAGED', `${what} is not valid: ${z.prettifyError(checked.error)}`);
}
