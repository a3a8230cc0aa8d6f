/** A protected guest whose points are good up to one of them, by what a COMMAND of the tests says. */
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { bisect, type BisectOptions, type BisectResult } from '../../src/bisect/bisect.js';
import { PointSession } from '../../src/protect/point_session.js';
import type { DomainPoints } from '../../src/store/domain_points.js';
import type { DomainInfo } from '../../src/domain/state.js';
import { bootGuest, type GuestPlan } from './guests.js';
import { pointStage, type PointStage } from './point_stage.js';

export interface BisectStage extends PointStage {
  readonly domid: number;
  readonly points: DomainPoints;
}

export const lastingPlan: GuestPlan = {
  ...{ program: 'churner', vcpus: 2, seed: 51, steps: 1_000_000, rate: 1500, memoryMib: 8 },
};

/** The guest is called `guest`. */
export async function bisectStage(t: TestContext, plan: GuestPlan = lastingPlan): Promise<BisectStage> {
  const stage = await pointStage(t);
  const domid = await bootGuest(stage.host, 'guest', plan);
  return { ...stage, domid, points: stage.store.points((await stage.host.info(domid)).uuid) };
}

/** Takes so many points; their ids. */
export async function takePoints(
  { host, store }: PointStage,
  count: number,
  everyMs = 10,
): Promise<string[]> {
  const session = await PointSession.open(host, 'guest', store);
  const ids: string[] = [];
  try {
    while (ids.length < count) {
      await sleep(everyMs);
      ids.push((await session.take({ mode: 'light', reason: 'protect' })).record.id);
    }
  } finally {
    await session.end();
  }
  return ids;
}

/** A COMMAND that does something else than succeed at these points. */
export function doingAt(...at: readonly (readonly [ids: readonly string[], line: string])[]): string[] {
  const cases = at.filter(([ids]) => ids.length > 0).map(([ids, line]) => `${ids.join('|')}) ${line};;`);
  return ['sh', '-c', `case "$DORMOUSE_POINT" in ${cases.join(' ')} esac`];
}

/** Between the first and the last of the points. */
export function runBisect(
  { host, dir }: PointStage,
  ids: readonly string[],
  command: readonly string[],
  options: Partial<BisectOptions> = {},
): Promise<BisectResult> {
  const [good = '', bad = ''] = [ids[0], ids.at(-1)];
  const usual = { trustEnds: false, safety: true, leave: 'before', paused: false } as const;
  return bisect(host, 'guest', dir, { good, bad, command, ...usual, ...options });
}

export const runState = ({ paused, building, shutdown, rewinding }: DomainInfo): unknown => ({
  ...{ paused, building, shutdown, rewinding: rewinding === true },
});
