/** In what the ties of a domain to others differ, as two images of it hold them (`links` of their manifests). */
import { Buffer } from 'node:buffer';
import * as z from 'zod';
import type { DomainLinks } from '../domain/state.js';
import { pageBytes } from '../pfn/page_words.js';

export interface LinkDiff {
  /** Whose image holds any. */
  readonly heldBy: 'both' | 'from' | 'to' | 'none';
  /** Why the domain cannot go back to that instant in place; empty if it can, null where no links are. Unless both can, nothing follows. */
  readonly unfit: { readonly from: string | null; readonly to: string | null };
  /** Devices that only one of them has, or that were connected anew. */
  readonly devices: readonly string[];
  /** Event channels in another state. */
  readonly ports: readonly number[];
  /** Pages of rings that only one of them has, or with another content. */
  readonly ringPfns: readonly number[];
  /** What else differs: `start`, `grants`, `eventArrayPfn`, and `devices` where they have no names. */
  readonly other: readonly string[];
}

/** Keys whose values differ, one that is missing among them. */
function differing<K, V>(from: Map<K, V>, to: Map<K, V>, same: (a: V, b: V) => boolean): K[] {
  return [...new Set([...from.keys(), ...to.keys()])].filter((key) => {
    const [was, is] = [from.get(key), to.get(key)];
    return was === undefined || is === undefined || !same(was, is);
  });
}

const described = z.array(z.looseObject({ name: z.string() }));

/** Each device's text by its name; null if the text is of another form. */
function devicesOf(text: string): Map<string, string> | null {
  if (text === '') return new Map();
  try {
    const devices = described.parse(JSON.parse(text));
    return new Map(devices.map((device) => [device.name, JSON.stringify(device)]));
  } catch {
    return null;
  }
}

const ringBytes = 8 + pageBytes;

/** By pfn. What is cut short counts as it is: an image is not judged here. */
function ringsOf(rings: Buffer): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  for (let at = 0; at + 8 <= rings.length; at += ringBytes)
    found.set(Number(rings.readBigUInt64LE(at)), rings.subarray(at + 8, at + ringBytes));
  return found;
}

const channelsOf = ({ channels }: DomainLinks) => new Map([...channels].map((state, port) => [port, state]));
const equal = <T>(a: T, b: T): boolean => a === b;
const ascending = (numbers: number[]): number[] => numbers.sort((a, b) => a - b);

function ofBoth(from: DomainLinks, to: DomainLinks): Omit<LinkDiff, 'heldBy' | 'unfit'> {
  const [was, is] = [devicesOf(from.devices), devicesOf(to.devices)];
  const other = [
    ...(from.start === to.start ? [] : ['start']),
    ...(from.grants.equals(to.grants) ? [] : ['grants']),
    ...(from.eventArrayPfn === to.eventArrayPfn ? [] : ['eventArrayPfn']),
    ...((was && is) || from.devices === to.devices ? [] : ['devices']),
  ];
  return {
    devices: was && is ? differing(was, is, equal).sort() : [],
    ports: ascending(differing(channelsOf(from), channelsOf(to), equal)),
    ringPfns: ascending(differing(ringsOf(from.rings), ringsOf(to.rings), (a, b) => a.equals(b))),
    other,
  };
}

const nothing = { devices: [], ports: [], ringPfns: [], other: [] } as const;

export function diffLinks(from: DomainLinks | undefined, to: DomainLinks | undefined): LinkDiff {
  const unfit = { from: from?.unfit ?? null, to: to?.unfit ?? null };
  const heldBy = from && to ? 'both' : from ? 'from' : to ? 'to' : 'none';
  // Of one that is unfit nothing else was kept: all of it would differ.
  const comparable = from?.unfit === '' && to?.unfit === '';
  return { heldBy, unfit, ...(comparable ? ofBoth(from, to) : nothing) };
}
