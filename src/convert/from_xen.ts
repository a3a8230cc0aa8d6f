/**
 * `xl save` file to image, in two passes: the first checks the whole stream and gathers everything but the pages'
 * contents, the second appends the pages. A file that is not whole is refused before anything is written.
 */
import { writingTo } from '../errors.js';
import { Buffer } from 'node:buffer';
import { performance } from 'node:perf_hooks';
import {
  noPages,
  type PageClass,
  memoryBytesOf,
  totalPages,
  type PageCounts,
  classNumber,
  classOfType,
} from '../pfn/counts.js';
import { MAX_PFNS } from '../image/format.js';
import type { Manifest } from '../image/manifest.js';
import type { Compression } from '../codec/compression.js';
import { type CommittedImage, ImageWriter } from '../image/writer.js';
import { ByteSource } from '../xenstream/byte_source.js';
import type { ConvertOptions, ConvertProgress } from './progress.js';
import { batchPfns, conversionCancelled, libxcRecord, withoutGuest } from '../xenstream/stream_format.js';
import type { FrameVisitor } from '../xenstream/frames/reader.js';
import {
  parseStream,
  type PageSlice,
  type StreamRecord,
  type StreamVisitor,
} from '../xenstream/stream_parser.js';
import { Survey } from '../xenstream/survey.js';
import { domainOfConfig } from '../xenstream/xl_config.js';
import { streamInvalid } from '../xenstream/frames/byte_reader.js';
import { pageBytes, descriptorHalf, lowHalf } from '../pfn/page_words.js';
import { pageType } from '../pfn/page_type.js';

/** Most bytes of records beside the pages: they all go into the manifest. */
const maxStateBytes = 32 << 20;

export interface FromXenOptions extends ConvertOptions {
  /** Written into the manifest as the program that made the image. */
  readonly tool?: string;
  readonly compression?: Compression;
  /** The image never has a name: of its path only the folder counts. Default false. */
  readonly nameless?: boolean;
  /** Called once the whole file is checked and before anything is written: what it throws is thrown. */
  readonly accept?: (domain: Manifest['domain']) => void;
}

export interface FromXenResult {
  readonly path: string;
  /** Of a nameless image, to be closed: until then `path` leads there, for other processes of this user too. */
  readonly descriptor: number | null;
  /** 32 hex digits. */
  readonly imageId: string;
  /** 64 hex digits. */
  readonly root: string;
  readonly name: string;
  readonly type: Manifest['domain']['type'];
  readonly counts: PageCounts;
  readonly memoryBytes: number;
  readonly storedBytes: number;
  readonly elapsedMs: number;
  /** Sentences about what the stream had and the image has not (repeated pages, a VERIFY run). */
  readonly notes: readonly string[];
}

const zeroPage = Buffer.alloc(pageBytes);

/** Takes streams of dormouse's own too: what its last frame says is the image's manifest but for the domain's. */
class FileSurvey extends Survey {
  own: Manifest | null = null;
  readonly frames: FrameVisitor = {
    begin: ({ nrPfns }) => {
      this.nrPfns = nrPfns;
    },
    pages: (descs) => {
      this.listed(descs.length);
    },
    end: (manifest) => {
      this.own = manifest;
    },
  };
}

/** Appends the stream's pages to an image. */
class PageAppender implements StreamVisitor {
  readonly frames: FrameVisitor = {
    begin: () => undefined,
    pages: (descs, bodies) => {
      this.writer.append(0, descs, bodies);
      this.report();
    },
    end: () => undefined,
  };
  readonly #descs = new BigUint64Array(batchPfns);
  readonly #words = new Uint32Array(this.#descs.buffer);
  readonly #packed = Buffer.allocUnsafeSlow(batchPfns * pageBytes);
  #verifySeen = false;

  constructor(
    private readonly writer: ImageWriter,
    private readonly nrPfns: number,
    private readonly report: () => void,
  ) {}

