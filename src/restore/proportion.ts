/** What an image that nobody vouches for wants of the host out of all proportion to the guest that is in it. */
import { onlineVcpus } from '../domain/hvm_context.js';
import { DormouseError } from '../errors.js';
import { MAX_PFNS } from '../image/format.js';
import type { ImageReader } from '../image/reader.js';
import { memoryBytesOf } from '../pfn/counts.js';
import { pageBytes } from '../pfn/page_words.js';
import { mostPfnsFor } from '../pfn/proportion.js';
import type { parseXlConfig } from '../xenstream/xl_config.js';

type Build = NonNullable<NonNullable<ReturnType<typeof parseXlConfig>>['b_info']>;

/** Begins the place of what no other configuration changes. */
export const ofPages = 'geometry.';

const times = 16;
/** Whatever the guest has. */
const leastMostKib = 2 ** 20;
const leastMostVcpus = 128;

const pagesOf = (reader: ImageReader): number => memoryBytesOf(reader.counts) / pageBytes;

/** Pfns that a domain of it may have at most. */
export const admittedPfns = (reader: ImageReader, isTrusted: boolean): number =>
  isTrusted ? MAX_PFNS : mostPfnsFor(pagesOf(reader));

/** Each such value by its place, and what it is held against; `build` is what libxl is given. */
export function outOfProportion(reader: ImageReader, build: Build): string[] {
  const kib = memoryBytesOf(reader.counts) / 1024;
  const vcpus = Math.max(1, onlineVcpus(reader.manifest.state).length);
  const [mostKib, mostVcpus] = [times * kib + leastMostKib, Math.max(times * vcpus, leastMostVcpus)];
  const held: readonly (readonly [string, number | undefined, number, string])[] = [
    [`${ofPages}nrPfns`, reader.nrPfns, admittedPfns(reader, false), `${pagesOf(reader)} pages`],
    ['b_info.max_memkb', build.max_memkb, mostKib, `${kib} KiB of pages`],
    ['b_info.target_memkb', build.target_memkb, mostKib, `${kib} KiB of pages`],
    ['b_info.max_vcpus', build.max_vcpus, mostVcpus, `${vcpus} vCPUs`],
  ];
  return held
    .filter(([, value = 0, most]) => value > most)
    .map(([place, value, , has]) => `${place} = ${value}, for a guest with ${has}`);
}

/** CONFIG_UNTRUSTED for one of more pfns than were admitted. */
export function requireAdmitted(reader: ImageReader, mostPfns: number): void {
  if (reader.nrPfns <= mostPfns) return;
  const { path, nrPfns } = reader;
  throw new DormouseError(
    'CONFIG_UNTRUSTED',
    `an image of ${nrPfns} pfns, of which ${mostPfns} are admitted`,
    {
      place: { path },
    },
  );
}
