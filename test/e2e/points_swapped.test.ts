/** An image of the store that is another one now is no parent, also of the point whose map names all pages. */
import assert from 'node:assert/strict';
import { copyFileSync, renameSync } from 'node:fs';
import { test } from 'node:test';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import { FULL_MAP_EVERY } from '../../src/image/format.js';
import { PointSession, type TakenPoint } from '../../src/protect/point_session.js';
import { bootGuest } from '../support/guests.js';
import { pointStage } from '../support/point_stage.js';

for (const due of [true, false])
  test(`the last image is another one's ${due ? 'before a map of all pages' : 'before a new session'}`, async (t) => {
    const { host, store } = await pointStage(t);
    const plan = { program: 'churner', vcpus: 1, seed: 5, steps: 0, rate: 2000, memoryMib: 4 } as const;
    const domid = await bootGuest(host, 'guest', plan);
    const notices: string[] = [];
    const open = (): Promise<PointSession> =>
      PointSession.open(host, 'guest', store, (text) => notices.push(text));
    const take = (on: PointSession): Promise<TakenPoint> =>
      on.take({ mode: 'light', reason: 'protect', deltas: true });
    let session = await open();
    const taken: TakenPoint[] = [];
    for (let i = 0; i < (due ? FULL_MAP_EVERY : 3); i++) taken.push(await take(session));
    if (!due) {
      await session.end();
      session = await open();
    }
    await host.pause(domid);
    const [before, last] = taken.slice(-2).map(({ path }) => path) as [string, string];
    copyFileSync(before, `${last}.new`);
    renameSync(`${last}.new`, last);
    const { path, record } = await take(session);
    await session.end();
    assert.equal((await digestImage(path)).digest, (await digestDomain(host, 'guest')).digest);
    assert.equal(record.image.sequence, 0, 'it needs none of them');
    assert.match(notices.join('\n'), /a new chain is begun: .* is not what its point says/u);
  });
