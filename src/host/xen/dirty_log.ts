/** Xen's dirty log of a domain, for as long as its lease is held. */
import type { Buffer } from 'node:buffer';
import { native, nativeCall, nativePromise } from '../../addon.js';
import { asDormouseError, DormouseError } from '../../errors.js';
import type { XenMemoryHandle } from '../../handle.js';
import type { Tracker } from '../contract.js';
import type { XenLease } from './leases.js';
import { loadXen, watcherPath, type XenNative } from './native.js';

export const noShadow = 'hypervisor built without shadow paging: only PVH and HVM domains';
/** kEventPagesCap of native/host/xen/event_pages.h. */
const mostEventPages = 1024;

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
  if (pages.length >= mostEventPages)
    notice(
      `domain ${held.domid}: ${mostEventPages} pages look like event channels, and what Xen writes into more is not seen`,
    );
  return pages.filter((pfn) => pfn < nrPfns);
}

/** The log is on from here on. LOCKED where it is already, HOST_LACKS where Xen has none for the domain. */
export function beginLog(logged: Logged): Tracker {
  const { api, held, nrPfns } = logged;
  const { domid } = held;
  begin(logged);
  let eventPages: readonly number[] = [];
  const read = (clear: boolean): Promise<Buffer> =>
    nativeCall(() => {
      if (held.isReleased) throw new DormouseError('INTERNAL', `the lease of domain ${domid} has ended`);
      const still = held.hasKind('pause') || held.hasKind('suspend');
      return api.logDirtyRead(domid, nrPfns, clear, still);
    });
  return {
    readAndClear: () => read(true),
    // For each pause anew: the guest may have brought up a processor, or opened more channels.
    prepare: async () => {
      eventPages = await eventPagesOf(logged);
    },
    peek: async () => {
      const bitmap = await read(false);
      native(() => api.markSharedPages(domid, nrPfns, bitmap));
      for (const pfn of eventPages) bitmap[pfn >> 3] = (bitmap[pfn >> 3] ?? 0) | (1 << (pfn & 7));
      return bitmap;
    },
    off: () =>
      nativeCall(() => {
        if (held.isReleased || !held.has('logdirty')) return;
        const wasOn = api.logDirtyOff(domid);
        held.strike('logdirty');
        if (!wasOn)
          throw new DormouseError('LOCKED', `xl saved domain ${domid} meanwhile`, { place: { domid } });
      }),
  };
}
