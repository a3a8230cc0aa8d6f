/** Image to `xl save` file. An image made of one is written back as it was; any other as stock libxc v3 writes it. */
import { Buffer } from 'node:buffer';
import { performance } from 'node:perf_hooks';
import { DormouseError, writingTo } from '../errors.js';
import { memoryBytesOf, type PageCounts } from '../pfn/counts.js';
import { MAX_MANIFEST_BYTES, MAX_PFNS } from '../image/format.js';
import type { Manifest } from '../image/manifest.js';
import { ImageReader } from '../image/reader.js';
import { ByteSource } from '../xenstream/byte_source.js';
import { OutputFile } from '../image/output_file.js';
import { LayoutPlayer, PfnSet, stockLayout } from '../xenstream/page_layout.js';
import type { ConvertOptions, ConvertProgress } from './progress.js';
import { isTrusted, refuseHollow } from './fitness.js';
import * as format from '../xenstream/stream_format.js';
import {
  readStreamManifest,
  type PageLayout,
  type StreamItem,
  type StreamManifest,
} from '../xenstream/stream_manifest.js';
import { fileRequests } from '../trust/config_requests.js';
import { parseStream, type StreamVisitor } from '../xenstream/stream_parser.js';
import { standardStream } from '../xenstream/standard_stream.js';
import {
  damaged,
  libxcHead,
  libxlHead,
  paddedRecord,
  recordHead,
  stateBody,
  vcpuBody,
  xlHead,
} from '../xenstream/stream_writer.js';
import { pageBytes, descriptorHalf, lowHalf } from '../pfn/page_words.js';
import { hasBody } from '../pfn/page_type.js';

const { libxcRecord: rec } = format;

export interface ToXenResult {
  readonly path: string;
  readonly name: string;
  readonly type: Manifest['domain']['type'];
  readonly counts: PageCounts;
  readonly memoryBytes: number;
  /** Size of the file. */
  readonly storedBytes: number;
  readonly elapsedMs: number;
  /** True if the image was made of a Xen stream and its headers, records and page order were written back. */
  readonly fromStream: boolean;
  /** What `restore` would not have taken from the image as it is, and `xl restore` takes from the file. */
  readonly notes: readonly string[];
}

/** Of an image that no trusted key signed; `config` is what the file says. KEY_INVALID. */
function notesOn(reader: ImageReader, config: string): string[] {
  const { values, more } = fileRequests({ ...reader.manifest.domain, config });
  if (values.length === 0 || isTrusted(reader)) return [];
  const asked = [...values, ...(more > 0 ? [`${more} more`] : [])].join(', ');
  return [
    `xl restore believes a file's configuration, and of this one nobody trusted signed it asks for ${asked}`,
  ];
}

/**
 * Writes the `xl save` file of an image. The file is parsed again, order rules and all, before it gets its name.
 * Errors: IMAGE_NOT_RESTORABLE (taken of a paused guest, not a guest Xen could build, or unsigned and of far more pfns than pages), ImageReader's,
 * IMAGE_DAMAGED (what it keeps of its stream is not consistent), OUTPUT_EXISTS, OUTPUT_INVALID, NO_SPACE,
 * IMAGE_WRITE_FAILED, CANCELLED. On any of them no file appears.
 */
export function convertToXen(
  inPath: string,
  outPath: string,
  options: ConvertOptions = {},
): Promise<ToXenResult> {
  return format.withoutGuest(() => writingTo(outPath, () => toXen(inPath, outPath, options)));
}

