/**
 * Saves and migrations of libxl's own save helper, which knows nothing of our leases. Both sides would take pages from the
 * one dirty log of a domain, and each would miss what the other took.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { DormouseError } from '../../errors.js';

/** Of `libxl-save-helper --save-domain STREAM_FD BACK_FD DOMID ...`; null for any other command line of /proc. */
export function savedDomain(commandLine: string): number | null {
  const [program = '', verb, , , domid] = commandLine.split('\0');
  if (basename(program) !== 'libxl-save-helper' || verb !== '--save-domain') return null;
  return domid !== undefined && /^\d+$/.test(domid) ? Number(domid) : null;
}

function saves(pid: string, domid: number): boolean {
  try {
    if (savedDomain(readFileSync(`/proc/${pid}/cmdline`, 'utf8')) !== domid) return false;
    return statSync(`/proc/${pid}`).uid === process.geteuid?.();
  } catch {
    return false; // it has just ended
  }
}

/** LOCKED while libxl saves or migrates the domain. */
export function refuseOtherSaver(domid: number): void {
  const pid = readdirSync('/proc').find((name) => /^\d+$/.test(name) && saves(name, domid));
  if (pid === undefined) return;
  throw new DormouseError('LOCKED', `domain ${domid} is being saved or migrated by xl: process ${pid}`, {
    place: { domid },
  });
}
