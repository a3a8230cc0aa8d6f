/**
 * One guest, and what xl and dormouse each take for the same work on it, one after the other: time in dom0, size of the file,
 * and how long the guest stood still by its own clock.
 */
import { LabError } from './errors.js';
import { Guest, type GuestOptions } from './guests.js';
import type { Lab } from './lab.js';

/** What a command took. `untilOnDiskS` includes a sync after it; xl leaves its file in the page cache, dormouse does not. */
export interface Took {
  readonly seconds: number;
  readonly untilOnDiskS: number;
}

export interface Saved extends Took {
  readonly fileBytes: number;
  /** Longest time between two looks of the guest at its clock around the command; its floor is `floorMs`. */
  readonly standstillMs: number;
}

export interface SideBySide {
  readonly type: 'pv' | 'pvh';
  readonly memoryMib: number;
  /** The longest gap of the guest when nothing was done to it: what its clock cannot tell from a standstill. */
  readonly floorMs: number;
  readonly saveC: { readonly xl: Saved; readonly ours: Saved };
  /** No peer: xl has none. `pauseMs` is what dormouse itself measured. */
  readonly light: Saved & { readonly pauseMs: number };
  readonly cooperative: Saved & { readonly pauseMs: number };
  readonly save: { readonly xl: Saved; readonly ours: Saved };
  readonly restore: { readonly xl: Took; readonly ours: Took };
  /** Processor time of `dormouse version`: what starting it costs here. */
  readonly startUpS: number;
}

const commandMs = 900_000;
const quietTicks = 3;

/** dom0's own clock, so that the way to the lab does not count. */
const timed = (command: string): string =>
  [
    'sync',
    'at() { cut -d" " -f1 /proc/uptime; }',
    `t0=$(at); { ${command}; } >/tmp/side.out 2>/tmp/side.err || { cat /tmp/side.err >&2; exit 1; }`,
    't1=$(at); sync; t2=$(at)',
    'echo "TOOK $t0 $t1 $t2"; cat /tmp/side.out',
  ].join('\n');

async function run(lab: Lab, command: string): Promise<Took & { out: string }> {
  const text = await lab.must(timed(command), { timeoutMs: commandMs });
  const [, t0, t1, t2] = /^TOOK (\S+) (\S+) (\S+)$/m.exec(text) ?? [];
  const [begun, done, synced] = [Number(t0), Number(t1), Number(t2)];
  if (![begun, done, synced].every(Number.isFinite)) throw new LabError(`no times in: ${text}`);
  return { seconds: done - begun, untilOnDiskS: synced - begun, out: text.slice(text.indexOf('\n') + 1) };
}

const longestGapMs = (ticks: readonly { gapBootUs: number }[]): number =>
  Math.max(...ticks.map(({ gapBootUs }) => gapBootUs / 1000));

/** Runs a command that leaves the guest running, and reads in its ticks how long it stood still. */
async function around(
  lab: Lab,
  guest: Guest,
  command: string,
  file: string,
): Promise<Saved & { out: string }> {
  await lab.must(`rm -f ${file}`);
  const before = (await guest.ticks()).length;
  const took = await run(lab, command);
  await guest.waitTicks(quietTicks);
  const ticks = (await guest.ticks()).slice(before);
  const fileBytes = Number(await lab.must(`stat -c %s ${file}; rm -f ${file}`));
  return { ...took, fileBytes, standstillMs: longestGapMs(ticks) };
}

interface There {
  readonly saved: Saved;
  readonly restored: Took;
}

/** Saves the guest for good and restores it, each with its own tool. */
async function thereAndBack(
  lab: Lab,
  guest: Guest,
  saveCommand: string,
  restoreCommand: string,
  file: string,
): Promise<There> {
  await lab.must(`rm -f ${file}`);
  const before = (await guest.ticks()).length;
  const saved = await run(lab, saveCommand);
  const fileBytes = Number(await lab.must(`stat -c %s ${file}`));
  // Neither reads a file that the page cache still holds.
  await lab.must('echo 3 > /proc/sys/vm/drop_caches');
  const restored = await run(lab, restoreCommand);
  await guest.waitTicks(quietTicks);
  const standstillMs = longestGapMs((await guest.ticks()).slice(before));
  await lab.must(`rm -f ${file}`);
  return { saved: { ...saved, fileBytes, standstillMs }, restored };
}

const pauseOf = (out: string): number => {
  const { checkpoints } = JSON.parse(out) as { checkpoints?: { pauseMs: number }[] };
  const [one] = checkpoints ?? [];
  if (one === undefined) throw new LabError(`no checkpoint in: ${out}`);
  return one.pauseMs;
};

/** A checkpoint tells its own pause in the document it prints. */
async function checkpointed(
  lab: Lab,
  guest: Guest,
  mode: string,
  file: string,
): Promise<Saved & { pauseMs: number }> {
  const command = `dormouse --json checkpoint --mode ${mode} ${guest.name} ${file}`;
  const { out, ...saved } = await around(lab, guest, command, file);
  return { ...saved, pauseMs: pauseOf(out) };
}

const plain = ({ seconds, untilOnDiskS }: Took): Took => ({ seconds, untilOnDiskS });
const plainSaved = (saved: Saved): Saved => ({
  ...plain(saved),
  fileBytes: saved.fileBytes,
  standstillMs: saved.standstillMs,
});

/** Makes the guest, measures, destroys it. Throws LabError; the guest's self-check is part of every step. */
export async function measureSideBySide(lab: Lab, options: GuestOptions): Promise<SideBySide> {
  const guest = await Guest.create(lab, options);
  const { name } = guest;
  const [xlFile, ourFile] = ['/images/side.xl', '/images/side.dmi'];
  const floorMs = longestGapMs(await guest.waitTicks(quietTicks));
  const startUpS = (await run(lab, 'dormouse version')).seconds;
  const xlC = await around(lab, guest, `xl save -c ${name} ${xlFile}`, xlFile);
  const oursC = await around(lab, guest, `dormouse save -c ${name} ${ourFile}`, ourFile);
  const light = await checkpointed(lab, guest, 'light', ourFile);
  const cooperative = await checkpointed(lab, guest, 'cooperative', ourFile);
  const xl = await thereAndBack(lab, guest, `xl save ${name} ${xlFile}`, `xl restore ${xlFile}`, xlFile);
  const ours = await thereAndBack(
    ...([lab, guest] as const),
    `dormouse save ${name} ${ourFile}`,
    `dormouse restore ${ourFile}`,
    ourFile,
  );
  await guest.destroy();
  return {
    ...{ type: options.type, memoryMib: options.memoryMib ?? 128, floorMs, startUpS },
    saveC: { xl: plainSaved(xlC), ours: plainSaved(oursC) },
    ...{ light, cooperative },
    save: { xl: plainSaved(xl.saved), ours: plainSaved(ours.saved) },
    restore: { xl: plain(xl.restored), ours: plain(ours.restored) },
  };
}
