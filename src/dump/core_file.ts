/**
 * The layout of a Xen core dump: ELF without program headers, whose sections hold a domain (docs/core-dumps.md). Xen's
 * docs/misc/dump-core-format.txt is the specification; the order of the sections and their alignments are those of
 * `xl dump-core`. All integers are little-endian.
 */
import { Buffer } from 'node:buffer';
import type { CoreState } from '../domain/state.js';
import type { DomainType } from '../domain/type.js';
import { pageBytes } from '../pfn/page_words.js';

const elfHeaderBytes = 64;
const sectionHeaderBytes = 64;
const programHeaderBytes = 56;

const sectionType = { none: 0, progbits: 1, strtab: 3, note: 7 } as const;
const noteType = {
  none: 0x200_0000,
  header: 0x200_0001,
  hypervisor: 0x200_0002,
  format: 0x200_0003,
} as const;
const magicOf = { pv: 0xf00f_ebed, hvm: 0xf00f_ebee } as const;
/** Major version in the upper half, minor in the lower. */
const formatVersion = 1n;
export const hypervisorNoteBytes = 1280;

interface Section {
  readonly name: string;
  readonly type: number;
  readonly bytes: number;
  readonly alignment: number;
  readonly entryBytes: number;
}

export interface CorePlan {
  readonly type: DomainType;
  readonly state: CoreState;
  readonly pages: number;
}

/** Bytes of one entry of the table that says which page is where: pfn and machine frame, or the pfn alone. */
export const tableEntryBytes = (type: DomainType): number => (type === 'pv' ? 16 : 8);

function note(type: number, body: Buffer): Buffer {
  const head = Buffer.alloc(16);
  head.writeUInt32LE(4, 0);
  head.writeUInt32LE(body.length, 4);
  head.writeUInt32LE(type, 8);
  head.write('Xen\0', 12, 'latin1');
  return Buffer.concat([head, body]);
}

function words(...values: readonly (number | bigint)[]): Buffer {
  const out = Buffer.alloc(values.length * 8);
  values.forEach((value, i) => out.writeBigUInt64LE(BigInt(value), i * 8));
  return out;
}

function notes({ type, state, pages }: CorePlan): Buffer {
  if (state.hypervisor.length !== hypervisorNoteBytes)
    throw new TypeError(`a note about the hypervisor has ${hypervisorNoteBytes} bytes`);
  const magic = type === 'pv' ? magicOf.pv : magicOf.hvm;
  return Buffer.concat([
    note(noteType.none, Buffer.alloc(0)),
    note(noteType.header, words(magic, state.contexts.length, pages, pageBytes)),
    note(noteType.hypervisor, state.hypervisor),
    note(noteType.format, words(formatVersion)),
  ]);
}

/** Sections after the first two (none, and the names), in the order of the file. */
function sectionsOf(plan: CorePlan, noteBytes: number): Section[] {
  const { type, state, pages } = plan;
  const contextBytes = state.contexts[0]?.length ?? 0;
  const plain = (name: string, bytes: number, alignment: number, entryBytes: number): Section => ({
    ...{ name, bytes, alignment, entryBytes },
    type: sectionType.progbits,
  });
  const entryBytes = tableEntryBytes(type);
  const table = type === 'pv' ? '.xen_p2m' : '.xen_pfn';
  return [
    { name: '.note.Xen', type: sectionType.note, bytes: noteBytes, alignment: 0, entryBytes: 0 },
    plain('.xen_prstatus', state.contexts.length * contextBytes, 8, contextBytes),
    ...(state.sharedInfo.length > 0 ? [plain('.xen_shared_info', pageBytes, 8, pageBytes)] : []),
    plain('.xen_pages', pages * pageBytes, pageBytes, pageBytes),
    plain(table, pages * entryBytes, 8, entryBytes),
  ];
}

function elfHeader(sections: number): Buffer {
  const out = Buffer.alloc(elfHeaderBytes);
  // 64 bits, little-endian, ELF version 1, System V, its ABI version 1 as xl writes it.
  Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 1]).copy(out);
  out.writeUInt16LE(4, 16); // a core
  out.writeUInt16LE(62, 18); // x86-64
  out.writeUInt32LE(1, 20);
  out.writeBigUInt64LE(BigInt(elfHeaderBytes), 40); // section headers
  out.writeUInt16LE(elfHeaderBytes, 52);
  out.writeUInt16LE(programHeaderBytes, 54);
  out.writeUInt16LE(sectionHeaderBytes, 58);
  out.writeUInt16LE(sections, 60);
  out.writeUInt16LE(1, 62); // the section of names
  return out;
}

function sectionHeader(nameAt: number, offset: number, section: Omit<Section, 'name'>): Buffer {
  const out = Buffer.alloc(sectionHeaderBytes);
  out.writeUInt32LE(nameAt, 0);
  out.writeUInt32LE(section.type, 4);
  out.writeBigUInt64LE(BigInt(offset), 24);
  out.writeBigUInt64LE(BigInt(section.bytes), 32);
  out.writeBigUInt64LE(BigInt(section.alignment), 48);
  out.writeBigUInt64LE(BigInt(section.entryBytes), 56);
  return out;
}

/** What comes before the pages, ending on a page boundary, and after the table. */
export function coreFrame(plan: CorePlan): { readonly head: Buffer; readonly names: Buffer } {
  const noteBytes = notes(plan);
  const sections = sectionsOf(plan, noteBytes.length);
  let names = '\0.shstrtab\0';
  const headers: Buffer[] = [];
  let offset = elfHeaderBytes + (sections.length + 2) * sectionHeaderBytes;
  for (const section of sections) {
    offset = section.alignment === pageBytes ? Math.ceil(offset / pageBytes) * pageBytes : offset;
    headers.push(sectionHeader(names.length, offset, section));
    offset += section.bytes;
    names += `${section.name}\0`;
  }
  const unused = { type: sectionType.none, bytes: 0, alignment: 0, entryBytes: 0 };
  const strings = { ...unused, type: sectionType.strtab, bytes: names.length };
  const head = Buffer.concat([
    elfHeader(sections.length + 2),
    sectionHeader(0, 0, unused),
    sectionHeader(1, offset, strings),
    ...headers,
    noteBytes,
    ...plan.state.contexts,
    plan.state.sharedInfo,
  ]);
  const padding = Buffer.alloc((pageBytes - (head.length % pageBytes)) % pageBytes);
  return { head: Buffer.concat([head, padding]), names: Buffer.from(names, 'latin1') };
}
