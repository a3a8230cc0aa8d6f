/** The pause of a light checkpoint where nothing is copied on write: it follows what changed, or what must be hashed. */
import { rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { checkpoint } from '../src/checkpoint/checkpoint.js';
import type { EmbeddedHost } from '../src/host/embedded/host.js';
import { plainHost, type TrackerKind } from '../test/support/plain_host.js';
import { figure, median } from './figure.js';
import type { Limits } from './limits.js';

const slackMs = 0.3;
const factor = 1.25;

interface Pause {
  readonly pauseMs: number;
  readonly copiedPages: number;
}

async function pausesOf(
  host: EmbeddedHost,
  tracker: TrackerKind,
  dir: string,
  count: number,
): Promise<Pause[]> {
  const plain = plainHost(host, { tracker });
  const image = join(dir, 'live.dormouse');
  const pauses: Pause[] = [];
  for (let i = 0; i < count; i++) {
    pauses.push(await checkpoint(plain, 'writer', image, { mode: 'light' }));
    rmSync(image);
  }
  return pauses;
}

/** Pauses of whole checkpoints of the domain `writer`, by both trackers. */
export async function benchLivePauses(
  host: EmbeddedHost,
  { dir, gib, count, limits }: { dir: string; gib: number; count: number; limits: Limits },
): Promise<void> {
  const hashMs = (gib * 2 ** 30) / limits.hashGbps / 1e6 / availableParallelism();
  for (const tracker of ['log-dirty', 'content'] as const) {
    const pauses = await pausesOf(host, tracker, dir, count);
    const value = median(pauses.map(({ pauseMs }) => pauseMs));
    const pages = median(pauses.map(({ copiedPages }) => copiedPages));
    const copyMs = (pages * limits.scatteredCopyUs) / 1000;
    const limit = copyMs + slackMs + (tracker === 'content' ? hashMs : 0);
    const bar = factor * copyMs + slackMs;
    figure({
      name: `live_pause_p50_${gib}gib_${tracker}`,
      value,
      unit: 'ms',
      limitName: `copy of the dirty pages + ${slackMs} ms${tracker === 'content' ? ' + hash of all memory' : ''}`,
      limit,
      ratio: value / limit,
      ...(tracker === 'log-dirty' && { bar: `<= ${bar.toFixed(2)} ms`, met: value <= bar }),
      note: `${count} checkpoints, ${pages} pages copied in the pause`,
    });
  }
}
