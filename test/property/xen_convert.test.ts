/** Random guests, page lists and record orders: to image and back is the same file, or the same to a restore. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { compareXenFiles } from '../../src/convert/compare.js';
import { convertFromXen } from '../../src/convert/from_xen.js';
import { convertToXen } from '../../src/convert/to_xen.js';
import {
  fileOf,
  hvmParts,
  inserted,
  patternPage,
  pvParts,
  record,
  type Page,
  type Part,
} from '../support/xen_stream.js';

const folder = mkdtempSync(join(tmpdir(), 'dormouse-convert-property-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const types = fc.constantFrom(0, 0, 0, 0, 1, 2, 3, 4, 9, 10, 11, 12, 0xd, 0xe, 0xf, 0xf);
const page = (pfns: fc.Arbitrary<number>): fc.Arbitrary<Page> =>
  fc.record({ pfn: pfns, type: types, seed: fc.nat(5) }).map(({ pfn, type, seed }) => ({
    pfn,
    type,
    ...(type < 0xd && { body: patternPage(seed) }),
  }));

const pfns = fc.oneof(fc.nat(40), fc.nat(3000));
/** Batches in which a pfn comes once at most, or as often as it likes. */
const batches = (isOnce: boolean) =>
  fc
    .array(fc.array(page(pfns), { minLength: 1, maxLength: 30 }), { minLength: 1, maxLength: 6 })
    .map((all) => {
      const seen = new Set<number>();
      const fresh = ({ pfn }: Page) => !seen.has(pfn) && seen.add(pfn);
      return isOnce ? all.map((batch) => batch.filter(fresh)).filter((batch) => batch.length > 0) : all;
    });

const guest = (isOnce: boolean) =>
  fc.record({
    kind: fc.constantFrom('pv', 'pvh', 'hvm'),
    batches: batches(isOnce),
    version: fc.constantFrom(2 as const, 3 as const),
    width: fc.constantFrom(4 as const, 8 as const),
    vcpus: fc.uniqueArray(fc.nat(20), { minLength: 1, maxLength: 4 }),
    emptyBlobs: fc.array(fc.nat(20)),
    policies: fc.boolean(),
    extra: fc.option(
      fc.record({
        before: fc.constantFrom('tsc', 'end', 'libxl end'),
        bytes: fc.uint8Array({ maxLength: 50 }),
      }),
    ),
  });
type Guest = typeof guest extends (once: boolean) => fc.Arbitrary<infer G> ? G : never;

function partsOf({ kind, extra, ...options }: Guest): Part[] {
  const parts =
    kind === 'pv' ? pvParts(options) : hvmParts({ ...options, kind: kind === 'hvm' ? 'hvm' : 'pvh' });
  return extra === null ? parts : inserted(parts, extra.before, record(0x80000042, Buffer.from(extra.bytes)));
}

async function thereAndBack(
  parts: readonly Part[],
  check: (xl: string, back: string) => Promise<void>,
): Promise<void> {
  const [xl, image, back] = ['xl', 'image', 'back'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  try {
    writeFileSync(xl, fileOf(parts));
    await convertFromXen(xl, image, { directIo: false });
    await convertToXen(image, back, { directIo: false });
    await check(xl, back);
  } finally {
    for (const path of [xl, image, back]) rmSync(path, { force: true });
  }
}

test('a stream that lists each page once comes back byte for byte', async () => {
  await fc.assert(
    fc.asyncProperty(guest(true), async (one) => {
      await thereAndBack(partsOf(one), (xl, back) => {
        assert.ok(readFileSync(xl).equals(readFileSync(back)));
        return Promise.resolve();
      });
    }),
    { numRuns: 60 },
  );
});

/** What is left of a page list when the last copy wins. */
function finalPages(all: readonly (readonly Page[])[]): Map<number, Page> {
  return new Map(all.flat().map((one) => [one.pfn, one]));
}

test('a stream that repeats pages comes back as the same guest', async () => {
  await fc.assert(
    fc.asyncProperty(guest(false), async (one) => {
      await thereAndBack(partsOf(one), async (xl, back) => {
        assert.deepEqual(await compareXenFiles(xl, back), []);
        const last = [...finalPages(one.batches).values()].sort((a, b) => a.pfn - b.pfn);
        const plain = join(folder, 'plain');
        const size = 1 + Math.max(...one.batches.flat().map(({ pfn }) => pfn));
        const parts = partsOf({ ...one, batches: [last] });
        assert.ok(size >= last.length);
        writeFileSync(plain, fileOf(parts));
        assert.deepEqual(await compareXenFiles(plain, back), []);
        rmSync(plain);
      });
    }),
    { numRuns: 40 },
  );
});

test('the comparison sees any one page or record that differs', async () => {
  await fc.assert(
    fc.asyncProperty(
      guest(true),
      fc.nat(),
      fc.constantFrom('page', 'type', 'record'),
      async (one, which, how) => {
        const all = one.batches.flat();
        const victim = all[which % all.length];
        assert.ok(victim);
        const other = (page_: Page): Page => {
          if (page_ !== victim) return page_;
          if (how === 'page' && page_.body) return { ...page_, body: patternPage(77) };
          return page_.type >= 0xd
            ? { pfn: page_.pfn, type: page_.type === 0xd ? 0xe : 0xd }
            : { pfn: page_.pfn, type: 0xd };
        };
        const [left, right] = [join(folder, 'left'), join(folder, 'right')];
        writeFileSync(left, fileOf(partsOf(one)));
        const changed =
          how === 'record'
            ? inserted(partsOf(one), 'tsc', record(0x80000099))
            : partsOf({ ...one, batches: one.batches.map((batch) => batch.map(other)) });
        writeFileSync(right, fileOf(changed));
        const found = await compareXenFiles(left, right);
        assert.equal(found.length, 1, JSON.stringify(found));
        if (how !== 'record') assert.equal(found[0]?.pfn, victim.pfn);
      },
    ),
    { numRuns: 60 },
  );
});
