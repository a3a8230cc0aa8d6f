/** `dump-core`: a domain's memory and vCPUs as they are, in the format of `xl dump-core`. */
import { Buffer } from 'node:buffer';
import { performance } from 'node:perf_hooks';
import { setImmediate } from 'node:timers/promises';
import { requireWhole } from '../capture/stand_still.js';
import type { OperationOptions } from '../domain/progress.js';
import { DormouseError, writingTo } from '../errors.js';
import type { Host, Lease, MemoryView } from '../host/contract.js';
import { OutputFile } from '../image/output_file.js';
import { hasBody } from '../pfn/page_type.js';
import { steps } from '../worker/steps.js';
import { coreFrame, tableEntryBytes } from './core_file.js';
import type { DomainInfo } from '../domain/state.js';
import { typeOf } from '../pfn/page_words.js';

/** Xen answers for the types of so many pfns at a time; 4 MiB of pages, some milliseconds. */
const pfnsPerStep = 1024;
/** Written at a time where it comes from the heap. */
const tablePiece = 1 << 20;

export interface DumpResult {
  readonly path: string;
  readonly domid: number;
  readonly name: string;
  readonly vcpus: number;
  /** Pages in the dump. */
  readonly pages: number;
  readonly fileBytes: number;
  /** How long the domain stood still for it; null if it did not run before. */
  readonly pauseMs: number | null;
  readonly elapsedMs: number;
}

interface Pages {
  readonly nrPfns: number;
  readonly memory: MemoryView;
  readonly signal: AbortSignal | undefined;
}

/** Goes through the pfns in steps, between which timers and signals are looked at. */
async function eachStep(
  { nrPfns, signal }: Pages,
  act: (first: number, count: number) => void,
): Promise<void> {
  for (let first = 0; first < nrPfns; first += pfnsPerStep) {
    if (signal?.aborted) throw new DormouseError('CANCELLED', 'cancelled');
    act(first, Math.min(pfnsPerStep, nrPfns - first));
    await setImmediate();
  }
}

async function countPages(pages: Pages): Promise<number> {
  let count = 0;
  await eachStep(pages, (first, n) => {
    for (const entry of steps().queryPages(pages.memory.handle, first, n))
      if (hasBody(typeOf(entry))) count++;
  });
  return count;
}

/** Which page is where, in the order in which they are written. */
class PageTable {
  readonly #entries: Buffer;
  readonly #entryBytes: number;
  #filled = 0;

  constructor(type: DomainInfo['type'], pages: number) {
    this.#entryBytes = tableEntryBytes(type);
    this.#entries = Buffer.allocUnsafeSlow(pages * this.#entryBytes);
  }

  /** `entries` are a frame and its type each, of the pages of a step; false if there is no room. */
  add(first: number, entries: BigUint64Array): boolean {
    for (const [i, entry] of entries.entries()) {
      if (!hasBody(typeOf(entry))) continue;
      if (this.#filled === this.#entries.length) return false;
      this.#entries.writeBigUInt64LE(BigInt(first + i), this.#filled);
      if (this.#entryBytes === 16)
        this.#entries.writeBigUInt64LE(BigInt.asUintN(52, entry), this.#filled + 8);
      this.#filled += this.#entryBytes;
    }
    return true;
  }

  get isFull(): boolean {
    return this.#filled === this.#entries.length;
  }

  write(file: OutputFile): void {
    for (let at = 0; at < this.#entries.length; at += tablePiece)
      file.write(this.#entries.subarray(at, at + tablePiece));
  }
}

function unsteady(info: DomainInfo): DormouseError {
  return new DormouseError(
    'GUEST_MEMORY_UNREADABLE',
    `${info.name} gained or lost pages while it was paused for the dump`,
    { place: { domid: info.domid } },
  );
}

/** The pages, then the table that says which they are. */
async function writePages(
  file: OutputFile,
  info: DomainInfo,
  pages: Pages,
  count: number,
  options: OperationOptions,
): Promise<void> {
  const table = new PageTable(info.type, count);
  const startedMs = performance.now();
  await eachStep(pages, (first, n) => {
    if (!table.add(first, file.writePages(pages.memory.handle, first, n))) throw unsteady(info);
    options.onProgress?.({
      phase: 'pages',
      donePages: first + n,
      totalPages: pages.nrPfns,
      storedBytes: file.bytes,
      counts: { data: count, zero: 0, table: 0, noFrame: 0, broken: 0, alloc: 0, sameAsParent: 0 },
      elapsedMs: performance.now() - startedMs,
    });
  });
  if (!table.isFull) throw unsteady(info);
  table.write(file);
}

interface Job {
  readonly host: Host;
  readonly lease: Lease;
  readonly info: DomainInfo;
  readonly file: OutputFile;
  readonly options: OperationOptions;
}

/** Fills the file; the domain stands still when this is called. */
async function fill({ host, info, file, options }: Job): Promise<{ vcpus: number; pages: number }> {
  const state = await host.coreState(info.domid);
  const { nrPfns } = await host.geometry(info.domid);
  const memory = await host.openMemory(info.domid);
  try {
    memory.catchUp?.(false);
    const all = { nrPfns, memory, signal: options.signal };
    const pages = await countPages(all);
    const { head, names } = coreFrame({ type: info.type, state, pages });
    file.write(head);
    await writePages(file, info, all, pages, options);
    file.write(names);
    return { vcpus: state.contexts.length, pages };
  } finally {
    memory.close();
  }
}

/** Paused for as long as the file is written, but not until it is on disk. */
async function fillPaused(job: Job): Promise<{ vcpus: number; pages: number; pauseMs: number | null }> {
  const { host, lease, info } = job;
  const ran = !info.paused && info.shutdown === null;
  const startedMs = performance.now();
  await host.holdPaused(lease);
  const filled = await fill(job);
  await host.releasePaused(lease);
  return { ...filled, pauseMs: ran ? performance.now() - startedMs : null };
}

/**
 * Writes a core dump of a domain in whatever state it is: running (it is paused meanwhile, and never shut down), paused,
 * suspended or crashed. Errors: DOMAIN_NOT_FOUND, DOMAIN_WRONG_STATE (being built, or gone but for its id), LOCKED,
 * OUTPUT_EXISTS, OUTPUT_INVALID before the guest is touched; NO_SPACE, IMAGE_WRITE_FAILED, GUEST_MEMORY_UNREADABLE,
 * HOST_LACKS, CANCELLED after: the guest is then as it was and no file keeps the name.
 */
export async function dumpCore(
  host: Host,
  selector: string,
  path: string,
  options: OperationOptions = {},
): Promise<DumpResult> {
  const startedMs = performance.now();
  const info = await host.find(selector);
  requireWhole(info);
  const lease = await host.acquire(info.domid, 'dump');
  try {
    const file = OutputFile.create(path, true);
    try {
      const { vcpus, pages, pauseMs } = await writingTo(path, async () => {
        const filled = await fillPaused({ host, lease, info, file, options });
        file.publish();
        return filled;
      });
      const { domid, name } = info;
      const elapsedMs = performance.now() - startedMs;
      return { path, domid, name, vcpus, pages, fileBytes: file.bytes, pauseMs, elapsedMs };
    } finally {
      file.close();
    }
  } finally {
    await lease.release();
  }
}
