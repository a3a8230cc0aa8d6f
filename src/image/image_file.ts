/** One file of an image, open: header and footer, checked against each other and the file, and its regions on demand. */
import type { FileHandle } from 'node:fs/promises';
import { asDormouseError, DormouseError, inFile } from '../errors.js';
import { totalPages } from '../pfn/counts.js';
import { type Ancestor, decodeAncestors } from './ancestors.js';
import { bytesBehindFooter, longerBy } from './behind_footer.js';
import { openImageFile, readExactly } from './file.js';
import {
  ANCESTOR_SIZE,
  CHUNK_DIGEST_SIZE,
  CHUNK_ENTRY_SIZE,
  FORMAT_MINOR,
  LZ4_MAX_RATIO,
  MAP_BLOCK_RUNS,
  MAP_BLOCK_SIZE,
  MAP_RUN_SIZE,
  MAX_ANCESTORS,
  MAX_CHUNK_BODIES,
  MAX_MANIFEST_BYTES,
  PAGE_HASH_SIZE,
  REGIONS,
  XL_MAGIC,
  isZero,
  wholePages,
  type Region,
} from './format.js';
import { damaged, decodeFooter, decodeHeader, rootOf, type ImageHeader, type SealedFooter } from './frame.js';
import { sha256 } from './sha256.js';
import { pageBytes } from '../pfn/page_words.js';

/** Whether no region is larger than what the footer counts may take: a file with holes is as long as it says it is. */
function isPossible(header: ImageHeader, footer: SealedFooter): boolean {
  const { regions, chunksEnd, chunkCount, storedPages, pageMapRuns } = footer;
  const mapBlocks = Math.ceil(pageMapRuns / MAP_BLOCK_RUNS);
  return (
    regions.manifest.size <= MAX_MANIFEST_BYTES &&
    regions.ancestors.size <= MAX_ANCESTORS * ANCESTOR_SIZE &&
    regions.chunkTable.size === chunkCount * CHUNK_ENTRY_SIZE &&
    chunkCount <= chunksEnd / pageBytes - 1 &&
    storedPages <= chunkCount * MAX_CHUNK_BODIES &&
    regions.pageHashes.size === (header.hasPageHashes ? storedPages * PAGE_HASH_SIZE : 0) &&
    regions.chunkDigests.size === (header.hasChunkDigests ? chunkCount * CHUNK_DIGEST_SIZE : 0) &&
    pageMapRuns <= footer.nrPfns &&
    pageMapRuns * MAP_RUN_SIZE <= regions.pageMap.size * LZ4_MAX_RATIO &&
    regions.pageMap.size <= pageMapRuns * MAP_RUN_SIZE + mapBlocks * MAP_BLOCK_SIZE &&
    totalPages(footer.counts) === footer.nrPfns
  );
}

/** The footer's sizes must tile the file, and what they claim must be possible, before anything is allocated. */
function checkLayout(header: ImageHeader, footer: SealedFooter, fileSize: number): void {
  const at = fileSize - pageBytes;
  const { regions, chunksEnd } = footer;
  let next = chunksEnd;
  const inOrder = REGIONS.every((name) => {
    const { offset, size } = regions[name];
    const follows = offset === next;
    next += wholePages(size);
    return follows;
  });
  // A newer minor version may have regions of its own behind those.
  const ends = footer.minor > FORMAT_MINOR ? next <= at : next === at;
  const tiles = footer.fileSize === fileSize && chunksEnd >= pageBytes && chunksEnd % pageBytes === 0;
  if (!inOrder || !ends || !tiles) throw damaged('footer: its regions do not make up the file', at);
  if (footer.imageId !== header.imageId || footer.nrPfns !== header.nrPfns || footer.minor !== header.minor)
    throw damaged('header and footer are of different images', at);
  if (!isPossible(header, footer)) throw damaged('footer: sizes that cannot be', at);
  const lineage =
    regions.ancestors.size > 0 === (header.parent !== null) &&
    (header.parent !== null || (footer.mapKind === 'full' && footer.counts.sameAsParent === 0)) &&
    (footer.contentRoot === null || header.hasPageHashes);
  if (!lineage) throw damaged('header and footer contradict each other', at);
}

function refuseXlFile(page: Buffer, path: string): void {
  if (!page.subarray(0, XL_MAGIC.length).equals(XL_MAGIC)) return;
  const advice = `Run \`dormouse image convert ${path} NEW.dmi\` and give it NEW.dmi.`;
  throw new DormouseError('IMAGE_INCOMPATIBLE', `${path} is an xl save file: convert it first`, {
    place: { path },
    advice,
  });
}

