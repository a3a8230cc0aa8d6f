/** The stream stock Xen would write for a domain whose image was not made of one: libxc v3 in stock order. */
import { Buffer } from 'node:buffer';
import { onlineVcpus } from '../domain/hvm_context.js';
import { DormouseError } from '../errors.js';
import type { Manifest } from '../image/manifest.js';
import * as format from './stream_format.js';
import type { StreamItem, StreamManifest } from './stream_manifest.js';
import { stateFields, vcpuFields } from './survey.js';
import { configForXl } from './xl_config.js';
import { pageBytes } from '../pfn/page_words.js';

const { libxcRecord: rec, libxlRecord } = format;

type Guest = Pick<Manifest, 'geometry' | 'state'>;

/** The sender's version written into the domain header: that of the Xen whose stream this follows. */
const xenVersion = { xenMajor: 4, xenMinor: 17 } as const;

/** What manifest.stream would be had a stock `xl save` made the image. IMAGE_NOT_RESTORABLE if state is missing. */
export function standardStream(manifest: Pick<Manifest, 'domain' | 'geometry' | 'state'>): StreamManifest {
  const { domain } = manifest;
  if (domain.type === 'pv') requirePv(manifest);
  else requireHvm(manifest);
  const { configJson, streamV2 } = format.xlMandatoryFlags;
  return {
    schema: 1,
    xl: {
      mandatoryFlags: configJson | streamV2,
      optionalFlags: 0,
      optionalData: frameConfig(configForXl({ ...domain, onlineVcpus: onlineVcpus(manifest.state) })),
    },
    libxl: { version: format.libxlVersion, options: 0 },
    libxc: { version: 3, options: 0, type: domain.type === 'pv' ? 'pv' : 'hvm', ...xenVersion },
    items: [
      bare('libxl', libxlRecord.libxcContext),
      ...(domain.type === 'pv' ? pvItems(manifest) : hvmItems(manifest)),
      bare('libxc', rec.end),
      bare('libxl', libxlRecord.end),
    ],
    layout: null,
  };
}

export function frameConfig(config: string): Buffer {
  const text = Buffer.from(config + '\0', 'utf8');
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.length, 0);
  return Buffer.concat([length, text]);
}

function bare(layer: format.StreamLayer, type: number): StreamItem {
  return { kind: 'record', layer, type, body: Buffer.alloc(0) };
}

/** The records of these types that the state has something for. */
function stateItems({ state }: Guest, types: readonly number[]): StreamItem[] {
  return types.flatMap((type) => {
    const field = stateFields.get(type);
    const there = field === undefined || state[field].length > 0;
    return there ? [{ kind: 'state', type } as const] : [];
  });
}

const pages: StreamItem = { kind: 'pages', records: 1 };

function pvItems(manifest: Guest): StreamItem[] {
  const vcpus = manifest.state.vcpus.flatMap((vcpu) =>
    [...vcpuFields]
      .filter(([, field]) => vcpu[field].length > 0)
      .map(([type]) => ({ kind: 'vcpu', type, id: vcpu.id }) as const),
  );
  return [
    ...stateItems(manifest, [rec.pvInfo, rec.cpuidPolicy, rec.msrPolicy]),
    bare('libxc', rec.staticDataEnd),
    ...stateItems(manifest, [rec.p2mFrames]),
    pages,
    ...stateItems(manifest, [rec.tscInfo, rec.sharedInfo]),
    ...vcpus,
  ];
}

function hvmItems(manifest: Guest): StreamItem[] {
  return [
    ...stateItems(manifest, [rec.cpuidPolicy, rec.msrPolicy]),
    bare('libxc', rec.staticDataEnd),
    pages,
    ...stateItems(manifest, [rec.tscInfo, rec.hvmContext, rec.hvmParams]),
  ];
}

function require(holds: boolean, what: string): void {
  if (!holds) throw new DormouseError('IMAGE_NOT_RESTORABLE', `Xen could not build this domain: ${what}`);
}

function requirePv({ geometry, state }: Guest): void {
  const { guestWidth, nrPfns, p2mFrames } = geometry;
  require(guestWidth !== 0, 'a PV guest without a word size');
  if (guestWidth === 0) return;
  const frames = Math.ceil(nrPfns / (pageBytes / guestWidth));
  require(p2mFrames.length === frames, `${p2mFrames.length} p2m frames for ${nrPfns} pages, not ${frames}`);
  require(state.sharedInfo.length === pageBytes, 'no shared info page');
  require(state.vcpus.length > 0, 'no vCPU');
  for (const { id, basic } of state.vcpus)
    require(basic.length ===
      format.vcpuContextBytes[guestWidth], `vCPU ${id} has ${basic.length} bytes of state`);
}

function requireHvm({ state }: Guest): void {
  require(state.hvmContext.length > 0, 'no HVM context');
  require(state.hvmParams.length >= 8, 'no HVM parameters');
}
