/**
 * What a PV domain needs after its pages are in place, in the order Xen's own restore has it: tables pinned, the guest's
 * p2m written, start info and shared info made new, registers localised.
 */
import { Buffer } from 'node:buffer';
import { refuseSavedDeviceModel } from '../domain/hvm.js';
import { findP2mRoot } from '../domain/p2m_root.js';
import { localiseVcpus, newSharedInfo, startInfoPfn } from '../domain/pv_state.js';
import { patchStartInfo, sharedInfoBytes, startInfoRings } from '../domain/vcpu_context.js';
import { DormouseError } from '../errors.js';
import type { Builder } from '../host/contract.js';
import type { ImageReader, PageTableEntry } from '../image/reader.js';
import { steps } from '../worker/steps.js';
import type { DomainState, MemoryGeometry } from '../domain/state.js';
import type { MemoryHandle } from '../handle.js';
import { noFrame } from '../pfn/page_words.js';

/** What is known of a PV guest's pages when they are in place: an image, or a stream that has been read. */
export interface PvSource {
  readonly nrPfns: number;
  readonly geometry: MemoryGeometry;
  readonly state: DomainState;
  pageType(pfn: number): number;
  tables(): readonly PageTableEntry[];
  /** A top-level table from which the walk leads to the p2m's leaves; null where the guest has no linear list. */
  p2mRoot(): number | null;
}

export function pvSourceOf(reader: ImageReader): PvSource {
  const { geometry, state } = reader.manifest;
  return {
    nrPfns: reader.nrPfns,
    geometry,
    state,
    pageType: (pfn) => reader.pageEntry(pfn).type,
    tables: () => reader.tables(),
    p2mRoot: () =>
      findP2mRoot({
        sharedInfo: state.sharedInfo,
        nrPfns: reader.nrPfns,
        p2mFrames: geometry.p2mFrames,
        l4Pfns: topTables(reader.tables()),
        readPage: (pfn) => reader.readPages([pfn]),
      }),
  };
}

export const topTables = (tables: readonly PageTableEntry[]): number[] =>
  tables.filter((table) => table.level === 4).map((table) => table.pfn);

/** Refuses an image that cannot become a new domain, before anything is created. */
export function requireRestorable(reader: ImageReader): void {
  const { manifest } = reader;
  refuseSavedDeviceModel(manifest.domain);
  if (manifest.consistency === 'paused')
    throw new DormouseError(
      'IMAGE_NOT_RESTORABLE',
      'the image was taken of a paused guest, not at its suspend point: no verb puts it back into a domain yet; `image inspect` and `digest` look into it',
    );
  if (manifest.domain.type !== 'pv') return;
  if (manifest.geometry.guestWidth !== 8)
    throw new DormouseError(
      'IMAGE_INCOMPATIBLE',
      'the image holds a 32-bit PV guest; only 64-bit ones are handled',
    );
  if (manifest.state.sharedInfo.length !== sharedInfoBytes)
    throw new DormouseError(
      'IMAGE_DAMAGED',
      `shared info has ${manifest.state.sharedInfo.length} bytes, not ${sharedInfoBytes}`,
    );
}

function frameOf(memory: MemoryHandle, pfn: number, what: string): bigint {
  const frame = steps().pfnsToFrames(memory, BigUint64Array.of(BigInt(pfn)))[0] ?? noFrame;
  if (frame === noFrame)
    throw new DormouseError('IMAGE_DAMAGED', `${what}: pfn ${pfn} has no frame`, { place: { pfn } });
  return frame;
}

async function writeStartInfo(builder: Builder, source: PvSource, memory: MemoryHandle): Promise<void> {
  const pfn = startInfoPfn(source.state);
  frameOf(memory, pfn, 'start info');
  if (source.pageType(pfn) !== 0)
    throw new DormouseError('IMAGE_DAMAGED', `start info (pfn ${pfn}) is a page table`, { place: { pfn } });
  const page = Buffer.from(steps().readPages(memory, BigUint64Array.of(BigInt(pfn))));
  const rings = startInfoRings(page);
  const storeFrame = frameOf(memory, rings.storePfn, 'xenstore ring');
  const consoleFrame = frameOf(memory, rings.consolePfn, 'console ring');
  const ports = await builder.connectRings(rings);
  patchStartInfo(page, {
    nrPages: source.nrPfns,
    sharedInfoFrame: BigInt(await builder.sharedInfoFrame()),
    storeFrame,
    storePort: ports.storePort,
    consoleFrame,
    consolePort: ports.consolePort,
  });
  steps().writePages(memory, BigUint64Array.of(BigInt(pfn)), page);
}

/** Registers, tables, p2m, start info and shared info of a 64-bit PV domain. IMAGE_DAMAGED, PAGE_TABLE_INVALID. */
export async function finishPvState(builder: Builder, source: PvSource, memory: MemoryHandle): Promise<void> {
  const { geometry, state } = source;
  const beyond = geometry.p2mFrames.find((pfn) => pfn >= source.nrPfns);
  if (beyond !== undefined)
    throw new DormouseError('IMAGE_DAMAGED', `a p2m leaf lies at pfn ${beyond}, beyond the domain`);
  for (const pfn of geometry.p2mFrames) frameOf(memory, pfn, 'p2m leaf');
  steps().writeP2mLeaves(memory, BigUint64Array.from(geometry.p2mFrames, BigInt));
  await writeStartInfo(builder, source, memory);
  const root = source.p2mRoot();
  await builder.pin(source.tables().filter((table) => table.pinned));
  const toFrames = (pfns: BigUint64Array): BigUint64Array => steps().pfnsToFrames(memory, pfns);
  await builder.setState({
    ...state,
    vcpus: localiseVcpus(state.vcpus, toFrames),
    sharedInfo: newSharedInfo(state.sharedInfo, root === null ? 0n : frameOf(memory, root, 'p2m root')),
  });
}
