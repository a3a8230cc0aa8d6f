/** Light images of guests under load hold what the guest's memory was when it stood still, page by page. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import type { ContentRequest, ContentSeen } from './content_checks.js';
import { contents } from './extent.js';
import { destroyGuests, Guest, type GuestOptions } from './guests.js';
import { startLab, type Lab } from './lab.js';
import { putOracles } from './oracles.js';

/** What is left of the smaller one is enough for the guest's load, which would be killed else. */
const [lowMib, highMib] = [128, 160];

describe('the content of light images on real Xen', () => {
  let lab: Lab;
  before(async () => {
    lab = await startLab();
    await putOracles(lab, 'page_reference', 'hold_pauses.so');
  });
  afterEach(() => destroyGuests(lab));
  after(() => lab.stop());

  async function checked(request: ContentRequest): Promise<ContentSeen[]> {
    const { dir } = request;
    const env = `LD_PRELOAD=/tmp/hold_pauses.so PAUSE_REFERENCE=${dir}/content.reference`;
    const script = `mkdir -p ${dir}; ${env} node /project/dist/lab/content_checks.js '${JSON.stringify(request)}'`;
    const out = await lab.must(script, { timeoutMs: 120_000 + request.times * 180_000 });
    return out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as ContentSeen);
  }

  for (const [type, vcpus] of contents.guests)
    for (const balloons of [false, true])
      test(`${type} with ${vcpus} vCPUs, disk and network${balloons ? ', ballooning' : ''}`, async (t) => {
        const name = `content-${type}-${vcpus}`;
        const memoryMib = balloons ? highMib : lowMib;
        const load = { memoryMib, loadMib: 16, dirtyMibPerS: 2, diskMib: 16, address: 110 };
        const guest = await Guest.create(lab, { name, type, vcpus, ...load } satisfies GuestOptions);
        const seed = Number(process.env.DORMOUSE_LAB_SEED ?? Date.now() % 1_000_000);
        t.diagnostic(`DORMOUSE_LAB_SEED=${seed}`);
        const seen = await checked({
          ...{ guest: name, times: contents.times, seed, dir: '/images/content' },
          ...(balloons ? { balloonMib: [lowMib, highMib] as const } : {}),
        });
        for (const { shown, ...rest } of seen)
          t.diagnostic(JSON.stringify({ ...rest, shown: shown.slice(0, 3) }));
        assert.equal(seen.length, contents.times);
        for (const { differing, shown } of seen) assert.equal(differing, 0, JSON.stringify(shown));
        await guest.waitTicks(2);
        await guest.destroy();
      });
});
