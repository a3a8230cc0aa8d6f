/** The embedded host: one machine, its domains, and the socket on which tools reach it. */
import { randomInt } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { native } from '../../addon.js';
import { version } from '../../version.js';
import type { DomainEvent } from '../contract.js';
import { Domains } from './domains.js';
import { capabilities, makeHandlers } from './handlers.js';
import { hypervisor, type HypervisorApi, type HypervisorEvent, type MachineId } from './hypervisor.js';
import { Leases } from './leases.js';
import type { HostReport } from './ops.js';
import { type HostPaths, removeHostFiles, writeHostState } from './run_dir.js';
import { type Handlers, Session } from './session.js';
import { XenstoreTree } from './xenstore.js';

const pageBytes = 4096;

export class HostServer {
  readonly #paths: HostPaths;
  readonly #memoryBytes: number;
  readonly #startedAt = new Date().toISOString();
  readonly #hv: HypervisorApi = hypervisor();
  readonly #machine: MachineId;
  readonly #xenstore = new XenstoreTree();
  readonly #domains: Domains;
  readonly #leases: Leases;
  readonly #sessions = new Set<Session>();
  readonly #handlers: Handlers;
  readonly #server: Server;
  #stopping = false;

  /** NO_MEMORY if a machine of that size cannot be had. */
  constructor(paths: HostPaths, memoryBytes: number) {
    this.#paths = paths;
    this.#memoryBytes = memoryBytes;
    const options = { frames: Math.floor(memoryBytes / pageBytes), seed: randomInt(2 ** 32) };
    this.#machine = native(() => this.#hv.createMachine(options, (event) => this.#onHypervisor(event)));
    this.#domains = new Domains(this.#hv, this.#machine, this.#xenstore, (event) => this.#emit(event));
    this.#leases = new Leases(this.#hv, this.#machine, this.#domains);
    this.#handlers = makeHandlers({
      hv: this.#hv,
      machine: this.#machine,
      domains: this.#domains,
      leases: this.#leases,
      xenstore: this.#xenstore,
      report: () => this.#report(),
      stop: () => setImmediate(() => void this.stop()),
    });
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /** Ready for tools when it returns. */
  async listen(): Promise<void> {
    this.#writeState();
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#paths.socket, resolve);
    });
  }

  /** Destroys the guests, removes the host's files and lets the process end. */
  async stop(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#server.close();
    await Promise.all([...this.#sessions].map((session) => session.end()));
    native(() => this.#hv.destroyMachine(this.#machine));
    removeHostFiles(this.#paths);
  }

  #accept(socket: Socket): void {
    if (this.#stopping) {
      socket.destroy();
      return;
    }
    this.#sessions.add(new Session(socket, this.#handlers, (session) => this.#ended(session)));
  }

  #ended(session: Session): void {
    this.#sessions.delete(session);
    if (this.#stopping) return;
    for (const transaction of session.transactions) this.#xenstore.end(transaction, false);
    for (const unwatch of session.watches.values()) unwatch();
    this.#leases.releaseAll(session);
  }

  #onHypervisor(event: HypervisorEvent): void {
    if (this.#stopping) return;
    const domain = this.#domains.all().find(({ domid }) => domid === event.domid);
    this.#domains.onEvent(event);
    if (domain && event.event === 'shutdown') this.#leases.onShutdown(domain, event.reason);
  }

  #emit(event: DomainEvent): void {
    if (event.type !== 'shutdown') this.#writeState();
    for (const session of this.#sessions) session.event({ kind: 'domain', domain: event });
  }

  /** Kept current, so that the names of the guests outlive this process. */
  #writeState(): void {
    const built = this.#domains.all().filter(({ building }) => !building);
    writeHostState(this.#paths, {
      pid: process.pid,
      startedAt: this.#startedAt,
      memoryBytes: this.#memoryBytes,
      version,
      guests: built.map(({ spec }) => spec.name),
    });
  }

  #report(): HostReport {
    const machine = native(() => this.#hv.machineInfo(this.#machine));
    return {
      name: this.#paths.name,
      pid: process.pid,
      version,
      startedAt: this.#startedAt,
      memoryBytes: machine.frames * pageBytes,
      freeBytes: machine.freeFrames * pageBytes,
      quarantinedBytes: machine.quarantinedFrames * pageBytes,
      guests: this.#domains.all().map((domain) => this.#domains.info(domain)),
      leases: this.#leases.report(),
      snapshots: this.#leases.snapshots(),
      connections: this.#sessions.size,
      capabilities,
    };
  }
}
