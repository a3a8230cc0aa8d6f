import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { setPriority, tmpdir } from 'node:os';
import { join } from 'node:path';
import { LabError } from './errors.js';
import { makeDisk, type BootFiles } from './image/build.js';
import { logDir } from './paths.js';
import { spawnBound } from './process.js';

export interface MachineOptions {
  name: string;
  memoryMib: number;
  dom0Mib: number;
  dom0Vcpus: number;
  cpus: number;
  scratchGib: number;
  ip: string;
  /** After this many milliseconds the machine is stopped, whatever it does. */
  lifeMs: number;
  /** Path of the Unix socket that is the wire to the other host, and whether this end makes it. */
  wire?: { path: string; server: boolean };
}

/**
 * SMAP and SMEP crash a PV dom0 under QEMU 7.2, RDTSCP breaks PVH guests. SVM, which PVH guests need, makes Xen load a PV
 * guest's segments by VMLOAD when it switches between vCPUs, and under QEMU that corrupts processes of dom0: so Xen's null
 * scheduler, which gives each vCPU a CPU of its own and never switches. AVX in a restored PVH guest is an invalid opcode.
 */
const cpuFlags = 'max,-smap,-smep,-la57,-pku,-rdtscp,-avx,-avx2,-fma,-f16c,-mpx';
const keptLogs = 40;

/** One host: a QEMU process, which the kernel ends should this process end in whatever way. */
export class Machine {
  readonly consoleLog: string;
  readonly consoleSocket: string;
  readonly port: number;
  private readonly child: ChildProcess;
  private readonly ended: Promise<void>;
  private readonly life: NodeJS.Timeout;
  private stopping = false;
  private end: string | undefined;

  private constructor(
    private readonly runDir: string,
    private readonly options: MachineOptions,
    files: BootFiles,
    projectDisk: string,
    port: number,
  ) {
    this.port = port;
    this.consoleLog = newLog(options.name);
    this.consoleSocket = join(runDir, 'console');
    const scratch = join(runDir, 'images');
    makeDisk(scratch, undefined, options.scratchGib * 1024);
    const disks = [
      `file=${files.rootDisk},snapshot=on`,
      `file=${projectDisk},snapshot=on`,
      `file=${scratch},cache=unsafe`,
    ];
    const args = [...machineArguments(options), ...this.ports(), ...bootArguments(options, files)];
    for (const disk of disks) args.push('-drive', `${disk},format=raw,if=virtio`);
    this.child = spawnBound('qemu-system-x86_64', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.ended = this.follow();
    this.life = setTimeout(() => this.child.kill('SIGKILL'), options.lifeMs);
    this.life.unref();
  }

  /** Starts the machine; it is not up yet. Throws LabError. */
  static async start(options: MachineOptions, files: BootFiles, projectDisk: string): Promise<Machine> {
    const runDir = temporaryDir();
    const machine = new Machine(runDir, options, files, projectDisk, await freePort());
    if (process.env.DORMOUSE_LAB_NICE !== undefined && machine.child.pid !== undefined)
      setPriority(machine.child.pid, Number(process.env.DORMOUSE_LAB_NICE));
    return machine;
  }

  /** Takes the throw-away disk's name away, once QEMU has it open: it ends with QEMU, however that ends. */
  unlinkDisk(): void {
    rmSync(join(this.runDir, 'images'), { force: true });
  }

  /** Why the machine is no longer there, if it is not. */
  gone(): string | undefined {
    if (this.end === undefined) return undefined;
    return `host ${this.options.name} ended (${this.end}); the end of its console:\n${this.tail()}`;
  }

  /** The last lines of the serial console: Xen's and dom0's kernel's messages. */
  tail(): string {
    return existsSync(this.consoleLog) ? readFileSync(this.consoleLog, 'latin1').slice(-3000) : '';
  }

  /** Ends the machine and waits until it is gone. Returns where its console log is kept. */
  async stop(): Promise<string> {
    this.stopping = true;
    this.child.kill('SIGKILL');
    await this.ended;
    clearTimeout(this.life);
    rmSync(this.runDir, { recursive: true, force: true });
    return this.consoleLog;
  }

  private follow(): Promise<void> {
    let messages = '';
    this.child.stderr?.on('data', (bytes: Buffer) => {
      messages = (messages + bytes.toString()).slice(-2000);
    });
    return new Promise((resolve) => {
      this.child.on('error', (error) => {
        this.end = error.message;
        resolve();
      });
      this.child.on('close', (code, signal) => {
        this.end = this.stopping ? 'stopped' : `QEMU ended with ${String(code ?? signal)} ${messages.trim()}`;
        resolve();
      });
    });
  }

  private ports(): string[] {
    const { wire } = this.options;
    const forward = `hostfwd=tcp:127.0.0.1:${this.port}-:7000`;
    const args = [
      '-netdev',
      `user,id=user,restrict=on,${forward}`,
      '-device',
      nic('user', 1, this.options.ip),
    ];
    args.push(
      '-chardev',
      `socket,id=console,path=${this.consoleSocket},server=on,wait=off,logfile=${this.consoleLog}`,
    );
    args.push('-serial', 'chardev:console');
    if (wire === undefined) return args;
    const side = `server=${wire.server ? 'on' : 'off'},addr.type=unix,addr.path=${wire.path}`;
    return [...args, '-netdev', `stream,id=wire,${side}`, '-device', nic('wire', 2, this.options.ip)];
  }
}

function nic(netdev: string, index: number, ip: string): string {
  const host = Number(ip.split('.')[3]).toString(16).padStart(2, '0');
  return `virtio-net-pci,netdev=${netdev},mac=52:54:00:00:0${index}:${host}`;
}

function machineArguments(options: MachineOptions): string[] {
  return [
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
    ...['-accel', 'tcg,thread=multi,tb-size=512', '-cpu', cpuFlags],
    ...['-smp', String(options.cpus), '-m', String(options.memoryMib)],
  ];
}

function bootArguments(options: MachineOptions, files: BootFiles): string[] {
  const dom0 = `sched=null dom0_mem=${options.dom0Mib}M,max:${options.dom0Mib}M dom0_max_vcpus=${options.dom0Vcpus}`;
  const kernel = `console=hvc0 quiet panic=5 lab.ip=${options.ip} lab.name=${options.name}`;
  return [
    ...['-kernel', files.xen, '-append', `console=com1 com1=115200,8n1 loglvl=warning ${dom0}`],
    // A comma would end the module's arguments.
    ...['-initrd', `${files.kernel} ${kernel},${files.initrd}`],
  ];
}

/** A port that is free now; should another take it first, QEMU says so and ends. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() =>
        typeof address === 'object' && address !== null
          ? resolve(address.port)
          : reject(new LabError('no free port')),
      );
    });
  });
}

/** A folder for sockets and throw-away disks of this process. */
export function temporaryDir(): string {
  return mkdtempSync(join(tmpdir(), `dormouse-lab-${process.pid}-`));
}

/** Removes the folders of processes that were killed outright. */
export function removeLeftovers(): void {
  for (const name of readdirSync(tmpdir())) {
    const pid = /^dormouse-lab-(\d+)-/.exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`))
      rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}

function newLog(name: string): string {
  mkdirSync(logDir, { recursive: true });
  const logs = readdirSync(logDir).filter((file) => file.endsWith('.log'));
  for (const old of logs.sort().slice(0, -keptLogs)) rmSync(join(logDir, old), { force: true });
  const stamp = new Date().toISOString().replaceAll(/[:.]/g, '-');
  return join(logDir, `${stamp}-${process.pid}-${name}.log`);
}
