/** A builder of the embedded host where a save helper's is wanted. */
import assert from 'node:assert/strict';
import type { Builder } from '../../src/host/contract.js';
import type { HelperTarget } from '../../src/transfer/receive.js';

/** An embedded host's builder as the helper's: the pfn space gets its size once, frames come one by one. */
export function helperTarget(builder: Builder, nrPfns: number): HelperTarget {
  const given = new Set<bigint>();
  let sized = false;
  return {
    ...builder,
    mostPfns: nrPfns,
    setPolicy: () => 0,
    setGeometry: async (geometry) => {
      if (!sized) await builder.setGeometry({ ...geometry, nrPfns });
      sized = true;
    },
    populatePfns: async (pfns) => {
      const fresh = [...pfns].filter((pfn) => !given.has(pfn));
      fresh.forEach((pfn) => given.add(pfn));
      if (fresh.length > 0) await builder.populate(fresh.map((pfn) => [Number(pfn), 1] as const));
    },
    depopulate: () => assert.fail('this guest gives no frames back'),
  };
}