async function toXen(inPath: string, outPath: string, options: ConvertOptions): Promise<ToXenResult> {
  const started = performance.now();
  const reader = await ImageReader.open(inPath, { lanes: 1 });
  try {
    refuseUnfit(reader);
    const kept = readStreamManifest(reader.manifest.stream);
    const stream = kept ?? standardStream(reader.manifest);
    const layout = checkedLayout(stream, reader);
    const report = (phase: ConvertProgress['phase'], donePages: number, storedBytes: number) => {
      const elapsedMs = performance.now() - started;
      const { counts, nrPfns: total } = reader;
      options.onProgress?.({ phase, donePages, totalPages: total, storedBytes, counts, elapsedMs });
    };
    const { storedBytes, config } = await writeFile(
      reader,
      stream,
      layout,
      outPath,
      options.directIo ?? true,
      report,
      options.signal,
    );
    const { counts, manifest } = reader;
    const { name, type } = manifest.domain;
    const elapsedMs = performance.now() - started;
    return {
      path: outPath,
      name,
      type,
      counts,
      memoryBytes: memoryBytesOf(counts),
      storedBytes,
      elapsedMs,
      fromStream: kept !== null,
      notes: notesOn(reader, config),
    };
  } finally {
    reader.close();
  }
}

function refuseUnfit(reader: ImageReader): void {
  if (reader.header.consistency === 'paused' || reader.manifest.consistency === 'paused')
    throw new DormouseError(
      'IMAGE_NOT_RESTORABLE',
      `${reader.path}: taken of a paused guest, which xl restore could not bring to life`,
      { place: { path: reader.path } },
    );
  // The file lists every pfn, and who reads it takes memory for each.
  refuseHollow(reader);
}

/** The layout to write; every page with a frame must be in it, once. */
function checkedLayout(stream: StreamManifest, reader: ImageReader): PageLayout {
  if (stream.layout === null) return stockLayout(reader.nrPfns);
  const { batches, runs } = stream.layout;
  const listed = runs.reduce((sum, [, count]) => sum + count, 0);
  const recorded = batches.reduce((sum, [count, records]) => sum + count * records, 0);
  const records = batches.reduce((sum, [, each]) => sum + each, 0);
  const placed = stream.items.reduce((sum, item) => sum + (item.kind === 'pages' ? item.records : 0), 0);
  if (listed > reader.nrPfns || listed !== recorded || records !== placed)
    throw damaged('the page records do not add up');
  const seen = new PfnSet();
  for (const [first, count] of runs)
    for (let pfn = first; pfn < first + count; ++pfn)
      if (pfn >= reader.nrPfns || !seen.add(pfn)) throw damaged(`pfn ${pfn} is out of range or listed twice`);
  for (let pfn = 0; listed < reader.nrPfns && pfn < reader.nrPfns; ++pfn)
    if (!seen.has(pfn) && reader.pageEntry(pfn).pageClass !== 'noFrame')
      throw damaged(`pfn ${pfn} has a page but is not listed`);
  return stream.layout;
}

async function writeFile(
  reader: ImageReader,
  stream: StreamManifest,
  layout: PageLayout,
  outPath: string,
  directIo: boolean,
  report: (phase: ConvertProgress['phase'], donePages: number, storedBytes: number) => void,
  signal: AbortSignal | undefined,
): Promise<{ storedBytes: number; config: string }> {
  const file = OutputFile.create(outPath, directIo);
  try {
    await new StreamFileWriter(reader, stream, layout, file, report, signal).run();
    report('verify', reader.nrPfns, file.bytes);
    const config = await checkWritten(file, signal);
    report('commit', reader.nrPfns, file.bytes);
    file.publish();
    return { storedBytes: file.bytes, config };
  } finally {
    file.close();
  }
}

/**
 * Parses what was written: an image that says nonsense of its stream must not become a file that looks whole. Returns the configuration
 * in it.
 */
async function checkWritten(file: OutputFile, signal: AbortSignal | undefined): Promise<string> {
  const source = await ByteSource.open(file.readBackPath(), file.bytes);
  let config = '';
  const visitor: StreamVisitor = {
    xlHeader: (header) => {
      ({ config } = header);
    },
  };
  try {
    await parseStream(source, visitor, { maxPfns: MAX_PFNS, maxStateBytes: MAX_MANIFEST_BYTES }, signal);
    return config;
  } catch (thrown) {
    if (thrown instanceof DormouseError && thrown.code.startsWith('STREAM_'))
      throw damaged(thrown.message, thrown);
    throw thrown;
  } finally {
    await source.close();
  }
}

