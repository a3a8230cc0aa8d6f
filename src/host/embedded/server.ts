/** The embedded host: one machine, its domains, and the socket on which tools reach it. */
import { randomInt } from 'node:crypto';
import { chmodSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { native } from '../../addon.js';
import { asDormouseError } from '../../errors.js';
import { version } from '../../version.js';
import type { DomainHappening } from '../events.js';
import { Domains } from './domains.js';
import { capabilities, makeHandlers } from './handlers.js';
import { hypervisor, type HypervisorApi, type HypervisorEvent, type MachineId } from './hypervisor.js';
import { Leases } from './leases.js';
import type { HostReport } from './ops.js';
import { type HostPaths, type HostState, logLine, removeHostFiles, writeHostState } from './run_dir.js';
import { type Handlers, Session } from './session.js';
import { XenstoreTree } from './xenstore.js';
import { pageBytes } from '../../pfn/page_words.js';

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
  #hasStopped: () => void = () => undefined;
  /** Resolves once the machine and the host's files are gone. */
  readonly stopped = new Promise<void>((resolve) => (this.#hasStopped = resolve));

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
      stop: () => setImmediate(() => this.stop()),
    });
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /** Ready for tools when it returns. */
  async listen(): Promise<void> {
    writeHostState(this.#paths, this.#state());
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#paths.socket, resolve);
    });
    chmodSync(this.#paths.socket, 0o600);
  }

  /** Has the guests destroyed and the host's files removed; `stopped` says when that is done. */
  stop(): void {
    if (this.#stopping) return;
    this.#stopping = true;
    void this.#end();
  }

  async #end(): Promise<void> {
    this.#server.close();
    await Promise.all([...this.#sessions].map((session) => session.end()));
    surviving('ending the machine', () => native(() => this.#hv.destroyMachine(this.#machine)));
    surviving('removing the files', () => removeHostFiles(this.#paths));
    this.#hasStopped();
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
    surviving(`domain ${event.domid}: ${event.event}`, () => this.#domains.onEvent(event));
    if (domain && event.event === 'shutdown') this.#leases.onShutdown(domain, event.reason);
  }

  #emit(event: DomainHappening): void {
    if (event.type !== 'shutdown')
      surviving('writing the state file', () => writeHostState(this.#paths, this.#state()));
    for (const session of this.#sessions) session.event({ kind: 'domain', domain: event });
  }

  /** Kept in a file, so that the names of the guests outlive this process. */
  #state(): HostState {
    const built = this.#domains.all().filter(({ building }) => !building);
    return {
      pid: process.pid,
      startedAt: this.#startedAt,
      memoryBytes: this.#memoryBytes,
      version,
      guests: built.map(({ spec }) => spec.name),
    };
  }

  #report(): HostReport {
    const machine = native(() => this.#hv.machineInfo(this.#machine));
    const domains = this.#domains.all();
    const seen = domains.map(({ domid }) => native(() => this.#hv.domainInfo(this.#machine, domid)));
    return {
      name: this.#paths.name,
      pid: process.pid,
      version,
      startedAt: this.#startedAt,
      memoryBytes: machine.frames * pageBytes,
      freeBytes: machine.freeFrames * pageBytes,
      quarantinedBytes: machine.quarantinedFrames * pageBytes,
      guests: domains.map((domain) => this.#domains.info(domain)),
      leases: this.#leases.report(),
      snapshots: seen.filter(({ snapshotEpoch }) => snapshotEpoch !== 0).length,
      trackers: seen.filter(({ logDirty }) => logDirty).length,
      connections: this.#sessions.size,
      capabilities,
    };
  }
}

/** What fails where no tool waits for the answer is logged: a host that ended over it would take its guests along. */
function surviving(what: string, act: () => void): void {
  try {
    act();
  } catch (thrown) {
    const { code, message } = asDormouseError(thrown);
    logLine(`${what}: ${code}: ${message}`);
  }
}
