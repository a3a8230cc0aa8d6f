/** A core dump's note about the hypervisor (docs/core-dumps.md), where there is no Xen that could be asked. */
import { Buffer } from 'node:buffer';
import { pageBytes } from '../pfn/page_words.js';
import { version } from '../version.js';

/** Where the part of a guest's address space begins that is the hypervisor's. */
const xenVirtualStart = 0xffff_8000_0000_0000n;

/** What Xen would say of itself (XENVER_*): version 0.0 and these words, so that nobody takes it for a Xen. */
export function hypervisorNote(words: string): Buffer {
  const out = Buffer.alloc(1280);
  out.write(`-${version}`.slice(0, 15), 16, 'latin1');
  out.write(words, 176, 'latin1');
  out.writeBigUInt64LE(xenVirtualStart, 1264);
  out.writeBigUInt64LE(BigInt(pageBytes), 1272);
  return out;
}
