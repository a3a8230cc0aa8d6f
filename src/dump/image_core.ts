/**
 * A core dump of an image, as `xl dump-core` would write one of the guest if each of its pages had the machine frame of its pfn's number:
 * an image knows no other frames.
 */
import { Buffer } from 'node:buffer';
import { hvmRecord, hvmRecords } from '../domain/hvm_context.js';
import { hypervisorNote } from '../domain/hypervisor_note.js';
import type { OperationOptions } from '../domain/progress.js';
import { localiseVcpus } from '../domain/pv_state.js';
import { contextOfHvm } from '../domain/registers.js';
import type { CoreState } from '../domain/state.js';
import { sharedInfoBytes } from '../domain/vcpu_context.js';
import { DormouseError } from '../errors.js';
import type { OutputFile } from '../image/output_file.js';
import type { ImageReader } from '../image/reader.js';
import { countOf, pfnsOf } from '../pfn/pfn_runs.js';
import { coreFrame, tableEntryBytes } from './core_file.js';
import { writeImagePages } from './image_pages.js';

/** Entries of the table that are made and written at a time. */
const tablePiece = 2 ** 16;

function incompatible(reader: ImageReader, why: string): DormouseError {
  return new DormouseError('IMAGE_INCOMPATIBLE', `${reader.path}: ${why}`, { place: { path: reader.path } });
}

/** By id. */
function contextsOf(reader: ImageReader): Buffer[] {
  const { domain, state } = reader.manifest;
  if (domain.type === 'pv')
    return [...localiseVcpus(state.vcpus, (frames) => frames)]
      .sort((a, b) => a.id - b.id)
      .map(({ basic }) => basic);
  return [...hvmRecords(state.hvmContext)]
    .filter(({ type }) => type === hvmRecord.cpu)
    .sort((a, b) => a.instance - b.instance)
    .map(({ instance, body }) => {
      const context = contextOfHvm(body);
      if (context) return context;
      throw incompatible(reader, `the registers of vCPU ${instance} are of another form than Xen's`);
    });
}

function stateOf(reader: ImageReader): CoreState {
  const contexts = contextsOf(reader);
  const { sharedInfo } = reader.manifest.state;
  if (contexts.length === 0) throw incompatible(reader, 'it has no registers, which a core dump needs');
  if (sharedInfo.length !== 0 && sharedInfo.length !== sharedInfoBytes)
    throw incompatible(reader, `its shared info has ${sharedInfo.length} bytes`);
  return { contexts, sharedInfo, hypervisor: hypervisorNote('dormouse-image') };
}

/** Which page is where: of a PV guest with its frame. */
function writeTable(output: OutputFile, reader: ImageReader): void {
  const entryBytes = tableEntryBytes(reader.manifest.domain.type);
  const piece = Buffer.alloc(tablePiece * entryBytes);
  let filled = 0;
  for (const pfn of pfnsOf(reader.contentRuns())) {
    for (let at = 0; at < entryBytes; at += 8) piece.writeBigUInt64LE(BigInt(pfn), filled + at);
    filled += entryBytes;
    if (filled < piece.length) continue;
    output.write(piece);
    filled = 0;
  }
  output.write(piece.subarray(0, filled));
}

/** Writes all of it. IMAGE_INCOMPATIBLE (registers that are not Xen's), and writeImagePages' errors. */
export async function writeImageCore(
  reader: ImageReader,
  output: OutputFile,
  options: OperationOptions,
): Promise<void> {
  const { domain, geometry } = reader.manifest;
  const state = stateOf(reader);
  const pages = countOf(reader.contentRuns());
  const { head, names } = coreFrame({ type: domain.type, state, pages });
  output.write(head);
  const leafPfns = domain.type === 'pv' ? geometry.p2mFrames : [];
  await writeImagePages(reader, output, { packed: true, leafPfns }, options);
  writeTable(output, reader);
  output.write(names);
}
