/** A guest as a stream: in our own frames, or as the libxc v3 stream that stock Xen would write of it. */
import { Buffer } from 'node:buffer';
import { besideStream, liveHandedOver, sameP2m } from '../capture/live_image.js';
import {
  type CaptureSource,
  finished,
  type Finished,
  manifestOf,
  writePages,
} from '../capture/write_image.js';
import type { OperationOptions } from '../domain/progress.js';
import { Operation } from '../domain/operation.js';
import { DormouseError } from '../errors.js';
import type { Host, Lease } from '../host/contract.js';
import { standardStream } from '../xenstream/standard_stream.js';
import type { StreamItem } from '../xenstream/stream_manifest.js';
import { libxcHead, paddedRecord, stateBody, vcpuBody } from '../xenstream/stream_writer.js';
import { type StreamFormat, StreamWriter } from '../xenstream/frames/writer.js';
import { version } from '../version.js';
import { encodingLanes } from '../worker/pool.js';
import type { DomainInfo, MemoryGeometry } from '../domain/state.js';

export interface StreamRequest {
  readonly host: Host;
  readonly lease: Lease;
  readonly info: DomainInfo;
  readonly fd: number;
  readonly format: StreamFormat;
  /** The guest runs while most of it is copied. */
  readonly live: boolean;
  /** Has the guest stand still; who resumes or destroys it is not our business. */
  suspend(): Promise<void>;
  readonly options: OperationOptions;
  /** How long the reader may take nothing; as StreamOptions has it. */
  readonly stallMs?: number;
}

type Known = Pick<CaptureSource, 'info' | 'geometry' | 'state'>;

/** What a format has before and after the pages. */
interface Frame {
  begin(known: Known): Promise<void>;
  end(source: Finished, elapsedMs: number): Promise<void>;
}

function ownFrames(stream: StreamWriter): Frame {
  return {
    begin: ({ info, geometry, state }) =>
      stream.begin({
        tool: `dormouse ${version}`,
        type: info.type,
        guestWidth: geometry.guestWidth,
        nrPfns: geometry.nrPfns,
        cpuidPolicy: state.cpuidPolicy,
        msrPolicy: state.msrPolicy,
      }),
    end: (source, elapsedMs) => stream.end(manifestOf(source, stream.counts(), 0, elapsedMs)),
  };
}

function guestOf({ info, geometry, state }: Known) {
  return {
    domain: { ...info, config: besideStream },
    geometry: { ...geometry, p2mFrames: [...geometry.p2mFrames] },
    state: { ...state, vcpus: [...state.vcpus] },
  };
}

function libxcRecords(stream: StreamWriter): Frame {
  let first: MemoryGeometry | undefined;
  const write = async (known: Known, items: readonly StreamItem[]): Promise<void> => {
    const guest = guestOf(known);
    const record = (type: number, body: Buffer): Promise<void> =>
      stream.write(Buffer.concat(paddedRecord(type, body)));
    for (const item of items)
      if (item.kind === 'state') await record(item.type, stateBody(guest, item.type));
      else if (item.kind === 'vcpu') await record(item.type, vcpuBody(guest, item));
      else if (item.kind === 'record' && item.layer === 'libxc') await record(item.type, item.body);
  };
  const parts = (known: Known) => {
    const standard = standardStream(guestOf(known));
    const at = standard.items.findIndex(({ kind }) => kind === 'pages');
    return { standard, before: standard.items.slice(0, at), after: standard.items.slice(at + 1) };
  };
  return {
    begin: async (known) => {
      first = known.geometry;
      const { standard, before } = parts(known);
      await stream.write(libxcHead(standard));
      await write(known, before);
    },
    end: async (source) => {
      // They were sent ahead of the pages, and a libxc stream has no second place for them.
      if (first?.nrPfns !== source.geometry.nrPfns || !sameP2m(first, source.geometry))
        throw new DormouseError(
          'GUEST_MEMORY_UNREADABLE',
          `the p2m of ${source.info.name} was rebuilt meanwhile`,
        );
      stream.requireComplete();
      await write(source, parts(source).after);
    },
  };
}

async function standing(request: StreamRequest, known: Known, stream: StreamWriter): Promise<Finished> {
  const { host, lease, options } = request;
  const memory = await host.openMemory(lease.domid);
  try {
    const base = { hostKind: host.kind, config: besideStream };
    const source: CaptureSource = { ...base, ...known, memory, consistency: 'suspend-point' };
    await writePages(stream, source, options);
    return finished(source);
  } finally {
    memory.close();
  }
}

async function readKnown({ host, lease, info }: StreamRequest): Promise<Known> {
  const [geometry, state] = await Promise.all([host.geometry(lease.domid), host.readState(lease.domid)]);
  return { info, geometry, state };
}

/** Of a running guest: it is paused for the moment. Only what does not change is of use, its size and processor policy. */
async function glance(request: StreamRequest): Promise<Known> {
  const { host, lease } = request;
  await host.holdPaused(lease);
  try {
    return await readKnown(request);
  } finally {
    await host.releasePaused(lease);
  }
}

/**
 * Writes the whole stream to a descriptor; the guest stands still when it returns. A reader that takes nothing for too long,
 * and an abort, end it wherever it is. SUSPEND_TIMEOUT, IMAGE_NOT_RESTORABLE,
 * PAGE_TABLE_INVALID, GUEST_MEMORY_UNREADABLE, ACCOUNTING_MISMATCH, NO_SPACE, IMAGE_WRITE_FAILED, CANCELLED.
 */
export async function streamDomain(request: StreamRequest): Promise<void> {
  const { fd, format, live, host, lease, info, options } = request;
  const operation = new Operation();
  if (!live) await request.suspend();
  const first = await (live ? glance(request) : readKnown(request));
  const { nrPfns } = first.geometry;
  const stream = StreamWriter.create(fd, {
    ...{ format, nrPfns, lanes: encodingLanes },
    ...(request.stallMs !== undefined && { stallMs: request.stallMs }),
  });
  const cancel = (): void => stream.cancel();
  options.signal?.addEventListener('abort', cancel, { once: true });
  if (options.signal?.aborted === true) cancel();
  try {
    const frame = (format === 'libxc' ? libxcRecords : ownFrames)(stream);
    await frame.begin(first);
    const source = live
      ? await liveHandedOver(
          { host, lease, info, writer: stream, geometry: first.geometry, options, operation },
          () => request.suspend(),
        )
      : await standing(request, first, stream);
    operation.done('write');
    await frame.end(source, operation.totalMs);
  } finally {
    options.signal?.removeEventListener('abort', cancel);
    stream.release();
  }
}
