/** A builder of the embedded host where a save helper's is wanted. */
import assert from 'node:assert/strict';
import type { Builder } from '../../src/host/contract.js';
import type { HelperTarget, Receiver } from '../../src/transfer/receive.js';

/** Is told and asked, and says nothing. */
export const silentReceiver: Receiver = {
  say: () => undefined,
  progress: () => undefined,
  staticDataDone: () => Promise.resolve(),
};

type Given = Pick<HelperTarget, 'populatePfns'>;

/** The pfn space gets its size once, and `whenSized` is called then; frames come as `given` gives them. */
function targetOf(
  builder: Builder,
  nrPfns: number,
  given: Given,
  whenSized: () => Promise<void> | void = () => undefined,
): HelperTarget {
  let sized = false;
  return {
    ...builder,
    ...given,
    mostPfns: nrPfns,
    setPolicy: () => 0,
    setGeometry: async (geometry) => {
      if (sized) return;
      sized = true;
      await builder.setGeometry({ ...geometry, nrPfns });
      await whenSized();
    },
    depopulate: () => assert.fail('this guest gives no frames back'),
  };
}

/** Frames come one by one. */
export function helperTarget(builder: Builder, nrPfns: number): HelperTarget {
  const given = new Set<bigint>();
  const populatePfns = async (pfns: BigUint64Array): Promise<void> => {
    const fresh = [...pfns].filter((pfn) => !given.has(pfn));
    fresh.forEach((pfn) => given.add(pfn));
    if (fresh.length > 0) await builder.populate(fresh.map((pfn) => [Number(pfn), 1] as const));
  };
  return targetOf(builder, nrPfns, { populatePfns });
}

/** Every pfn has its frame from the start. */
export const populatedTarget = (builder: Builder, nrPfns: number): HelperTarget =>
  targetOf(builder, nrPfns, { populatePfns: () => undefined }, () => builder.populate([[0, nrPfns]]));