class StreamFileWriter {
  readonly #player: LayoutPlayer;
  #pages = 0;

  constructor(
    private readonly reader: ImageReader,
    private readonly stream: StreamManifest,
    layout: PageLayout,
    private readonly file: OutputFile,
    private readonly report: (
      phase: ConvertProgress['phase'],
      donePages: number,
      storedBytes: number,
    ) => void,
    private readonly signal: AbortSignal | undefined,
  ) {
    this.#player = new LayoutPlayer(layout);
  }

  async run(): Promise<void> {
    this.file.write(...xlHead(this.stream), libxlHead(this.stream));
    for (const item of this.stream.items) {
      if (item.kind === 'pages') await this.#pageRecords(item.records);
      else this.#item(item);
    }
  }

  #item(item: Exclude<StreamItem, { kind: 'pages' }>): void {
    if (item.kind === 'state') this.#record(item.type, stateBody(this.reader.manifest, item.type));
    else if (item.kind === 'vcpu') this.#record(item.type, vcpuBody(this.reader.manifest, item));
    else {
      this.#record(item.type, item.body);
      if (item.layer === 'libxl' && item.type === format.libxlRecord.libxcContext)
        this.file.write(libxcHead(this.stream));
    }
  }

  #record(type: number, body: Buffer): void {
    this.file.write(...paddedRecord(type, body));
  }

  async #pageRecords(records: number): Promise<void> {
    const all = this.stream.layout === null ? Infinity : records;
    for (let i = 0; i < all && this.#player.nextCount() > 0; ++i) await this.#pageRecord();
  }

  async #pageRecord(): Promise<void> {
    const recordPfns = this.#player.nextCount();
    const slices = this.#slices(recordPfns);
    const bodies = slices.reduce((sum, { withBody }) => sum + withBody.length, 0);
    const length = 8 + 8 * recordPfns + bodies * pageBytes;
    if (length > format.maxRecordBytes) throw damaged(`a page record of ${length} bytes`);
    const head = Buffer.alloc(8);
    head.writeUInt32LE(recordPfns, 0);
    this.file.write(recordHead(rec.pageData, length), head, ...slices.map(({ list }) => list));
    for (const { withBody } of slices) {
      if (withBody.length > 0) this.file.write(this.reader.readPages(withBody));
      await this.#breathe();
    }
    this.#pages += recordPfns;
    this.report('pages', this.#pages, this.file.bytes);
  }

  #slices(recordPfns: number): { list: Buffer; withBody: number[] }[] {
    if (recordPfns > format.maxRecordBytes / 8) throw damaged(`a page record of ${recordPfns} pfns`);
    return Array.from(this.#player.nextRecord(), (pfns) => this.#list(pfns));
  }

  /** Lets timers and signals in between two slices. */
  async #breathe(): Promise<void> {
    await new Promise(setImmediate);
    if (this.signal?.aborted === true) throw format.conversionCancelled();
  }

  /** The PAGE_DATA entries of these pfns, and which of them have a body. */
  #list(pfns: readonly number[]): { list: Buffer; withBody: number[] } {
    const list = Buffer.allocUnsafe(pfns.length * 8);
    const withBody: number[] = [];
    pfns.forEach((pfn, i) => {
      const { type } = this.reader.pageEntry(pfn);
      list.writeUInt32LE(lowHalf(pfn), i * 8);
      list.writeUInt32LE(descriptorHalf(pfn, 0, type), i * 8 + 4);
      if (hasBody(type)) withBody.push(pfn);
    });
    return { list, withBody };
  }
}