/** IMAGE_DAMAGED. */
async function decodedFooter(
  file: FileHandle,
  page: Buffer,
  size: number,
  knownRoot: string | null,
): Promise<SealedFooter> {
  try {
    return decodeFooter(page, knownRoot);
  } catch (thrown) {
    const more = await bytesBehindFooter(file, size);
    throw more === null ? thrown : damaged(longerBy(more), size - more);
  }
}

/** Read at once with the footer: mostly all regions of a small increment, and a deep chain has thousands of those. */
const tailBytes = 8 * pageBytes;

export class ImageFile {
  private constructor(
    readonly path: string,
    readonly file: FileHandle,
    readonly size: number,
    readonly header: ImageHeader,
    readonly footer: SealedFooter,
    /** The last bytes of the file. */
    private readonly tail: Buffer,
  ) {}

  /**
   * `knownRoot`: what an image that was checked says that this one's root is; its signature adds nothing to that and is not
   * checked. IMAGE_NOT_FOUND, IMAGE_READ_FAILED, IMAGE_DAMAGED, IMAGE_INCOMPATIBLE. To be closed.
   */
  static async open(path: string, knownRoot: string | null = null): Promise<ImageFile> {
    const { file, size } = await openImageFile(path);
    try {
      const headerPage = await readExactly(file, 0, Math.min(size, pageBytes));
      refuseXlFile(headerPage, path);
      const header = decodeHeader(headerPage);
      if (size < 2 * pageBytes) throw damaged('the file ends early', size);
      const tailSize = Math.min(size, tailBytes);
      const tail = await readExactly(file, size - tailSize, tailSize);
      const footerPage = tail.subarray(tailSize - pageBytes);
      const footer = await decodedFooter(file, footerPage, size, knownRoot);
      checkLayout(header, footer, size);
      if (rootOf(headerPage, footerPage) !== footer.root)
        throw damaged('the root differs from what the image holds', size - pageBytes);
      if (footer.signer && !header.hasChunkDigests)
        throw damaged('it is signed but has no digests that the signature could vouch for', 0);
      return new ImageFile(path, file, size, header, footer, tail);
    } catch (thrown) {
      await file.close();
      throw inFile(asDormouseError(thrown), path);
    }
  }

  /** Of a newer minor version: what this one does not know may be there. */
  get newer(): boolean {
    return this.header.minor > FORMAT_MINOR;
  }

  /** The bytes of a region without its padding, checked against its hash. IMAGE_DAMAGED, IMAGE_READ_FAILED, NO_MEMORY. */
  async region(name: Region): Promise<Buffer> {
    const { offset, size, hash } = this.footer.regions[name];
    const inTail = offset - (this.size - this.tail.length);
    const span =
      inTail < 0
        ? await readExactly(this.file, offset, wholePages(size))
        : this.tail.subarray(inTail, inTail + wholePages(size));
    if (sha256(span) !== hash) throw damaged(`the hash of its ${name} differs`, offset);
    if (!isZero(span, size)) throw damaged(`the padding of its ${name} is not zero`, offset);
    return span.subarray(0, size);
  }

  /** The parent first; none for a full image. IMAGE_DAMAGED. */
  async ancestors(): Promise<Ancestor[]> {
    const { parent, sequence } = this.header;
    const ancestors = decodeAncestors(await this.region('ancestors'), this.newer);
    const [first] = ancestors;
    const fits = parent
      ? first?.imageId === parent.imageId && first.root === parent.root && first.sequence === sequence - 1
      : first === undefined;
    if (!fits || ancestors.some((ancestor) => ancestor.sequence >= sequence))
      throw damaged('the table of ancestors contradicts the header', this.footer.regions.ancestors.offset);
    return ancestors;
  }

  async close(): Promise<void> {
    await this.file.close();
  }
}

/** IMAGE_NOT_FOUND, IMAGE_INCOMPATIBLE if another image has the name, and what else opening it may throw. */
export async function requireImage(path: string, wanted: Pick<Ancestor, 'imageId' | 'root'>): Promise<void> {
  const { header, footer, ...file } = await ImageFile.open(path, wanted.root);
  await file.file.close();
  if (header.imageId === wanted.imageId && footer.root === wanted.root) return;
  throw new DormouseError('IMAGE_INCOMPATIBLE', `${path} is another image now, ${header.imageId}`, {
    place: { path },
    advice: `Put image ${wanted.imageId} back there, under that name.`,
  });
}
