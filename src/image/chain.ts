/** The files that an image's pages are in: its own, and those of its ancestors that are needed to know and read them. */
import { basename, dirname, join } from 'node:path';
import { asDormouseError, DormouseError } from '../errors.js';
import type { Ancestor } from './ancestors.js';
import { realPath } from './file.js';
import { MAX_DELTA_AGE } from './format.js';
import { ImageFile } from './image_file.js';
import type { LayerSetup, SourceSetup } from './native.js';

/** A file of a chain. */
export interface ChainFile extends Ancestor {
  readonly nrPfns: number;
  readonly hasChunkDigests: boolean;
  readonly hasPageHashes: boolean;
}

export interface Chain {
  /** The image's own file first. */
  readonly files: readonly ChainFile[];
  readonly sources: SourceSetup[];
  /** The image's own map first, then those it lies on, down to a full one. */
  readonly layers: LayerSetup[];
  /** Closes the files; what was made of the chain meanwhile has descriptors of its own. */
  close(): Promise<void>;
}

const nothing = Buffer.alloc(0);

type Tables = Pick<SourceSetup, 'chunkTable' | 'digests' | 'pageHashes'>;

/** Each takes several short reads, and a deep chain has thousands. */
const openedAtOnce = 16;

/** The file of an ancestor, known by its id and root; what is wrong with it names the file that was wanted. */
async function openAncestor(child: ImageFile, ancestor: Ancestor): Promise<ImageFile> {
  const path = join(dirname(realPath(child.path)), ancestor.name);
  const wanted = `${child.path} needs ${path} (image ${ancestor.imageId})`;
  const file = await ImageFile.open(path, ancestor.root).catch((thrown: unknown) => {
    const { code, message } = asDormouseError(thrown);
    const why = code === 'IMAGE_NOT_FOUND' ? 'which is not there' : `but ${message}`;
    throw new DormouseError(code, `${wanted}, ${why}`, {
      ...{ cause: thrown, place: { path } },
      ...(code === 'IMAGE_NOT_FOUND' && {
        advice: 'Put it there: the images of a chain stay in one folder.',
      }),
    });
  });
  const { header, footer } = file;
  const isIt =
    header.imageId === ancestor.imageId &&
    footer.root === ancestor.root &&
    header.sequence === ancestor.sequence &&
    header.chainId === child.header.chainId;
  if (isIt) return file;
  await file.close();
  const instead = `that file is now image ${header.imageId}, root ${footer.root.slice(0, 16)}`;
  throw new DormouseError('IMAGE_INCOMPATIBLE', `${wanted}, but ${instead}`, {
    place: { path },
    advice: `Put image ${ancestor.imageId} back there, under that name: ${child.path} is nothing without it.`,
  });
}

class ChainReader {
  /** By the number of the source. */
  readonly opened: ImageFile[] = [];
  /** Ancestors, some of which may not have become a source. */
  private readonly toClose: ImageFile[] = [];
  readonly files: ChainFile[] = [];
  readonly sources: SourceSetup[] = [];
  readonly layers: LayerSetup[] = [];
  private readonly indexById = new Map<string, number>();

  constructor(private readonly pageHashes: boolean) {}

  async read(top: ImageFile): Promise<void> {
    // By its own name: a link to it may lie in another folder, or lead elsewhere tomorrow.
    this.addSource(top, basename(realPath(top.path)), await this.tablesOf(top));
    for (let at: ImageFile | null = top; at;) at = await this.addLayer(at);
    await this.findBases();
    const [own] = this.opened;
    const unsure = this.files.find(({ hasChunkDigests }) => !hasChunkDigests);
    if (own?.footer.signer && unsure)
      throw new DormouseError(
        'IMAGE_DAMAGED',
        `${own.path} is signed, but ${unsure.name}, which holds pages of it, has no digests`,
      );
  }

