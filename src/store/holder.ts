/**
 * Who holds a lease or a tombstone: a process, told apart from every other of this machine and known to be dead only if it can be
 * proven. `machine-boot-pidNamespace-pid-start`, none of which holds a `-`.
 */
import { createHash } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

/** Null if there is no such file; '' if it cannot be read, of which nothing follows. */
function textIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (thrown) {
    return ['ENOENT', 'ESRCH'].includes((thrown as NodeJS.ErrnoException).code ?? '') ? null : '';
  }
}

const textOf = (path: string): string => textIfThere(path) ?? '';

const short = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 12);

/** Clock ticks after boot at which it started (proc(5), field 22); null if there is no such process, or a zombie; '' if it cannot be told. */
function startOf(pid: number): string | null {
  const text = textIfThere(`/proc/${pid}/stat`);
  if (text === null || text === '') return text;
  const [state = '', ...fields] = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return 'ZX'.includes(state) ? null : (fields[18] ?? '');
}

function placeOf(): [machine: string, boot: string, namespace: string] {
  // Clones of a machine often keep its id, seldom its name.
  const machine = `${textOf('/etc/machine-id')} ${hostname()}`;
  const boot = textOf('/proc/sys/kernel/random/boot_id');
  let namespace = '0';
  try {
    namespace = /\d+/u.exec(readlinkSync('/proc/self/ns/pid'))?.[0] ?? '0';
  } catch {
    // Without /proc/self/ns there is one for all.
  }
  return [short(machine), short(boot), namespace];
}

let own: string | undefined;

/** This process. */
function ownName(): string {
  own ??= [...placeOf(), process.pid, startOf(process.pid) ?? '0'].join('-');
  return own;
}

const form = /^[0-9a-f]{12}-[0-9a-f]{12}-\d+-\d+-\d+$/u;

/** Whether it is another boot of this machine, or a process of this namespace that ended. */
function isDead(holder: string): boolean {
  if (!form.test(holder)) return false;
  const [machine, boot, namespace, pid = '', start] = holder.split('-');
  const [ownMachine, ownBoot, ownNamespace] = placeOf();
  if (machine !== ownMachine) return false;
  if (boot !== ownBoot) return true;
  if (namespace !== ownNamespace) return false;
  const now = startOf(Number(pid));
  return now === null || (now !== '' && now !== start);
}

/** Whoever keeps things in a store. */
export interface Holder {
  readonly name: string;
  /** Whether it is certain that the holder of that name is no more. */
  isDead(name: string): boolean;
}

export const thisProcess: Holder = {
  get name() {
    return ownName();
  },
  isDead,
};
