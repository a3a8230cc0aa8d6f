/** The pieces of an `xl save` file as bytes: headers, and records whose bodies an image's manifest holds. */
import { Buffer } from 'node:buffer';
import { DormouseError } from '../errors.js';
import type { Manifest } from '../image/manifest.js';
import * as format from './stream_format.js';
import type { StreamManifest } from './stream_manifest.js';
import { stateFields, vcpuFields } from './survey.js';
import { highHalf, lowHalf } from '../pfn/page_words.js';

const { libxcRecord: rec } = format;

export function damaged(what: string, cause?: unknown): DormouseError {
  return new DormouseError('IMAGE_DAMAGED', `manifest.stream: ${what}`, { cause });
}

/** A whole record: header, body, padding. */
export function paddedRecord(type: number, body: Buffer): Buffer[] {
  return [recordHead(type, body.length), body, Buffer.alloc(format.paddingBytes(body.length))];
}

export function recordHead(type: number, length: number): Buffer {
  const head = Buffer.alloc(format.recordHeaderBytes);
  head.writeUInt32LE(type, 0);
  head.writeUInt32LE(length, 4);
  return head;
}

export function xlHead({ xl }: Pick<StreamManifest, 'xl'>): Buffer[] {
  const head = Buffer.alloc(16);
  head.writeUInt32LE(format.xlByteOrder, 0);
  head.writeUInt32LE(xl.mandatoryFlags, 4);
  head.writeUInt32LE(xl.optionalFlags, 8);
  head.writeUInt32LE(xl.optionalData.length, 12);
  return [format.xlMagic, head, xl.optionalData];
}

export function libxlHead({ libxl }: Pick<StreamManifest, 'libxl'>): Buffer {
  const head = Buffer.alloc(format.libxlHeaderBytes);
  format.libxlIdent.copy(head);
  head.writeUInt32BE(libxl.version, 8);
  head.writeUInt32BE(libxl.options, 12);
  return head;
}

export function libxcHead({ libxc }: Pick<StreamManifest, 'libxc'>): Buffer {
  const head = Buffer.alloc(format.libxcHeaderBytes + format.domainHeaderBytes);
  format.libxcMarker.copy(head);
  head.writeUInt32BE(format.libxcIdent, 8);
  head.writeUInt32BE(libxc.version, 12);
  head.writeUInt16BE(libxc.options & 0xffff, 16);
  head.writeUInt32LE(format.domainType[libxc.type], 24);
  head.writeUInt16LE(12, 28);
  head.writeUInt32LE(libxc.xenMajor, 32);
  head.writeUInt32LE(libxc.xenMinor, 36);
  return head;
}

/** Body of a libxc record that manifest.state or manifest.geometry holds. */
export function stateBody(manifest: Pick<Manifest, 'geometry' | 'state'>, type: number): Buffer {
  const field = stateFields.get(type);
  if (field !== undefined) return manifest.state[field];
  const { guestWidth, nrPfns, p2mFrames } = manifest.geometry;
  if (type === rec.pvInfo) return Buffer.from([guestWidth, guestWidth === 4 ? 3 : 4, 0, 0, 0, 0, 0, 0]);
  if (type !== rec.p2mFrames) throw damaged(`record type ${type} is none of the domain's state`);
  const body = Buffer.alloc(8 + 8 * p2mFrames.length);
  body.writeUInt32LE(nrPfns - 1, 4);
  p2mFrames.forEach((pfn, i) => {
    body.writeUInt32LE(lowHalf(pfn), 8 + 8 * i);
    body.writeUInt32LE(highHalf(pfn), 12 + 8 * i);
  });
  return body;
}

export function vcpuBody(manifest: Pick<Manifest, 'state'>, item: { type: number; id: number }): Buffer {
  const field = vcpuFields.get(item.type);
  const vcpu = manifest.state.vcpus.find(({ id }) => id === item.id);
  if (field === undefined || vcpu === undefined) throw damaged(`record type ${item.type} of vCPU ${item.id}`);
  const head = Buffer.alloc(8);
  head.writeUInt32LE(item.id, 0);
  return Buffer.concat([head, vcpu[field]]);
}
