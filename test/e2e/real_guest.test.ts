/**
 * A Debian guest that a real `xl save` wrote, taken through the embedded host: its page tables are localised to other
 * frames, pinned, and saved again. Nothing a restore would see may differ from the original. Skipped, visibly, where there
 * are no such files.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import { startInfoPfn } from '../../src/domain/pv_state.js';
import { blankStartInfo } from '../../src/domain/vcpu_context.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { compareXenFiles } from '../../src/convert/compare.js';
import { convertFromXen } from '../../src/convert/from_xen.js';
import { convertToXen } from '../../src/convert/to_xen.js';
import { ImageReader } from '../../src/image/reader.js';
import { restore } from '../../src/restore/restore.js';
import { save } from '../../src/save/save.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { startTestHost } from '../support/hosts.js';
import { noVerifier, noXlFiles, unpack, verifierComplaint, xlFiles } from '../support/xen_tools.js';

const noEntry = 0xffff_ffff_ffff_ffffn;

/** The p2m's entries of an image as pfns that have a frame: a machine frame means nothing on another machine. */
function framesListed(reader: ImageReader): boolean[] {
  const leaves = reader.readPages(reader.manifest.geometry.p2mFrames);
  const listed: boolean[] = [];
  const seen = new Set<bigint>();
  for (let pfn = 0; pfn < reader.nrPfns; pfn++) {
    const mfn = leaves.readBigUInt64LE(pfn * 8);
    listed.push(mfn !== noEntry);
    if (mfn === noEntry) continue;
    assert.ok(!seen.has(mfn), `two pfns in machine frame ${mfn}`);
    seen.add(mfn);
  }
  return listed;
}

function startInfoOf(reader: ImageReader): Buffer {
  const page = reader.readPages([startInfoPfn(reader.manifest.state)]);
  blankStartInfo(page);
  return page;
}

/** Every page of the two images, but for those that hold machine frames by design: those after translation. */
async function assertSamePages(before: string, after: string): Promise<void> {
  const one = await ImageReader.open(before, { lanes: 1 });
  const two = await ImageReader.open(after, { lanes: 1 });
  try {
    assert.equal(two.nrPfns, one.nrPfns);
    const { p2mFrames } = one.manifest.geometry;
    assert.deepEqual(two.manifest.geometry.p2mFrames, p2mFrames);
    const special = new Set([
      ...p2mFrames,
      ...(p2mFrames.length > 0 ? [startInfoPfn(one.manifest.state)] : []),
    ]);
    for (let first = 0; first < one.nrPfns; first += 256) {
      const pfns = Array.from({ length: Math.min(256, one.nrPfns - first) }, (_, i) => first + i);
      for (const pfn of pfns)
        assert.equal(two.pageEntry(pfn).type, one.pageEntry(pfn).type, `type of ${pfn}`);
      const plain = pfns.filter((pfn) => !special.has(pfn));
      assert.ok(one.readPages(plain).equals(two.readPages(plain)), `pages from pfn ${first}`);
    }
    if (special.size === 0) return;
    assert.deepEqual(framesListed(two), framesListed(one));
    assert.deepEqual(startInfoOf(two), startInfoOf(one));
  } finally {
    one.close();
    two.close();
  }
}

async function takeThrough(host: EmbeddedHost, first: string, again: string): Promise<void> {
  const { name } = await restore(host, first, { paused: true, trustConfig: true });
  const info = await host.find(name);
  assert.ok(info.paused);
  assert.equal((await digestDomain(host, name)).digest, (await digestImage(first)).digest);
  await assert.rejects(host.unpause(info.domid), { code: 'HOST_LACKS' });
  await save(host, name, again, { then: 'destroy' });
}

test('a real guest through the embedded host', { skip: noXlFiles }, async (t) => {
  const host = await startTestHost(t, { memoryMib: 512 });
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-real-'));
  t.after(async () => {
    await closeWorkers();
    rmSync(dir, { recursive: true, force: true });
  });
  for (const source of xlFiles()) {
    const name = basename(source);
    const path = (end: string): string => join(dir, `${name}.${end}`);
    await t.test(`${name}: localised, pinned, held, saved again`, async () => {
      await unpack(source, path('xl'));
      await convertFromXen(path('xl'), path('first'));
      await takeThrough(host, path('first'), path('again'));
      await assertSamePages(path('first'), path('again'));
      await convertToXen(path('again'), path('back'));
      const differences = await compareXenFiles(path('xl'), path('back'), { ignoreMachineFrames: true });
      assert.deepEqual(differences, []);
    });
    await t.test(`${name}: Debian's verifier accepts it`, { skip: noVerifier }, () => {
      assert.equal(verifierComplaint(path('back')), null);
    });
  }
});
