/**
 * Verifies an image without the writer's or the reader's code, and with it the ancestors that hold pages of it. It goes on
 * after damage. It shares with them the constants of format.ts, and the manifest's schema.
 */
import type { FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { asDormouseError, DormouseError } from '../errors.js';
import { hash128 } from '../pfn/page_scan.js';
import { openImageFile, realPath } from './file.js';
import { FOOTER, PAGE_HASH_SIZE } from './format.js';
import { type DeltaBase, hexAt, MapRuns, type NamedFile } from './parse.js';
import type { Finding } from './finding.js';
import { FileVerifier } from './verify_file.js';
import { pageBytes, descriptor } from '../pfn/page_words.js';
import { classNames } from '../pfn/counts.js';

export type { Finding } from './finding.js';

export interface VerifyReport {
  readonly path: string;
  /** Hex, or null where the first page is unreadable. */
  readonly imageId: string | null;
  /** The root as recomputed, or null where header or footer is damaged. */
  readonly root: string | null;
  /** Of all files. */
  readonly bytesRead: number;
  readonly chunksChecked: number;
  readonly blocksDecoded: number;
  readonly nrPfns: number;
  /** Paths of the ancestors that were verified too. */
  readonly ancestors: readonly string[];
  /**
   * Null where the image has no content root, or it was not reached for findings. False where it was not compared, because by far
   * most of its pages are stored nowhere: each of them takes work, whatever the size of the file.
   */
  readonly contentRootCompared: boolean | null;
  /** Empty for a whole image. At most 1000; `more` counts the rest. */
  readonly findings: readonly Finding[];
  readonly more: number;
}

export interface VerifyOptions {
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

const MOST_FINDINGS = 1000;
/** Pages that a content root counts and no file stores: so many, and so many more for each that is stored. */
const MOST_UNSTORED = 2 ** 22;
const UNSTORED_PER_STORED = 64;
/** Pages between two looks at whether it was cancelled. */
const PAGES_AT_ONCE = 1 << 14;

interface Member {
  readonly path: string;
  readonly handle: FileHandle;
  readonly file: FileVerifier;
}

class ImageVerifier {
  readonly findings: Finding[] = [];
  more = 0;
  bytesRead = 0;
  contentRootCompared: boolean | null = null;
  /** The image's own file first. */
  readonly members: Member[] = [];
  private totalBytes = 0;

  constructor(
    private readonly path: string,
    private readonly options: VerifyOptions,
  ) {}

  private find(finding: Finding): void {
    if (this.findings.length < MOST_FINDINGS) this.findings.push(finding);
    else this.more++;
  }

  private countBytes(bytes: number): void {
    if (this.options.signal?.aborted) throw new DormouseError('CANCELLED', 'verification was cancelled');
    this.bytesRead += bytes;
    this.options.onProgress?.(Math.min(this.bytesRead, this.totalBytes), this.totalBytes);
  }

  private async add(path: string): Promise<Member> {
    const { file: handle, size } = await openImageFile(path);
    this.totalBytes += size;
    const context = {
      find: (finding: Finding) => this.find(finding),
      read: (bytes: number) => this.countBytes(bytes),
      basePage: (of: FileVerifier, base: DeltaBase, pfn: number, kind: number) =>
        this.basePage(of, base, pfn, kind),
    };
    const isOwn = this.members.length === 0;
    const file = new FileVerifier(handle, size, context, isOwn ? undefined : path);
    const member = { path, handle, file };
    this.members.push(member);
    await file.readFrame();
    return member;
  }

  async run(): Promise<FileVerifier> {
    const { file } = await this.add(this.path);
    const map = await this.wholeMap();
    for (const [source, member] of this.members.entries()) {
      await member.file.readChunks(map && { map, source });
    }
    if (map && this.findings.length === 0) await this.checkContentRoot(file, map);
    return file;
  }

  /** The member that a file names; null, and a finding, where it is another image or not there. */
  private async member(of: Member, wanted: NamedFile): Promise<number | null> {
    const path = join(dirname(realPath(of.path)), wanted.name);
    const known = this.members.findIndex(
      ({ file }) => file.imageId === wanted.imageId && file.root === wanted.root,
    );
    if (known >= 0) return known;
    try {
      const { file } = await this.add(path);
      const isIt =
        file.imageId === wanted.imageId &&
        file.root === wanted.root &&
        file.sequence === wanted.sequence &&
        file.chainId === of.file.chainId;
      if (isIt) return this.members.length - 1;
      this.find({ what: `it is not image ${wanted.imageId}, on which ${of.path} rests`, path });
    } catch (thrown) {
      const { code, message } = asDormouseError(thrown);
      if (code !== 'IMAGE_NOT_FOUND') throw thrown;
      this.find({ what: `${of.path} rests on image ${wanted.imageId}: ${message}`, path });
    }
    return null;
  }

  /** All that deltas may rest on was opened on the way to the maps. */
  private async basePage(
    of: FileVerifier,
    base: DeltaBase,
    pfn: number,
    kind: number,
  ): Promise<Buffer | string | null> {
    const wanted = of.ancestors.find(({ sequence }) => sequence === of.sequence - base.age);
    const member = this.members.find(
      ({ file }) => wanted && file.imageId === wanted.imageId && file.root === wanted.root,
    );
    return member ? await member.file.basePage(base, pfn, kind) : null;
  }

  /** Where each page is, through all maps down to a full one; its sources are members. Null where that cannot be told. */
  private async wholeMap(): Promise<MapRuns | null> {
    const layers: MapRuns[] = [];
    for (let at: number | null = 0; at !== null;) {
      const member: Member | undefined = this.members[at];
      if (!member?.file.map) return null;
      const file: FileVerifier = member.file;
      const sources: number[] = [at];
      const named = file.isFull ? file.ancestors : file.ancestors.slice(0, 1);
      for (const wanted of named) {
        const found = await this.member(member, wanted);
        if (found === null) return null;
        sources.push(found);
      }
      const layer = renumbered(file.map as MapRuns, sources);
      if (!this.leadsSomewhere(layer, file)) return null;
      layers.push(layer);
      at = file.isFull ? null : (sources[1] ?? null);
    }
    const map = layers.reduceRight((older, newer) => laidOver(newer, older));
    for (let run = 0; run < map.length; run++)
      if (map.kind[run] === 0) {
        this.find({ what: `pfn ${map.first[run] ?? 0} is in no image of the chain` });
        return null;
      }
    const own = this.members[0]?.file;
    // Of its own file that was told when the header was read, or the header is damaged.
    for (const { file, path } of this.members.slice(1))
      if (own?.isSigned && !file.hasDigests)
        this.find({ what: 'a signed image rests on it, and it has no digests', path });
    return map;
  }

  /** Also what a newer map hides must lead to chunks that are there: a reader looks at each map by itself. */
  private leadsSomewhere(map: MapRuns, file: FileVerifier): boolean {
    for (let run = 0; run < map.length; run++) {
      const holder = this.members[map.source[run] ?? 0]?.file;
      const [chunk = 0, slot = 0] = [map.chunk[run], map.slot[run]];
      if (!map.hasBody(run) || holder?.hasSlots(chunk, slot, map.count(run)) !== false) continue;
      file.find(`the page map seeks pfn ${map.first[run] ?? 0} in a chunk that has it not`);
      return false;
    }
    return true;
  }

  private async checkContentRoot(file: FileVerifier, map: MapRuns): Promise<void> {
    const { footer } = file;
    const said = footer && hexAt(footer, FOOTER.contentRoot);
    if (said === undefined || /^0*$/.test(said)) return;
    this.contentRootCompared = isInProportion(map);
    if (!this.contentRootCompared) return;
    let [sum, pages] = [0n, 0];
    for (let run = 0; run < map.length; run++) {
      if (map.type(run) === NO_FRAME) continue;
      const holder = this.members[map.source[run] ?? 0]?.file;
      if (map.hasBody(run) && !holder?.pageHashes) {
        this.find({ what: 'it has a content root, but an ancestor has no page hashes' });
        return;
      }
      for (let i = 0; i < map.count(run); i++) {
        if (++pages % PAGES_AT_ONCE === 0) await this.breathe();
        sum += summand(map, run, i, holder);
      }
    }
    const hex = (sum & ((1n << 256n) - 1n)).toString(16).padStart(64, '0');
    if (Buffer.from(hex, 'hex').reverse().toString('hex') !== said)
      this.find({ what: 'the content root is not that of its pages' });
  }

  /** Lets signals come through. CANCELLED. */
  private async breathe(): Promise<void> {
    await setImmediate();
    this.countBytes(0);
  }

  async close(): Promise<void> {
    for (const { handle } of this.members) await handle.close();
  }
}

const NO_FRAME = 15;
const zeroPage = Buffer.alloc(pageBytes);
const littleEndian = (hex: string): Buffer => Buffer.from(hex, 'hex').reverse();

function isInProportion(map: MapRuns): boolean {
  let [stored, unstored] = [0, 0];
  for (let run = 0; run < map.length; run++)
    if (map.hasBody(run)) stored += map.count(run);
    else if (map.type(run) !== NO_FRAME) unstored += map.count(run);
  return unstored <= MOST_UNSTORED + UNSTORED_PER_STORED * stored;
}

/** What one page adds to the content root. */
function summand(map: MapRuns, run: number, i: number, holder: FileVerifier | undefined): bigint {
  const type = map.type(run);
  const part = Buffer.alloc(32);
  part.writeBigUInt64LE(descriptor((map.first[run] ?? 0) + i, 0, type), 0);
  if (map.hasBody(run)) {
    const page = (holder?.firstPage[map.chunk[run] ?? 0] ?? 0) + (map.slot[run] ?? 0) + i;
    holder?.pageHashes?.copy(part, 16, page * PAGE_HASH_SIZE, (page + 1) * PAGE_HASH_SIZE);
  } else if (classNames[map.pageClass(run)] === 'zero') littleEndian(hash128(zeroPage)).copy(part, 16);
  const low = BigInt(`0x${hash128(part)}`);
  part.writeUInt8(1, 8);
  return low + (BigInt(`0x${hash128(part)}`) << 128n);
}

function renumbered(map: MapRuns, sources: readonly number[]): MapRuns {
  const made = new MapRuns();
  for (let run = 0; run < map.length; run++) {
    const [chunk = 0, slot = 0, kind = 0] = [map.chunk[run], map.slot[run], map.kind[run]];
    made.add(map.count(run), chunk, slot, sources[map.source[run] ?? 0] ?? 0, kind);
  }
  return made;
}

/** The newer map, with the older one's runs where it has none. */
function laidOver(newer: MapRuns, older: MapRuns): MapRuns {
  const made = new MapRuns();
  let below = 0;
  for (let run = 0; run < newer.length; run++) {
    const [kind = 0, count] = [newer.kind[run], newer.count(run)];
    if (kind !== 0) {
      made.add(count, newer.chunk[run] ?? 0, newer.slot[run] ?? 0, newer.source[run] ?? 0, kind);
      continue;
    }
    const end = made.covered + count;
    while (made.covered < end) {
      while (below < older.length && (older.first[below] ?? 0) + older.count(below) <= made.covered) below++;
      if (below === older.length) made.add(end - made.covered, 0, 0, 0, 0);
      else {
        const into = made.covered - (older.first[below] ?? 0);
        const slot = (older.slot[below] ?? 0) + (older.hasBody(below) ? into : 0);
        const part = Math.min(end - made.covered, older.count(below) - into);
        made.add(part, older.chunk[below] ?? 0, slot, older.source[below] ?? 0, older.kind[below] ?? 0);
      }
    }
  }
  return made;
}

/**
 * Reads all of the file and of the ancestors it rests on. Damage is reported, not thrown; errors: IMAGE_NOT_FOUND,
 * IMAGE_READ_FAILED, IMAGE_INCOMPATIBLE (a format this version cannot judge), CANCELLED.
 */
export async function verifyImage(path: string, options: VerifyOptions = {}): Promise<VerifyReport> {
  const verifier = new ImageVerifier(path, options);
  try {
    const { imageId, root, nrPfns } = await verifier.run();
    const { findings, more, bytesRead, members, contentRootCompared } = verifier;
    const sum = (of: 'chunksChecked' | 'blocksDecoded') =>
      members.reduce((total, { file }) => total + file[of], 0);
    return {
      ...{ path, imageId, root, bytesRead, nrPfns, contentRootCompared, findings, more },
      chunksChecked: sum('chunksChecked'),
      blocksDecoded: sum('blocksDecoded'),
      ancestors: members.slice(1).map((member) => member.path),
    };
  } finally {
    await verifier.close();
  }
}
