/**
 * Digest of a domain or an image: over every page in canonical form, every page type and every register.
 *
 * Left out, because two equal guests on two machines differ there by design: the content of the p2m's leaves (it follows
 * from which pfns have frames), frames and ports in start info, shared info, and vCPU 0's answer register.
 */
import { createHash } from 'node:crypto';
import { Buffer } from 'node:buffer';
import { canonicalState } from '../capture/write_image.js';
import {
  requireWhole,
  snapshotLight,
  suspendGuest,
  defaultSuspendTimeoutMs,
  type StandingStill,
} from '../capture/stand_still.js';
import type { CaptureSource } from '../capture/write_image.js';
import { Operation } from '../domain/operation.js';
import type { OperationOptions } from '../domain/progress.js';
import { startInfoPfn } from '../domain/pv_state.js';
import { blankStartInfo, digestibleContext } from '../domain/vcpu_context.js';
import type { Host, Lease } from '../host/contract.js';
import { ImageReader } from '../image/reader.js';
import { chunksPerStep, laneCount, pagesPerStep, runOverRange, warmWorkers } from '../worker/pool.js';
import { steps } from '../worker/steps.js';
import type { DomainInfo, DomainState } from '../domain/state.js';
import type { DomainType } from '../domain/type.js';
import type { DigestHandle } from '../handle.js';

export interface DigestResult {
  /** Hex; equal for two domains or images with the same pages, types and registers, whatever their machine frames. */
  readonly digest: string;
  readonly pages: number;
  readonly vcpus: number;
}

interface DigestSubject {
  readonly type: DomainType;
  readonly nrPfns: number;
  readonly p2mFrames: readonly number[];
  /** False for an image of a guest that was stopped elsewhere: no register says where start info is. */
  readonly suspended: boolean;
  /** Canonical. */
  readonly state: DomainState;
  newTable(): DigestHandle;
  /** Fills the table with every page. */
  fill(table: DigestHandle): Promise<void>;
  readPage(pfn: number): Buffer;
}

function blankPagesWithFrames(table: DigestHandle, subject: DigestSubject): void {
  if (subject.type !== 'pv') return;
  for (const pfn of subject.p2mFrames) steps().digestBlank(table, pfn);
  if (!subject.suspended) return;
  const pfn = startInfoPfn(subject.state);
  const page = Buffer.from(subject.readPage(pfn));
  blankStartInfo(page);
  steps().digestSetPage(table, pfn, 0, page);
}

function digestOfState(subject: DigestSubject, memoryDigest: string): string {
  const hash = createHash('sha256').update(memoryDigest);
  for (const vcpu of subject.state.vcpus) {
    const basic = subject.type === 'pv' ? digestibleContext(vcpu.basic, vcpu.id) : vcpu.basic;
    hash.update(basic).update(vcpu.extended).update(vcpu.xsave).update(vcpu.msrs);
  }
  if (subject.type !== 'pv') hash.update(subject.state.hvmContext).update(subject.state.hvmParams);
  return hash.digest('hex').slice(0, 32);
}

async function digestOf(subject: DigestSubject): Promise<DigestResult> {
  const table = subject.newTable();
  try {
    await subject.fill(table);
    blankPagesWithFrames(table, subject);
    const digest = digestOfState(subject, steps().digestFinish(table));
    return { digest, pages: subject.nrPfns, vcpus: subject.state.vcpus.length };
  } finally {
    steps().digestRelease(table);
  }
}

function subjectOfDomain(source: CaptureSource, options: OperationOptions): DigestSubject {
  const memory = source.memory.handle;
  const { nrPfns, p2mFrames } = source.geometry;
  return {
    type: source.info.type,
    nrPfns,
    p2mFrames,
    suspended: source.consistency === 'suspend-point',
    state: canonicalState(source),
    newTable: () => steps().digestCreate(nrPfns),
    fill: (digest) =>
      runOverRange({
        total: nrPfns,
        stride: pagesPerStep * 4,
        signal: options.signal,
        task: (lane, first, count) => ({ step: 'digest-domain', memory, digest, lane, first, count }),
      }),
    readPage: (pfn) => steps().readPages(memory, BigUint64Array.of(BigInt(pfn))),
  };
}

async function standForDigest(
  host: Host,
  lease: Lease,
  info: DomainInfo,
  signal: AbortSignal | undefined,
): Promise<StandingStill> {
  const light = (await host.capabilities())['cow-snapshot'] === true;
  const ready = warmWorkers();
  const operation = new Operation();
  if (!light) {
    const timeoutMs = defaultSuspendTimeoutMs;
    return suspendGuest(host, lease, info, { timeoutMs, signal, ready, operation });
  }
  await ready;
  return snapshotLight(host, lease, info, { readOnce: false, operation });
}

/**
 * Digest of a domain's canonical memory and registers. A running one goes on where the host can snapshot it, else it
 * suspends itself and is resumed. Errors: DOMAIN_NOT_FOUND, DOMAIN_WRONG_STATE, LOCKED, SUSPEND_TIMEOUT, CANCELLED.
 */
export async function digestDomain(
  host: Host,
  selector: string,
  options: OperationOptions = {},
): Promise<DigestResult> {
  const info = await host.find(selector);
  requireWhole(info);
  const lease = await host.acquire(info.domid, 'digest');
  try {
    const still = await standForDigest(host, lease, info, options.signal);
    try {
      return await digestOf(subjectOfDomain(still.source, options));
    } finally {
      await still.release();
    }
  } finally {
    await lease.release();
  }
}

/** The same digest of an image's content. Errors: as ImageReader.open. */
export async function digestImage(path: string, options: OperationOptions = {}): Promise<DigestResult> {
  const reader = await ImageReader.open(path, { lanes: laneCount });
  try {
    const { domain, geometry, state } = reader.manifest;
    return await digestOf({
      type: domain.type,
      nrPfns: reader.nrPfns,
      p2mFrames: geometry.p2mFrames,
      suspended: reader.manifest.consistency === 'suspend-point',
      state,
      newTable: () => steps().digestCreateOfImage(reader.handle),
      fill: (digest) =>
        reader.naming(() =>
          runOverRange({
            ...{ total: reader.nrChunks, stride: chunksPerStep, signal: options.signal },
            task: (lane, first, count) => ({
              ...{ step: 'digest-image', reader: reader.handle, digest },
              ...{ lane, first, count },
            }),
          }),
        ),
      readPage: (pfn) => reader.readPages([pfn]),
    });
  } finally {
    reader.close();
  }
}
