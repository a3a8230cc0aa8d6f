import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentClient, type ExecOptions, type ExecResult } from './client.js';
import { LabError } from './errors.js';
import { fileLimitMs } from './extent.js';
import { needBootFiles } from './image/build.js';
import { needProjectDisk } from './image/project.js';
import { Machine, removeLeftovers, temporaryDir, type MachineOptions } from './machine.js';

export interface LabOptions {
  /** Memory of each host, dom0's part included. Default 3072. */
  memoryMib?: number;
  /** Default 1024. */
  dom0Mib?: number;
  /** Default 1. */
  dom0Vcpus?: number;
  /** Physical CPUs of each host. Each vCPU, dom0's too, takes one for itself; one that finds none never runs. Default 4. */
  cpus?: number;
  /** Size of the disk on /images, sparse. Default 6. */
  scratchGib?: number;
  /** How many more hosts are on the wire: 0 or 1. Default 0. */
  peers?: 0 | 1;
  /** How long a host may take to come up. Default 180,000. */
  bootMs?: number;
  /** A host is stopped after this time, whatever it does. Default: that of a file. */
  lifeMs?: number;
}

/** A Xen host that is up. All of it is thrown away when it stops. */
export class Lab {
  private constructor(
    readonly name: string,
    /** Its address on the wire, where its guests and the other host reach it. */
    readonly ip: string,
    private readonly machine: Machine,
    private readonly client: AgentClient,
    /** The other host, if one was asked for. */
    readonly peers: Lab[],
  ) {}

  /** Waits until a machine's dom0 answers. Throws LabError, with the end of the console. */
  static async attach(machine: Machine, options: MachineOptions, bootMs: number, peers: Lab[]): Promise<Lab> {
    const client = await AgentClient.connect(machine.port, bootMs, () => machine.gone()).catch(
      async (error: unknown) => {
        const log = await machine.stop();
        throw new LabError(`${(error as Error).message}\nconsole log: ${log}`);
      },
    );
    machine.unlinkDisk();
    return new Lab(options.name, options.ip, machine, client, peers);
  }

  /** Path of the Unix socket of the serial console, on which dom0 has a shell. */
  get consoleSocket(): string {
    return this.machine.consoleSocket;
  }

  /** Runs a shell script as root in dom0; any exit code is a result. Throws LabError on timeout or a lost host. */
  async exec(script: string, options: ExecOptions = {}): Promise<ExecResult> {
    try {
      return await this.client.exec(script, options);
    } catch (error) {
      throw new LabError(this.machine.gone() ?? `${this.name}: ${(error as Error).message}`);
    }
  }

  /** As exec, but an exit code other than 0 is a LabError. Returns standard output. */
  async must(script: string, options: ExecOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.exec(script, options);
    if (code !== 0) throw new LabError(`${this.name}: exit code ${code}: ${script}\n${stdout}${stderr}`);
    return stdout;
  }

  /** Copies a file of this machine into dom0, with its mode. Throws LabError. */
  put(localPath: string, remotePath: string): Promise<void> {
    return this.client.put(localPath, remotePath);
  }

  /** Copies a file out of dom0. Throws LabError. */
  get(remotePath: string, localPath: string): Promise<void> {
    return this.client.get(remotePath, localPath);
  }

  /** What a file in dom0 holds from byte `from` on; cheaper than exec of cat. Throws LabError. */
  read(remotePath: string, from = 0): Promise<Buffer> {
    return this.client.read(remotePath, from);
  }

  /** Stops this host and its peers, and waits until they are gone. Returns where the console logs are kept. */
  async stop(): Promise<string[]> {
    this.client.close();
    const logs = await Promise.all([this.machine.stop(), ...this.peers.map((peer) => peer.stop())]);
    return logs.flat();
  }
}

function machineOptions(options: LabOptions, index: number): MachineOptions {
  return {
    name: `lab${index + 1}`,
    ip: `10.9.0.${index + 1}`,
    memoryMib: options.memoryMib ?? 3072,
    dom0Mib: options.dom0Mib ?? 1024,
    dom0Vcpus: options.dom0Vcpus ?? 1,
    cpus: options.cpus ?? 4,
    scratchGib: options.scratchGib ?? 6,
    lifeMs: options.lifeMs ?? fileLimitMs,
  };
}

async function waitForWire(path: string, first: Machine): Promise<void> {
  for (let tries = 0; !existsSync(path); ++tries) {
    if (first.gone() !== undefined || tries > 100) throw new LabError(first.gone() ?? 'no wire after 10 s');
    await sleep(100);
  }
}

async function startMachines(options: LabOptions, wireDir: string): Promise<[Machine, MachineOptions][]> {
  const files = needBootFiles();
  const disk = needProjectDisk();
  const path = join(wireDir, 'wire');
  const started: [Machine, MachineOptions][] = [];
  const count = 1 + (options.peers ?? 0);
  try {
    for (let index = 0; index < count; ++index) {
      const plain = machineOptions(options, index);
      const wired = count === 1 ? plain : { ...plain, wire: { path, server: index === 0 } };
      const before = started[0]?.[0];
      if (before !== undefined) await waitForWire(path, before);
      started.push([await Machine.start(wired, files, disk), wired]);
    }
    return started;
  } catch (error) {
    await Promise.all(started.map(([machine]) => machine.stop()));
    throw error;
  }
}

/**
 * Boots a Xen host, or two on one wire, and waits until dom0 answers. The first call on a machine downloads and builds what
 * it boots. The host ends with this process, should it not be stopped before. Throws LabError.
 */
export async function startLab(options: LabOptions = {}): Promise<Lab> {
  removeLeftovers();
  const wireDir = temporaryDir();
  const machines = await startMachines(options, wireDir);
  const bootMs = options.bootMs ?? 180_000;
  const labs: Lab[] = [];
  try {
    for (const [machine, made] of machines.reverse())
      labs.unshift(await Lab.attach(machine, made, bootMs, [...labs]));
  } catch (error) {
    await Promise.all(machines.map(([machine]) => machine.stop()));
    throw error;
  } finally {
    rmSync(wireDir, { recursive: true, force: true });
  }
  const [first] = labs;
  if (first === undefined) throw new LabError('no host was started');
  return first;
}
