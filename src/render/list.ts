/** `list`, byte for byte as `xl list` prints it: scripts cut these columns. */
import { printable } from './units.js';
import type { DomainInfo, ShutdownReason } from '../domain/state.js';

const header = 'Name                                        ID   Mem VCPUs\tState\tTime(s)';

const reasonLetters: Record<ShutdownReason, string> = {
  poweroff: '-',
  reboot: 'r',
  suspend: 's',
  crash: 'c',
  watchdog: 'w',
  soft_reset: 'S',
};

/** The six state letters: running, blocked, paused, shut down, reason, dying. */
export function stateLetters(info: DomainInfo): string {
  const flag = (set: boolean, letter: string): string => (set ? letter : '-');
  return [
    flag(info.running, 'r'),
    flag(info.blocked, 'b'),
    flag(info.paused, 'p'),
    flag(info.shutdown !== null, 's'),
    info.shutdown === null ? '-' : reasonLetters[info.shutdown],
    flag(info.dying, 'd'),
  ].join('');
}

/** C's `%.1f`: toFixed rounds a tie away from zero, C to even. Only a fraction of exactly .25 differs. */
function oneDecimal(value: number): string {
  return value % 1 === 0.25 ? `${Math.floor(value)}.2` : value.toFixed(1);
}

/** C's `%-40s` counts bytes. */
function padBytes(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - Buffer.byteLength(text)));
}

/** printf("%-40s %5d %5lu %5d     %c%c%c%c%c%c  %8.1f\n"); xl computes the time as a C float. */
function row(info: DomainInfo): string {
  const columns = [
    padBytes(printable(info.name), 40),
    String(info.domid).padStart(5),
    String(Math.floor(info.memoryKib / 1024)).padStart(5),
    String(info.vcpus).padStart(5),
  ];
  const seconds = oneDecimal(Math.fround(info.cpuTimeNs) / 1e9).padStart(8);
  return `${columns.join(' ')}     ${stateLetters(info)}  ${seconds}`;
}

/** The whole table, each line ended. */
export function renderList(domains: readonly DomainInfo[]): string {
  return [header, ...domains.map(row)].map((line) => `${line}\n`).join('');
}