  /** One map; returns the file it lies on, or null for a full one. */
  private async addLayer(file: ImageFile): Promise<ImageFile | null> {
    const { header, footer, newer } = file;
    const isFull = footer.mapKind === 'full';
    const ancestors = await file.ancestors();
    const sources = [this.indexById.get(header.imageId) ?? 0];
    if (isFull)
      for (let at = 0; at < ancestors.length; at += openedAtOnce)
        sources.push(...(await this.sourcesOf(file, ancestors.slice(at, at + openedAtOnce))));
    const map = await file.region('pageMap');
    const { nrPfns } = header;
    this.layers.push({ map, runs: footer.pageMapRuns, nrPfns, sparse: !isFull, newer, sources });
    const [parent] = ancestors;
    if (isFull || !parent) return null;
    const below = this.opened[await this.sourceOf(file, parent)];
    return below ?? null;
  }

  /** What deltas rest on is among what was opened: the maps below an image lead to its bases, and a full one names them. */
  private async findBases(): Promise<void> {
    for (const [source, file] of this.opened.entries()) {
      if (!file.header.hasDeltas) continue;
      const bases = new Array<number>(MAX_DELTA_AGE).fill(0);
      for (const ancestor of await file.ancestors()) {
        const age = file.header.sequence - ancestor.sequence;
        if (age <= MAX_DELTA_AGE) bases[age - 1] = this.known(ancestor) ?? 0;
      }
      this.sources[source] = { ...(this.sources[source] as SourceSetup), bases };
    }
  }

  private known({ imageId, root }: Ancestor): number | undefined {
    const known = this.indexById.get(imageId);
    return known !== undefined && this.files[known]?.root === root ? known : undefined;
  }

  private async sourceOf(child: ImageFile, ancestor: Ancestor): Promise<number> {
    const [source = 0] = await this.sourcesOf(child, [ancestor]);
    return source;
  }

  /** Those that are not open yet are opened and read beside each other, and count in the order given; so does the first fault. */
  private async sourcesOf(child: ImageFile, ancestors: readonly Ancestor[]): Promise<number[]> {
    const read = await Promise.allSettled(
      ancestors.map(async (ancestor) => {
        if (this.known(ancestor) !== undefined) return null;
        const file = await openAncestor(child, ancestor);
        this.toClose.push(file);
        return { file, tables: await this.tablesOf(file) };
      }),
    );
    return ancestors.map((ancestor, i) => {
      const one = read[i];
      if (one?.status === 'rejected') throw one.reason;
      const known = this.known(ancestor);
      if (known !== undefined || !one?.value) return known ?? 0;
      return this.addSource(one.value.file, ancestor.name, one.value.tables);
    });
  }

  private async tablesOf(file: ImageFile): Promise<Tables> {
    const { hasChunkDigests, hasPageHashes, hasDeltas } = file.header;
    const chunkTable = await file.region('chunkTable');
    const digests = hasChunkDigests ? await file.region('chunkDigests') : nothing;
    const wanted = this.pageHashes || hasDeltas;
    const pageHashes = wanted && hasPageHashes ? await file.region('pageHashes') : nothing;
    return { chunkTable, digests, pageHashes };
  }

  private addSource(file: ImageFile, name: string, tables: Tables): number {
    const { header, footer, newer } = file;
    const index = this.sources.length;
    this.opened.push(file);
    const { imageId, nrPfns, sequence, hasChunkDigests, hasPageHashes } = header;
    this.sources.push({
      ...{ fd: file.file.fd, name, nrPfns, newer, chunksEnd: footer.chunksEnd },
      ...{ deltas: header.hasDeltas, bases: [] },
      ...tables,
    });
    this.files.push({ imageId, root: footer.root, sequence, name, nrPfns, hasChunkDigests, hasPageHashes });
    this.indexById.set(imageId, index);
    return index;
  }

  async close(): Promise<void> {
    for (const file of this.toClose) await file.close();
  }
}

/**
 * What is needed to read the image that `top` is of; `pageHashes`: with the stored hashes of pages. Ancestors are looked for
 * in the image's folder. Errors: IMAGE_NOT_FOUND (an ancestor is missing), IMAGE_INCOMPATIBLE (another file has its name),
 * IMAGE_DAMAGED, IMAGE_READ_FAILED, each naming the file.
 */
export async function readChain(top: ImageFile, pageHashes: boolean): Promise<Chain> {
  const chain = new ChainReader(pageHashes);
  try {
    await chain.read(top);
    const { files, sources, layers } = chain;
    return { files, sources, layers, close: () => chain.close() };
  } catch (thrown) {
    await chain.close();
    throw thrown;
  }
}
