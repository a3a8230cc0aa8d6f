/**
 * Saves and migrations by the helpers of other toolstacks, which know nothing of our leases. Both sides would take pages from
 * the one dirty log of a domain, and each would miss what the other took. native/host/xen/other_saver.cc has the same rules.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { DormouseError } from '../../errors.js';

const number = (text: string | undefined): number | null =>
  text !== undefined && /^\d{1,5}$/.test(text) ? Number(text) : null;

/**
 * Of a command line of /proc, the domain its process saves; null for any other. libxl's helper is known by its arguments,
 * `--save-domain STREAM_FD BACK_FD DOMID`, whatever LIBXL_SAVE_HELPER calls it (ours is a script, and takes leases); xenopsd's
 * by name.
 */
export function savedDomain(commandLine: string): number | null {
  const words = commandLine.split('\0');
  const [program = '', verb, , , domid] = words;
  if (verb === '--save-domain') return number(domid);
  if (!['emu-manager', 'xenguest'].includes(basename(program))) return null;
  const option = (name: string): string | undefined =>
    words[words.findIndex((word) => word === `-${name}` || word === `--${name}`) + 1];
  return option('mode')?.includes('save') === true ? number(option('domid')) : null;
}

function saves(pid: string, domid: number): boolean {
  try {
    if (savedDomain(readFileSync(`/proc/${pid}/cmdline`, 'utf8')) !== domid) return false;
    return statSync(`/proc/${pid}`).uid === process.geteuid?.();
  } catch {
    return false; // it has just ended
  }
}

/** LOCKED while another toolstack saves or migrates the domain. */
export function refuseOtherSaver(domid: number): void {
  const pid = readdirSync('/proc').find((name) => /^\d+$/.test(name) && saves(name, domid));
  if (pid === undefined) return;
  throw new DormouseError(
    'LOCKED',
    `domain ${domid} is being saved or migrated by another tool: process ${pid}`,
    {
      place: { domid },
    },
  );
}
