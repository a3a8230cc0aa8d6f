/** Xen's dirty log of a domain, for as long as its lease is held. */
import type { Buffer } from 'node:buffer';
import { native, nativeCall, nativePromise } from '../../addon.js';
import { asDormouseError, DormouseError } from '../../errors.js';
import type { XenMemoryHandle } from '../../handle.js';
import type { Tracker } from '../contract.js';
import type { XenLease } from './leases.js';
import { loadXen, watcherPath, type XenNative } from './native.js';

export const noShadow = 'hypervisor built without shadow paging: only PVH and HVM domains';

export interface Logged {
  readonly api: XenNative;
  readonly held: XenLease;
  readonly nrPfns: number;
  /** Where the domain is mapped. The log begins before: a page that is not there yet is in it. */
  readonly memory: () => XenMemoryHandle | undefined;
  readonly notice: (text: string) => void;
}

/** A log that nobody is seen to use is for the user to end: who begins one need not be known to us. */
function locked(domid: number, error: DormouseError): DormouseError {
  if (!error.message.includes('dirty log is on')) return error;
  const line = `if no tool is at work on it, this ends the log: ${watcherPath(loadXen().release)} end-log ${domid}`;
  return new DormouseError('LOCKED', error.message, { cause: error, place: { domid }, details: [line] });
}

function begin({ api, held }: Logged): void {
  const { domid } = held;
  held.note('logdirty');
  try {
    native(() => api.logDirtyOn(domid));
  } catch (thrown) {
    held.strike('logdirty');
    const error = asDormouseError(thrown);
    if (error.code === 'LOCKED') throw locked(domid, error);
    if (error.code !== 'HOST_LACKS') throw error;
    throw new DormouseError('HOST_LACKS', `log-dirty: ${noShadow}`, { cause: error, place: { domid } });
  }
}

/** Xen writes to these pages itself, past the log. */
async function eventPagesOf({ api, held, nrPfns, memory, notice }: Logged): Promise<readonly number[]> {
  const mapped = memory();
  if (mapped === undefined) return [];
  const pages = await nativePromise(() => api.eventPages(mapped));
  if (pages.length >= api.mostEventPages)
    notice(
      `domain ${held.domid}: ${api.mostEventPages} pages look like event channels, and what Xen writes into more is not seen`,
    );
  return pages.filter((pfn) => pfn < nrPfns);
}

/** A log that is on. */
export class XenLog implements Tracker {
  readonly #of: Logged;
  #eventPages: readonly number[] = [];

  private constructor(of: Logged) {
    this.#of = of;
  }

  /** The log is on from here on. LOCKED where it is already, HOST_LACKS where Xen has none for the domain. */
  static begin(of: Logged): XenLog {
    begin(of);
    return new XenLog(of);
  }

  /** As they were found by `prepare`. */
  get eventPages(): readonly number[] {
    return this.#eventPages;
  }

  readAndClear(): Promise<Buffer> {
    return nativeCall(() => this.#read(true));
  }

  /** For each pause anew: the guest may have brought up a processor, or opened more channels. */
  async prepare(): Promise<void> {
    this.#eventPages = await eventPagesOf(this.#of);
  }

  peek(): Promise<Buffer> {
    return nativeCall(() => {
      const { api, held, nrPfns } = this.#of;
      const bitmap = this.#read(false);
      api.markSharedPages(held.domid, nrPfns, bitmap);
      for (const pfn of this.#eventPages) bitmap[pfn >> 3] = (bitmap[pfn >> 3] ?? 0) | (1 << (pfn & 7));
      return bitmap;
    });
  }

  off(): Promise<void> {
    return nativeCall(() => {
      const { api, held } = this.#of;
      const { domid } = held;
      if (held.isReleased || !held.has('logdirty')) return;
      const wasOn = api.logDirtyOff(domid);
      held.strike('logdirty');
      if (!wasOn)
        throw new DormouseError('LOCKED', `xl saved domain ${domid} meanwhile`, { place: { domid } });
    });
  }

  #read(clear: boolean): Buffer {
    const { api, held, nrPfns } = this.#of;
    const { domid } = held;
    if (held.isReleased) throw new DormouseError('INTERNAL', `the lease of domain ${domid} has ended`);
    const still = held.hasKind('pause') || held.hasKind('suspend');
    return api.logDirtyRead(domid, nrPfns, clear, still);
  }
}
