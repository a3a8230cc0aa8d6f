/** Says in what two `xl save` files differ, as a restore would see it. */
import { Buffer } from 'node:buffer';
import { createHash } from 'node:crypto';
import { MAX_PFNS } from '../image/format.js';
import { ByteSource } from '../xenstream/byte_source.js';
import { libxcRecord as rec, recordName } from '../xenstream/stream_format.js';
import {
  parseStream,
  type PageSlice,
  type StreamRecord,
  type StreamVisitor,
} from '../xenstream/stream_parser.js';
import { Survey } from '../xenstream/survey.js';
import { pageBytes } from '../pfn/page_words.js';
import { pageType } from '../pfn/page_type.js';

export interface Difference {
  /** What differs: "page", or a header's or record's name. */
  readonly what: string;
  readonly pfn?: number;
  readonly detail: string;
}

export interface CompareOptions {
  /**
   * True: leave out what holds machine frames by design and is written anew by a restore: the p2m's leaves, the start
   * info page, and in SHARED_INFO everything but vcpu_info and arch, and of those the pending selectors, the frame
   * list list and p2m_cr3.
   */
  readonly ignoreMachineFrames?: boolean;
  /** Most differences returned. Default 100. */
  readonly limit?: number;
}

const hashBytes = 16;
const neverSeen = 0xff;

/** Everything of one file: final type and hash of each page, headers, and all other records in order. */
class Content extends Survey {
  readonly records: StreamRecord[] = [];
  #types = Buffer.alloc(1 << 16, neverSeen);
  #hashes = Buffer.alloc(hashBytes << 16);

  override record(record: StreamRecord): void {
    super.record(record);
    this.records.push(record);
  }

