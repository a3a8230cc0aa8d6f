import { setTimeout as sleep } from 'node:timers/promises';
import { LabError } from './errors.js';
import type { Lab } from './lab.js';
import { parseTicks, type Tick } from './ticks.js';

export interface GuestOptions {
  name: string;
  type: 'pv' | 'pvh';
  /** Default 128. */
  memoryMib?: number;
  /** Up to where it may balloon; default: memoryMib. */
  maxMemoryMib?: number;
  /** Default 1. */
  vcpus?: number;
  /** Memory the load keeps rewriting; default 32. */
  loadMib?: number;
  /** How much of it per second; default 4. */
  dirtyMibPerS?: number;
  /** Sleep between two looks at the clocks, in microseconds; default 20,000. A thousand looks a second take half a processor. */
  clockUs?: number;
  /** Size of a disk, a file on the host's /images, which the load uses too; default: no disk. */
  diskMib?: number;
  /** Where that file is, or in its place the block device of that size; default /images/NAME.disk. */
  diskPath?: string;
  /** It also reads the disk over and over. */
  reads?: boolean;
  /** Last part of its address on the wire, 10.9.0.N (100 to 250): gives it a network card and the load datagrams to exchange. */
  address?: number;
  /** Which host answers its datagrams; default: the one it is created on. */
  echo?: Lab;
  /** Default preserve. */
  onCrash?: 'preserve' | 'destroy' | 'restart';
  /** Default restart. */
  onReboot?: 'restart' | 'destroy' | 'preserve';
  /** Default destroy. */
  onPoweroff?: 'destroy' | 'preserve';
  /** A reference by which dom0 grants it a page: it maps that page for good. */
  grantRef?: number;
  /** The kernel panics after so many ticks. */
  crashAfterS?: number;
  /** Something in it is broken from the tick of that number on; each tick says so. */
  breakAfterS?: number;
  /** It takes no request for suspension, nor anything else that is written to control/shutdown. */
  deaf?: boolean;
}

const diskPath = ({ name, diskPath: path = `/images/${name}.disk` }: GuestOptions): string => path;

/** Where xenconsoled keeps what a domain prints: under the name that it had when it was created. */
const logOf = (name: string): string => `/var/log/xen/console/guest-${name}.log`;
const incoming = (name: string): string => `${name}--incoming`;

function extra(options: GuestOptions, lab: Lab): string {
  const words = ['console=hvc0', 'quiet'];
  words.push(`lab.mem=${options.loadMib ?? 32}`, `lab.rate=${options.dirtyMibPerS ?? 4}`);
  if (options.clockUs !== undefined) words.push(`lab.clock_us=${options.clockUs}`);
  if (options.diskMib !== undefined) words.push('lab.disk=1');
  if (options.reads === true) words.push('lab.reads=1');
  if (options.address !== undefined)
    words.push(`lab.ip=10.9.0.${options.address}`, `lab.echo=${(options.echo ?? lab).ip}`);
  if (options.grantRef !== undefined) words.push(`lab.grant=${options.grantRef}`);
  if (options.crashAfterS !== undefined) words.push(`lab.crash_s=${options.crashAfterS}`);
  if (options.breakAfterS !== undefined) words.push(`lab.break_s=${options.breakAfterS}`);
  return words.join(' ');
}

/** The configuration file of a guest, as xl takes it. */
export function guestConfig(options: GuestOptions, lab: Lab): string {
  const { name, type, memoryMib = 128, vcpus = 1, address } = options;
  const lines = [
    `name = "${name}"`,
    `type = "${type}"`,
    'kernel = "/domu/vmlinux"',
    'ramdisk = "/domu/initrd"',
    `memory = ${memoryMib}`,
    `maxmem = ${options.maxMemoryMib ?? memoryMib}`,
    `vcpus = ${vcpus}`,
    `extra = "${extra(options, lab)}"`,
    `on_crash = "${options.onCrash ?? 'preserve'}"`,
    `on_reboot = "${options.onReboot ?? 'restart'}"`,
    `on_poweroff = "${options.onPoweroff ?? 'destroy'}"`,
  ];
  if (options.diskMib !== undefined) lines.push(`disk = ["${diskPath(options)},raw,xvda,w"]`);
  if (address !== undefined)
    lines.push(`vif = ["bridge=xenbr0,mac=00:16:3e:00:00:${address.toString(16).padStart(2, '0')}"]`);
  return lines.join('\n') + '\n';
}

/** A guest of the lab, found by its name on whichever host it is. */
export class Guest {
  private text = '';
  private readBytes = 0;
  private log: string;

  private constructor(
    readonly name: string,
    private lab: Lab,
  ) {
    this.log = logOf(name);
  }

  /** Writes its configuration to /domu/NAME.cfg, makes its disk and starts it. Throws LabError. */
  static async create(lab: Lab, options: GuestOptions): Promise<Guest> {
    const { name } = options;
    await lab.must(`cat > /domu/${name}.cfg <<'EOF'\n${guestConfig(options, lab)}EOF`);
    const path = diskPath(options);
    if (options.diskMib !== undefined)
      await lab.must(`[ -b ${path} ] || { rm -f ${path}; truncate -s ${options.diskMib}M ${path}; }`);
    await lab.must(`rm -f ${logOf(name)} ${logOf(incoming(name))}; xl create -q /domu/${name}.cfg`, {
      timeoutMs: 120_000,
    });
    const guest = new Guest(name, lab);
    await guest.waitTicks(2, 300_000);
    if (options.deaf === true) await guest.deafen();
    return guest;
  }

