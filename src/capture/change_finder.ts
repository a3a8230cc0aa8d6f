/** Finds what changed in a domain since it was put into an image: by the host's log, or by content where it has none. */
import { native } from '../addon.js';
import { asDormouseError } from '../errors.js';
import type { Host, Lease, MemoryView, Tracker } from '../host/contract.js';
import { type PassKind, passKinds, steps } from '../worker/steps.js';
import type { LiveHandle } from '../handle.js';

export interface ChangeFinder {
  readonly by: 'log-dirty' | 'content';
  /** How a further live pass goes over the pages. */
  readonly passKind: PassKind;
  /** Passes before the guest is stopped, the first one included. */
  readonly maxPasses: number;
  /** Before a further live pass: adds what is known to have changed. */
  find(live: LiveHandle, memory: MemoryView): Promise<void>;
  /** The host's log, to be prepared right before the guest is stopped and read when it stands; null where there is none. */
  readonly tracker: Tracker | null;
  /** Every reading of it goes through here, for who must know of one that failed. */
  reading<T>(answer: Promise<T>): Promise<T>;
  off(): Promise<void>;
}

/** Reads the log; types are compared too, as not every host logs a frame that came or went. */
function byLog(tracker: Tracker): ChangeFinder {
  return {
    by: 'log-dirty',
    passKind: passKinds.live,
    maxPasses: 5,
    find: async (live, memory) => {
      // The slow part first: the log is to be as young as can be.
      native(() => steps().liveFindRetyped(live, memory.handle));
      const logged = await tracker.readAndClear();
      steps().liveMerge(live, memory.handle, logged);
    },
    tracker,
    reading: (answer) => answer,
    off: () => tracker.off(),
  };
}

/** Each further pass looks at all of memory, types included. */
const byContent: ChangeFinder = {
  by: 'content',
  passKind: passKinds.seek,
  maxPasses: 3,
  find: () => Promise.resolve(),
  tracker: null,
  reading: (answer) => answer,
  off: () => Promise.resolve(),
};

/** The host's log where it has one for this domain, which is on from then on; else content. */
export async function changeFinder(host: Host, lease: Lease): Promise<ChangeFinder> {
  try {
    return byLog(await host.tracker(lease));
  } catch (thrown) {
    if (asDormouseError(thrown).code !== 'HOST_LACKS') throw thrown;
    return byContent;
  }
}
