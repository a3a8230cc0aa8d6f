/** What a PV domain needs beside its pages to go back in place: start info, shared info and registers. */
import { Buffer } from 'node:buffer';
import { localiseVcpus, sharedInfoInPlace, startInfoPfn } from '../domain/pv_state.js';
import type { DomainState } from '../domain/state.js';
import { moveStartInfo, startInfoRings } from '../domain/vcpu_context.js';
import { DormouseError } from '../errors.js';
import type { MemoryHandle } from '../handle.js';
import type { Rewriter } from '../host/contract.js';
import type { ImageReader } from '../image/reader.js';
import { noFrame } from '../pfn/page_words.js';
import { pvSourceOf } from '../restore/pv_guest.js';
import { steps } from '../worker/steps.js';

/** All that can be read and judged before the domain is touched. */
export interface PvPoint {
  readonly startInfoPfn: number;
  readonly rings: { readonly storePfn: number; readonly consolePfn: number };
  readonly p2mRootPfn: number | null;
  readonly state: DomainState;
}

/** IMAGE_DAMAGED where the image has no such page. */
export function requireFrame(reader: ImageReader, pfn: number, what: string): void {
  if (pfn < reader.nrPfns && !['noFrame', 'broken'].includes(reader.pageEntry(pfn).pageClass)) return;
  throw new DormouseError('IMAGE_DAMAGED', `${what}: pfn ${pfn} has no frame`, { place: { pfn } });
}

/** IMAGE_DAMAGED if the image's own parts contradict each other. */
export function pvPointOf(reader: ImageReader): PvPoint {
  const { state, geometry } = reader.manifest;
  const pfn = startInfoPfn(state);
  requireFrame(reader, pfn, 'start info');
  if (reader.pageEntry(pfn).pageClass !== 'data')
    throw new DormouseError('IMAGE_DAMAGED', `start info (pfn ${pfn}) is no page of data`, {
      place: { pfn },
    });
  for (const leaf of geometry.p2mFrames) requireFrame(reader, leaf, 'p2m leaf');
  const rings = startInfoRings(reader.readPages([pfn]));
  requireFrame(reader, rings.storePfn, 'xenstore ring');
  requireFrame(reader, rings.consolePfn, 'console ring');
  // Registers that name no page of the image would be refused once the domain is half rewound.
  localiseVcpus(state.vcpus, (pfns) => {
    for (const each of pfns) requireFrame(reader, Number(each), 'a vCPU');
    return pfns;
  });
  const p2mRootPfn = pvSourceOf(reader).p2mRoot();
  return { startInfoPfn: pfn, rings, p2mRootPfn, state };
}

function frameOf(memory: MemoryHandle, pfn: number): bigint {
  const frame = steps().pfnsToFrames(memory, BigUint64Array.of(BigInt(pfn)))[0] ?? noFrame;
  if (frame === noFrame) throw new DormouseError('INTERNAL', `pfn ${pfn} got no frame`, { place: { pfn } });
  return frame;
}

export interface OwnEnds {
  readonly ports: Awaited<ReturnType<Rewriter['connectRings']>>;
  readonly sharedInfoFrame: number;
}

/** What the domain has of its own at the other end of start info; asked for while pages are written. */
export async function ownEnds(rewriter: Rewriter, point: PvPoint): Promise<OwnEnds> {
  const [ports, sharedInfoFrame] = await Promise.all([
    rewriter.connectRings(point.rings),
    rewriter.sharedInfoFrame(),
  ]);
  return { ports, sharedInfoFrame };
}

/** Once all pages are as the image has them: start info is written, the rest returned for `complete`. */
export function pvStateInPlace(memory: MemoryHandle, point: PvPoint, own: OwnEnds): DomainState {
  const pfns = BigUint64Array.of(BigInt(point.startInfoPfn));
  const page = Buffer.from(steps().readPages(memory, pfns.slice()));
  moveStartInfo(page, {
    sharedInfoFrame: BigInt(own.sharedInfoFrame),
    storeFrame: frameOf(memory, point.rings.storePfn),
    consoleFrame: frameOf(memory, point.rings.consolePfn),
    ...own.ports,
  });
  steps().writePages(memory, pfns, page);
  const { state, p2mRootPfn } = point;
  return {
    ...state,
    vcpus: localiseVcpus(state.vcpus, (list) => steps().pfnsToFrames(memory, list)),
    sharedInfo: sharedInfoInPlace(state.sharedInfo, p2mRootPfn === null ? 0n : frameOf(memory, p2mRootPfn)),
  };
}
