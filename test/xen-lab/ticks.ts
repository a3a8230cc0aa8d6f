import { LabError } from './errors.js';

const fields = {
  mono_us: 'monoUs',
  boot_us: 'bootUs',
  gap_mono_us: 'gapMonoUs',
  gap_boot_us: 'gapBootUs',
  gap_tsc_us: 'gapTscUs',
  gap_at_us: 'gapAtUs',
  mem_kib: 'memKib',
  cpus: 'cpus',
  written: 'pagesWritten',
  rounds: 'rounds',
  bad: 'bad',
  disk: 'disk',
  disk_ops: 'diskOps',
  disk_bad: 'diskBad',
  disk_err: 'diskErrors',
  disk_slow_us: 'diskSlowUs',
  net: 'net',
  net_sent: 'netSent',
  net_recv: 'netReceived',
  net_lost: 'netLost',
  net_bad: 'netBad',
  naps: 'naps',
  broken: 'broken',
} as const;

type Field = (typeof fields)[keyof typeof fields];

/**
 * What the load says each second. Gaps are the longest time between two looks at a clock since the last tick: how long the
 * guest stood still, by that clock. Counters count from the guest's start; `naps` is how often the processor that did so the least
 * has slept 0.3 s and woken again; `broken` is the tick with which it broke on purpose, 0 before.
 */
export type Tick = Record<Field, number> & { count: number; sum: string };

function parseTick(line: string): Tick {
  const [, count, rest] = /^tick (\d+) (.*)$/.exec(line) ?? [];
  const values = new Map((rest ?? '').split(' ').map((word) => word.split('=', 2) as [string, string]));
  const numbers = Object.entries(fields).map(([key, name]) => [name, Number(values.get(key))] as const);
  if (numbers.some(([, value]) => Number.isNaN(value))) throw new LabError(`not a tick: ${line}`);
  return {
    ...(Object.fromEntries(numbers) as Record<Field, number>),
    count: Number(count),
    sum: values.get('sum') ?? '',
  };
}

/** The ticks in a console's text; a last line still being written is left out. */
export function parseTicks(text: string): Tick[] {
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => line.trim())
    .filter((line) => line.startsWith('tick '))
    .map(parseTick);
}

/** Throws LabError where there is none. */
export function lastTick(ticks: readonly Tick[]): Tick {
  const tick = ticks.at(-1);
  if (tick === undefined) throw new LabError('no tick');
  return tick;
}