  /** It was migrated by xl, to that host. What it prints is logged under the name it had while it arrived. */
  migrated(lab: Lab): Promise<void> {
    return this.movedTo(lab, logOf(incoming(this.name)));
  }

  /** It was saved, and restored on that host. */
  restoredOn(lab: Lab): Promise<void> {
    return this.movedTo(lab, logOf(this.name));
  }

  /** Its domain id. Throws LabError if it is not on its host. */
  async domid(): Promise<number> {
    return Number(await this.lab.must(`xl domid ${this.name}`));
  }

  /** Its state as `xl list` shows it, such as `-b----`; undefined if it is not on its host. */
  async state(): Promise<string | undefined> {
    const { code, stdout } = await this.lab.exec(`xl list ${this.name} | tail -n 1 | awk '{ print $5 }'`);
    return code === 0 && stdout.trim() !== '' ? stdout.trim() : undefined;
  }

  /** Everything it printed since it was created, over saves, restores and migrations. */
  async console(): Promise<string> {
    const fresh = await this.lab.read(this.log, this.readBytes).catch((error: unknown) => {
      if ((error as Error).message.includes('ENOENT')) return Buffer.alloc(0);
      throw error;
    });
    this.readBytes += fresh.length;
    this.text += fresh.toString('latin1');
    return this.text;
  }

  /** Runs a command that takes points of it. LabError: with the end of what it and the hypervisor printed. */
  async mustProtect(command: string): Promise<void> {
    try {
      await this.lab.must(command, { timeoutMs: 3_600_000 });
    } catch (thrown) {
      const console = (await this.console()).split('\n').slice(-25).join('\n');
      const hypervisor = (await this.lab.exec('xl dmesg | tail -n 60; xl list')).stdout;
      throw new LabError(`${(thrown as Error).message}\n${console}\n${hypervisor}`);
    }
  }

  /** All its ticks so far. Throws LabError if it printed a line that starts with BAD. */
  async ticks(): Promise<Tick[]> {
    const text = await this.console();
    const bad = text.split('\n').filter((line) => line.startsWith('BAD'));
    if (bad.length > 0) throw new LabError(`guest ${this.name}: ${bad.slice(0, 5).join('; ')}`);
    return parseTicks(text);
  }

  /** Waits for `count` more ticks; returns them. Throws LabError on BAD, or when they do not come in time. */
  async waitTicks(count: number, timeoutMs = 120_000 + count * 10_000): Promise<Tick[]> {
    const before = (await this.ticks()).length;
    const end = Date.now() + timeoutMs;
    while (Date.now() < end) {
      const fresh = (await this.ticks()).slice(before);
      if (fresh.length >= count) return fresh;
      await sleep(500);
    }
    const tail = (await this.console()).slice(-1000);
    throw new LabError(
      `guest ${this.name} did not tick ${count} times in ${timeoutMs} ms; its console:\n${tail}`,
    );
  }

  /** Waits until its state as `xl list` shows it matches; undefined is a guest that is gone. Throws LabError. */
  async waitState(wanted: (state: string | undefined) => boolean, timeoutMs = 120_000): Promise<void> {
    const end = Date.now() + timeoutMs;
    let seen: string | undefined;
    while (Date.now() < end) {
      seen = await this.state();
      if (wanted(seen)) return;
      await sleep(500);
    }
    throw new LabError(`guest ${this.name} is in state ${String(seen)} after ${timeoutMs} ms`);
  }

  /** Waits until it has counted further than ever, so that it is seen if it goes back to any earlier moment. Throws LabError. */
  async countOn(): Promise<void> {
    const most = Math.max(...(await this.ticks()).map(({ count }) => count));
    await this.waitCount(most + 3);
  }

  /** Throws LabError where that takes longer than ticks should. */
  async waitCount(count: number): Promise<void> {
    const from = (await this.ticks()).at(-1)?.count ?? 0;
    if (from >= count) return;
    for (let i = from; i < count + 60; i++)
      if (((await this.waitTicks(1)).at(-1)?.count ?? 0) >= count) return;
    throw new LabError(`guest ${this.name} does not count to ${count}`);
  }

  /** Makes its kernel panic. */
  async crash(): Promise<void> {
    await this.lab.must(`xl sysrq ${this.name} c`);
  }

  /** Ends it, in whatever state it is. */
  async destroy(): Promise<void> {
    await this.lab.exec(`xl destroy ${this.name}`);
    await this.waitState((state) => state === undefined);
  }

  private async movedTo(lab: Lab, log: string): Promise<void> {
    await this.console();
    this.lab = lab;
    this.log = log;
    this.readBytes = 0;
  }

  /** Takes the guest's right to read control/shutdown: xenstored then tells it nothing of what is written there. */
  private async deafen(): Promise<void> {
    await this.lab.must(`xenstore-chmod /local/domain/${await this.domid()}/control/shutdown n0`);
  }
}

/** Ends all guests of the host, whatever a test that failed left. */
export async function destroyGuests(lab: Lab): Promise<void> {
  await lab.exec("for id in $(xl list | awk 'NR > 2 { print $2 }'); do xl destroy $id; done 2>/dev/null", {
    timeoutMs: 600_000,
  });
}