  record({ layer, type }: StreamRecord): void {
    if (layer === 'libxc' && type === libxcRecord.verify) this.#verifySeen = true;
  }

  async pages(slice: PageSlice, readBodies: () => Promise<Buffer>): Promise<void> {
    if (this.#verifySeen) return;
    const bodies = await readBodies();
    let taken = 0;
    let kept = 0;
    for (let i = 0; i < slice.count; ++i) {
      const [pfn, type] = [slice.pfns[i] ?? 0, slice.types[i] ?? 0];
      if (pfn >= this.nrPfns) throw streamInvalid('the file changed while it was read', slice.offset);
      let pageClass = classOfType(type);
      if (pageClass === 'data' || pageClass === 'table') {
        const from = taken++ * pageBytes;
        if (pageClass === 'data' && bodies.compare(zeroPage, 0, pageBytes, from, from + pageBytes) === 0)
          pageClass = 'zero';
        else bodies.copy(this.#packed, kept++ * pageBytes, from, from + pageBytes);
      }
      this.#describe(i, pfn, pageClass, type);
    }
    this.#append(slice.count, kept);
  }

  /** Pfns the stream never mentioned have no frame. */
  async unmentioned(survey: Survey, signal: AbortSignal | undefined): Promise<void> {
    let filled = 0;
    for (let pfn = 0; pfn < this.nrPfns; ++pfn) {
      if (survey.mentioned.has(pfn)) continue;
      this.#describe(filled++, pfn, 'noFrame', pageType.xtab);
      if (filled < batchPfns) continue;
      this.#append(filled, 0);
      filled = 0;
      if (signal?.aborted === true) throw conversionCancelled();
      await new Promise(setImmediate);
    }
    if (filled > 0) this.#append(filled, 0);
  }

  #describe(slot: number, pfn: number, pageClass: PageClass, type: number): void {
    this.#words[slot * 2] = lowHalf(pfn);
    this.#words[slot * 2 + 1] = descriptorHalf(pfn, classNumber(pageClass), type);
  }
  #append(count: number, bodies: number): void {
    this.writer.append(0, this.#descs.subarray(0, count), this.#packed.subarray(0, bodies * pageBytes));
    this.report();
  }
}

/** Parses the file once; returns its length, unpacked. */
async function pass(
  inPath: string,
  visitor: StreamVisitor,
  signal: AbortSignal | undefined,
): Promise<number> {
  const source = await ByteSource.open(inPath);
  try {
    await parseStream(source, visitor, { maxPfns: MAX_PFNS, maxStateBytes }, signal);
    return source.offset;
  } finally {
    await source.close();
  }
}

/**
 * Makes an image of an `xl save` file (plain or gzip; PV, PVH or HVM; libxc stream 2 or 3). A page that comes more
 * than once counts as it came last; a pfn that never comes has no frame. Errors: STREAM_INVALID and STREAM_UNSUPPORTED
 * with the offset, IMAGE_NOT_FOUND, IMAGE_READ_FAILED, CANCELLED, and ImageWriter's. On any of them no file appears.
 */
export function convertFromXen(
  inPath: string,
  outPath: string,
  options: FromXenOptions = {},
): Promise<FromXenResult> {
  return withoutGuest(() => writingTo(outPath, () => fromXen(inPath, outPath, options)));
}

async function fromXen(inPath: string, outPath: string, options: FromXenOptions): Promise<FromXenResult> {
  const started = performance.now();
  const elapsed = () => performance.now() - started;
  const { signal, onProgress } = options;
  const survey: FileSurvey = new FileSurvey(() => {
    const { listedPages, nrPfns } = survey;
    const total = Math.max(nrPfns, listedPages);
    const shown = { donePages: listedPages, totalPages: total, storedBytes: 0, counts: noPages };
    onProgress?.({ phase: 'verify', ...shown, elapsedMs: elapsed() });
  });
  const length = await pass(inPath, survey, signal);
  if (!survey.own) survey.checkProportion(length);
  const domain = domainOf(survey);
  options.accept?.(domain);
  const { nrPfns } = survey;
  const writer = await ImageWriter.create(outPath, {
    nrPfns,
    lanes: 1,
    consistency: 'suspend-point',
    ...(options.directIo !== undefined && { directIo: options.directIo }),
    ...(options.compression && { compression: options.compression }),
    ...(options.nameless && { nameless: true }),
  });
  const report = (phase: ConvertProgress['phase']) => {
    const [counts, storedBytes] = [writer.counts(), writer.storedBytes()];
    const donePages = totalPages(counts);
    onProgress?.({ phase, donePages, totalPages: nrPfns, storedBytes, counts, elapsedMs: elapsed() });
  };
  try {
    const appender = new PageAppender(writer, nrPfns, () => report('pages'));
    await pass(inPath, appender, signal);
    if (!survey.own) await appender.unmentioned(survey, signal);
    report('commit');
    const counts = writer.counts();
    const committed = await writer.commit(manifestOf(survey, domain, counts, elapsed(), options));
    return resultOf(committed, survey, domain, counts, elapsed());
  } catch (thrown) {
    await writer.abandon();
    throw thrown;
  }
}

function domainOf(survey: FileSurvey): Manifest['domain'] {
  if (survey.own) {
    const { domain, geometry } = survey.own;
    const { type, vcpus } = domain;
    const seen = { type: type === 'pv' ? 'pv' : 'hvm', nrPfns: geometry.nrPfns, vcpus } as const;
    return domainOfConfig(survey.xl?.config ?? '', seen);
  }
  const { xl, header } = survey.parsed();
  return domainOfConfig(xl.config, {
    type: header.type,
    nrPfns: survey.nrPfns,
    vcpus: survey.state.vcpus.length,
  });
}

function manifestOf(
  survey: FileSurvey,
  domain: Manifest['domain'],
  pages: PageCounts,
  elapsedMs: number,
  options: FromXenOptions,
): Manifest {
  if (survey.own) return { ...survey.own, tool: options.tool ?? 'dormouse', domain, pages };
  const { nrPfns, guestWidth, p2mFrames, state } = survey;
  return {
    tool: options.tool ?? 'dormouse',
    createdAt: new Date().toISOString(),
    consistency: 'suspend-point',
    domain,
    hostKind: 'xen',
    geometry: { nrPfns, guestWidth, p2mFrames, p2mGeneration: p2mGeneration(survey) },
    state,
    pages,
    timings: { pauseUs: 0, elapsedUs: Math.round(elapsedMs * 1000) },
    stream: survey.streamManifest(),
  };
}

/** shared_info.arch.p2m_generation of a 64-bit PV guest; 0 elsewhere, or where it does not fit a number. */
function p2mGeneration({ guestWidth, state }: Survey): number {
  if (guestWidth !== 8) return 0;
  const generation = state.sharedInfo.readBigUInt64LE(3128);
  return generation <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(generation) : 0;
}

function resultOf(
  committed: CommittedImage,
  survey: FileSurvey,
  domain: Manifest['domain'],
  counts: PageCounts,
  elapsedMs: number,
): FromXenResult {
  const { path, descriptor, imageId, root, storedBytes } = committed;
  const notes: string[] = [];
  if (survey.own)
    notes.push("the pages were in a stream of dormouse's own; converted back they are in libxc's");
  if (survey.repeatedPages > 0)
    notes.push(`${survey.repeatedPages} pages were in the stream more than once; the last copy was taken`);
  if (survey.layoutLost) notes.push('the order of the pages in the stream was too irregular to be kept');
  if (survey.verifySeen) notes.push('the stream ended with a VERIFY run, which is not kept');
  const memoryBytes = memoryBytesOf(counts);
  const { name, type } = domain;
  return { path, descriptor, imageId, root, name, type, counts, memoryBytes, storedBytes, elapsedMs, notes };
}
