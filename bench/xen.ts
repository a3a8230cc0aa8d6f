/**
 * Real Xen in the lab: what xl and dormouse take for the same guest in the same run. Everything is emulated, so only the
 * ratios mean anything.
 */
import { startLab } from '../test/xen-lab/lab.js';
import { measureSideBySide, type Saved, type SideBySide } from '../test/xen-lab/side_by_side.js';
import { figure } from './figure.js';

/** Standstill of xl's checkpoint that a light one may take, by what finds the changed pages. */
const pauseBar = { pvh: { share: 1 / 50, says: '<= 1/50' }, pv: { share: 1 / 8, says: '<= 1/8' } } as const;
const [timeBar, sizeBar] = [0.6, 0.4];

function times(id: string, verb: string, ours: number, xl: number, note: string, bar?: number): void {
  figure({
    name: `${verb}_time_${id}`,
    value: ours,
    unit: 's',
    limitName: `xl ${verb}`,
    limit: xl,
    ratio: ours / xl,
    ...(bar !== undefined && { bar: `<= ${bar} of xl's`, met: ours <= bar * xl }),
    note,
  });
}

function sizes(id: string, ours: Saved, xl: Saved): void {
  figure({
    name: `save_size_${id}`,
    value: ours.fileBytes / 2 ** 20,
    unit: 'MiB',
    limitName: 'file of xl save',
    limit: xl.fileBytes / 2 ** 20,
    ratio: ours.fileBytes / xl.fileBytes,
    bar: `<= ${sizeBar} of xl's`,
    met: ours.fileBytes <= sizeBar * xl.fileBytes,
  });
}

function standstill(
  id: string,
  what: string,
  ms: number,
  xlMs: number,
  note: string,
  bar?: { share: number; says: string },
): void {
  figure({
    name: `${what}_${id}`,
    value: ms,
    unit: 'ms',
    limitName: 'standstill of xl save -c',
    limit: xlMs,
    ratio: ms / xlMs,
    ...(bar && { bar: bar.says, met: ms <= bar.share * xlMs }),
    note,
  });
}

function report(seen: SideBySide): void {
  const { type, memoryMib, save, saveC, restore, light, cooperative, startUpS, floorMs } = seen;
  const id = `${type}_${memoryMib}mib`;
  const start = `of it ${startUpS.toFixed(1)} s are the start of Node.js`;
  times(
    id,
    'save',
    save.ours.untilOnDiskS,
    save.xl.untilOnDiskS,
    `until on disk; ${start}; xl's command alone ${save.xl.seconds.toFixed(1)} s`,
    timeBar,
  );
  sizes(id, save.ours, save.xl);
  times(id, 'save -c', saveC.ours.untilOnDiskS, saveC.xl.untilOnDiskS, `until on disk; ${start}`);
  times(
    id,
    'restore',
    restore.ours.seconds,
    restore.xl.seconds,
    `page cache dropped before; ${start}; each chunk is checked as it is placed`,
  );
  const inside = `by the guest's clock, whose own gaps reach ${floorMs.toFixed(1)} ms`;
  const xlMs = saveC.xl.standstillMs;
  standstill(
    id,
    'light_pause',
    light.pauseMs,
    xlMs,
    `by the host's clock; ${light.standstillMs.toFixed(1)} ms ${inside}`,
    pauseBar[type],
  );
  standstill(id, 'cooperative_standstill', cooperative.standstillMs, xlMs, inside);
  standstill(id, 'save_c_standstill', saveC.ours.standstillMs, xlMs, inside);
}

/** One host for each size; an eighth of each guest's memory is rewritten all the time with what no codec shrinks, at 4 MiB a second. */
export async function benchXen(sizesMib: readonly number[]): Promise<void> {
  const largest = Math.max(...sizesMib);
  const lab = await startLab({ memoryMib: 1536 + largest + 512, dom0Mib: 1024, dom0Vcpus: 2 });
  try {
    for (const memoryMib of sizesMib)
      for (const type of ['pvh', 'pv'] as const)
        report(
          await measureSideBySide(lab, {
            name: `side-${type}`,
            type,
            memoryMib,
            loadMib: memoryMib / 8,
            clockUs: 1000,
          }),
        );
  } finally {
    await lab.stop();
  }
}