  async take(slice: PageSlice, readBodies: () => Promise<Buffer>): Promise<void> {
    if (this.verifySeen) return;
    super.pages(slice);
    const bodies = await readBodies();
    let taken = 0;
    for (let i = 0; i < slice.count; ++i) {
      const [pfn, type] = [slice.pfns[i] ?? 0, slice.types[i] ?? 0];
      if (pfn >= this.#types.length) this.#grow(pfn + 1);
      this.#types[pfn] = type;
      this.#hashes.fill(0, pfn * hashBytes, (pfn + 1) * hashBytes);
      if (type >= pageType.broken) continue;
      const body = bodies.subarray(taken * pageBytes, (taken + 1) * pageBytes);
      ++taken;
      createHash('sha256')
        .update(body)
        .digest()
        .copy(this.#hashes, pfn * hashBytes, 0, hashBytes);
    }
  }

  #grow(pfns: number): void {
    const size = Math.max(pfns, this.#types.length * 2);
    this.#types = Buffer.concat([this.#types, Buffer.alloc(size - this.#types.length, neverSeen)]);
    this.#hashes = Buffer.concat([this.#hashes, Buffer.alloc(size * hashBytes - this.#hashes.length)]);
  }

  /** A pfn that never came is one without a frame. */
  typeOf(pfn: number): number {
    const type = this.#types[pfn] ?? neverSeen;
    return type === neverSeen ? pageType.xtab : type;
  }
  hashOf(pfn: number): Buffer {
    return this.#hashes.subarray(pfn * hashBytes, (pfn + 1) * hashBytes);
  }
}

async function contentOf(path: string): Promise<Content> {
  const content = new Content();
  const source = await ByteSource.open(path);
  const visitor: StreamVisitor = {
    xlHeader: (header) => content.xlHeader(header),
    libxlHeader: (header) => content.libxlHeader(header),
    libxcHeader: (header) => content.libxcHeader(header),
    record: (record) => content.record(record),
    pages: (slice, readBodies) => content.take(slice, readBodies),
  };
  try {
    await parseStream(source, visitor, { maxPfns: MAX_PFNS, maxStateBytes: 64 << 20 });
  } finally {
    await source.close();
  }
  return content;
}

/** Compares two `xl save` files (plain or gzip). Empty if they are the same to a restore. Errors: the parser's. */
export async function compareXenFiles(
  leftPath: string,
  rightPath: string,
  options: CompareOptions = {},
): Promise<Difference[]> {
  const left = await contentOf(leftPath);
  const right = await contentOf(rightPath);
  const found: Difference[] = [];
  const limit = options.limit ?? 100;
  const differ = (difference: Difference) => {
    if (found.length < limit) found.push(difference);
  };
  compareHeaders(left, right, differ);
  compareRecords(left, right, options.ignoreMachineFrames === true, differ);
  const skipped = options.ignoreMachineFrames === true ? machineFramePages(left, right) : new Set<number>();
  comparePages(left, right, skipped, differ);
  return found;
}

type Differ = (difference: Difference) => void;

function compareHeaders(left: Content, right: Content, differ: Differ): void {
  const [a, b] = [left.streamManifest(), right.streamManifest()];
  for (const part of ['mandatoryFlags', 'optionalFlags'] as const)
    if (a.xl[part] !== b.xl[part])
      differ({ what: 'xl header', detail: `${part}: ${a.xl[part]} against ${b.xl[part]}` });
  if (!a.xl.optionalData.equals(b.xl.optionalData))
    differ({ what: 'xl header', detail: 'the configurations differ' });
  const [libxl, libxc] = [JSON.stringify([a.libxl, b.libxl]), JSON.stringify([a.libxc, b.libxc])];
  if (JSON.stringify(a.libxl) !== JSON.stringify(b.libxl)) differ({ what: 'libxl header', detail: libxl });
  if (JSON.stringify(a.libxc) !== JSON.stringify(b.libxc)) differ({ what: 'libxc header', detail: libxc });
  if (left.nrPfns !== right.nrPfns)
    differ({ what: 'page', detail: `${left.nrPfns} pfns against ${right.nrPfns}` });
}

function compareRecords(left: Content, right: Content, masked: boolean, differ: Differ): void {
  const count = Math.max(left.records.length, right.records.length);
  for (let i = 0; i < count; ++i) {
    const [a, b] = [left.records[i], right.records[i]];
    const nameOf = (one: StreamRecord | undefined) => (one ? recordName(one.layer, one.type) : 'nothing');
    if (a?.layer !== b?.layer || a?.type !== b?.type) {
      differ({ what: 'records', detail: `record ${i} is ${nameOf(a)} against ${nameOf(b)}` });
      return;
    }
    if (a === undefined || b === undefined) return;
    const mask = masked && a.layer === 'libxc' && a.type === rec.sharedInfo && left.guestWidth === 8;
    const [x, y] = mask ? [restoredPart(a.body), restoredPart(b.body)] : [a.body, b.body];
    if (!x.equals(y)) differ({ what: nameOf(a), detail: firstDifference(x, y) });
  }
}

function firstDifference(a: Buffer, b: Buffer): string {
  if (a.length !== b.length) return `${a.length} bytes against ${b.length}`;
  const at = a.findIndex((byte, i) => byte !== b[i]);
  return `byte ${at}: ${a.subarray(at, at + 8).toString('hex')} against ${b.subarray(at, at + 8).toString('hex')}`;
}

/** What a restore takes from a 64-bit shared info page: vcpu_info and arch, but for what it writes itself. */
function restoredPart(sharedInfo: Buffer): Buffer {
  const part = Buffer.from(sharedInfo);
  part.fill(0, 2048, 3088);
  for (let vcpu = 0; vcpu < 32; ++vcpu) part.fill(0, vcpu * 64 + 8, vcpu * 64 + 16);
  part.fill(0, 3096, 3104);
  part.fill(0, 3112, 3120);
  return part.fill(0, 3136);
}

/** The p2m's leaves and start info, of either file. Start info is where vCPU 0's rdx points in a 64-bit guest. */
function machineFramePages(...contents: readonly Content[]): Set<number> {
  const pages = new Set<number>();
  for (const { p2mFrames, state, guestWidth } of contents) {
    for (const pfn of p2mFrames) pages.add(pfn);
    const first = state.vcpus.find(({ id }) => id === 0);
    if (guestWidth === 8 && first !== undefined) pages.add(Number(first.basic.readBigUInt64LE(616)));
  }
  return pages;
}

function comparePages(left: Content, right: Content, skipped: ReadonlySet<number>, differ: Differ): void {
  const count = Math.max(left.nrPfns, right.nrPfns);
  for (let pfn = 0; pfn < count; ++pfn) {
    const [a, b] = [left.typeOf(pfn), right.typeOf(pfn)];
    if (a !== b) differ({ what: 'page', pfn, detail: `type ${a} against ${b}` });
    else if (a < pageType.broken && !skipped.has(pfn) && !left.hashOf(pfn).equals(right.hashOf(pfn)))
      differ({ what: 'page', pfn, detail: 'contents differ' });
  }
}
