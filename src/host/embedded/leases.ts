/**
 * Who works on which domain, and what has to be undone when a lease ends, whether its holder ends it or dies: snapshot
 * dropped, tracker off, a half-built domain removed, a suspended one resumed, its pauses taken back.
 */
import { native } from '../../addon.js';
import { asDormouseError, DormouseError } from '../../errors.js';
import type { Ending, OperationKind } from '../contract.js';
import { findImage } from '../named_image.js';
import type { Domain, Domains } from './domains.js';
import type { HypervisorApi, MachineId, NativePart, NativeSnapshot } from './hypervisor.js';
import type { LeaseReport } from './ops.js';
import { logLine } from './run_dir.js';
import type { ShutdownReason } from '../../domain/state.js';

/** One connection of a tool. */
export interface Holder {
  readonly pid: number;
}

interface SuspendWait {
  readonly done: (error?: Error) => void;
}

export interface HeldLease {
  readonly id: number;
  readonly domain: Domain;
  readonly operation: OperationKind;
  readonly holder: Holder;
  readonly builds: boolean;
  /** Controller pauses taken through it. */
  pauses: number;
  tracks: boolean;
  snapshotEpoch: number;
  wait: SuspendWait | null;
  /** What its end comes to if the image is there. */
  ending: Ending | null;
}

export class Leases {
  readonly #hv: HypervisorApi;
  readonly #machine: MachineId;
  readonly #domains: Domains;
  readonly #held = new Map<number, HeldLease>();
  #lastId = 0;

  constructor(hv: HypervisorApi, machine: MachineId, domains: Domains) {
    this.#hv = hv;
    this.#machine = machine;
    this.#domains = domains;
  }

  report(): LeaseReport[] {
    return [...this.#held.values()].map(({ domain, operation, holder }) => ({
      domid: domain.domid,
      operation,
      pid: holder.pid,
    }));
  }

  /** LOCKED, naming who holds it, if another lease is on the domain. */
  acquire(domain: Domain, operation: OperationKind, holder: Holder, builds = false): HeldLease {
    this.requireFree(domain);
    const lease: HeldLease = {
      id: ++this.#lastId,
      domain,
      operation,
      holder,
      builds,
      pauses: 0,
      tracks: false,
      snapshotEpoch: 0,
      wait: null,
      ending: null,
    };
    domain.leased = true;
    this.#held.set(lease.id, lease);
    return lease;
  }

  /** LOCKED if a lease is on the domain, unless `holder` is who has it. */
  requireFree(domain: Domain, holder?: Holder): void {
    const other = this.#of(domain);
    if (!other || other.holder === holder) return;
    const { name } = domain.spec;
    throw new DormouseError(
      'LOCKED',
      `domain '${name}' is held by process ${other.holder.pid} (${other.operation})`,
      { place: { domid: domain.domid } },
    );
  }

  /** A lease of that holder. DOMAIN_NOT_FOUND where its domain is gone, as when it was destroyed under it. */
  get(id: number, holder: Holder): HeldLease {
    const lease = this.#held.get(id);
    if (lease?.holder === holder) return lease;
    throw new DormouseError('DOMAIN_NOT_FOUND', 'the lease has ended');
  }

  /** A lease whose domain is under construction. */
  builder(id: number, holder: Holder): HeldLease {
    const lease = this.get(id, holder);
    const { building, rewriting } = lease.domain;
    if (building && (lease.builds || rewriting)) return lease;
    const { domid } = lease.domain;
    throw new DormouseError('DOMAIN_WRONG_STATE', `domain ${domid} is not being built`, { place: { domid } });
  }

  /** Ends it and undoes what is open. Each step is tried, whatever became of the one before. */
  release(lease: HeldLease): void {
    if (!this.#held.delete(lease.id)) return;
    const { domain } = lease;
    const { domid } = domain;
    lease.wait?.done(
      new DormouseError('CANCELLED', `the lease on domain ${domid} ended`, { place: { domid } }),
    );
    const steps = [
      () => this.dropSnapshot(lease),
      () => this.trackerOff(lease),
      () => this.#keepEnding(lease),
      () => {
        if (this.#domains.has(domain)) this.#reattach(domain);
      },
      () => {
        if (this.#domains.has(domain)) this.#settleSuspend(domain);
      },
      () => {
        if (this.#domains.has(domain)) this.#settlePauses(lease);
      },
      () => {
        domain.leased = false;
        if (lease.builds && domain.building) this.#domains.destroy(domain);
        else if (!domain.building) this.#domains.reap(domain);
      },
    ];
    for (const step of steps) attempt(step, domid);
  }

  /** Where the image is there its domain must not run on: it would write to the disks that the image knows. */
  #keepEnding({ ending, domain }: HeldLease): void {
    if (ending === null) return;
    const found = findImage(ending);
    if (found === 'absent') return;
    const { domid } = domain;
    // Paused first: what fails from here on must not have it run.
    this.#domains.pause(domain);
    if (found === 'there' && ending.then === 'destroy') this.#domains.destroy(domain);
    const became = this.#domains.has(domain) ? 'left paused' : 'ended';
    const why = found === 'there' ? 'is whole' : 'cannot be read, and may be whole';
    logLine(`domain ${domid}: ${became}, as ${ending.path} ${why}`);
  }

  releaseAll(holder: Holder): void {
    for (const lease of [...this.#held.values()]) if (lease.holder === holder) this.release(lease);
  }

  /** Forgets the lease of a domain that its holder destroyed: there is nothing left to undo. */
  domainGone(domain: Domain): void {
    const lease = this.#of(domain);
    if (!lease) return;
    this.#held.delete(lease.id);
    const { domid } = domain;
    lease.wait?.done(
      new DormouseError('DOMAIN_NOT_FOUND', `domain ${domid} was destroyed`, { place: { domid } }),
    );
  }

  /** Resolves once the guest has suspended. SUSPEND_TIMEOUT, the request withdrawn, if it does not answer. */
  async suspend(lease: HeldLease, timeoutMs: number): Promise<void> {
    const { domain } = lease;
    const reason = this.#domains.shutdownReason(domain);
    if (domain.suspendWanted && reason === 'suspend') return;
    this.#requireAnswering(domain, reason);
    domain.suspendWanted = true;
    try {
      await this.#awaitSuspend(lease, timeoutMs);
    } finally {
      lease.wait = null;
    }
  }

  /** Called when a domain has shut down, for whatever reason. */
  onShutdown(domain: Domain, reason: ShutdownReason | null): void {
    const { domid } = domain;
    const wait = this.#of(domain)?.wait;
    if (!wait) return;
    if (reason === 'suspend') {
      wait.done();
      return;
    }
    domain.suspendWanted = false;
    const text = `domain ${domid} did not suspend but shut down (${reason ?? 'unknown'})`;
    wait.done(new DormouseError('DOMAIN_WRONG_STATE', text, { place: { domid } }));
  }

  resume(lease: HeldLease): void {
    this.#domains.resume(lease.domain);
    lease.domain.suspendWanted = false;
    lease.ending = null;
  }

  noteEnding(lease: HeldLease, ending: Ending): void {
    lease.ending = ending;
  }

  holdPaused(lease: HeldLease): void {
    this.#domains.requireBuilt(lease.domain);
    native(() => this.#hv.pause(this.#machine, lease.domain.domid));
    lease.pauses += 1;
  }

  releasePaused(lease: HeldLease): void {
    const { domid } = lease.domain;
    if (lease.pauses === 0)
      throw new DormouseError('DOMAIN_WRONG_STATE', `the lease does not hold domain ${domid} paused`);
    lease.pauses -= 1;
    native(() => this.#hv.unpause(this.#machine, domid));
  }

  /** The domain is held paused, or was left half rewritten. */
  beginRewrite(lease: HeldLease, part: NativePart | null): void {
    const { domain } = lease;
    this.#requirePaused(lease);
    try {
      this.#domains.beginRewrite(domain, part);
    } catch (thrown) {
      this.#reattach(domain);
      throw thrown;
    }
    domain.suspendWanted = false;
  }

  #requirePaused({ pauses, domain: { domid, rewriting } }: HeldLease): void {
    if (pauses === 0 && !rewriting)
      throw new DormouseError('DOMAIN_WRONG_STATE', `the lease does not hold domain ${domid} paused`);
  }

  /** Before the domain is rewritten. HOST_UNAVAILABLE, its devices as they were. */
  async detachDevices(lease: HeldLease): Promise<void> {
    const { domain } = lease;
    this.#requirePaused(lease);
    if (domain.rewriting) return;
    domain.offDevices = true;
    try {
      await this.#domains.devices.detach(domain, () => this.#stillWanted(domain));
    } catch (thrown) {
      domain.offDevices = false;
      throw thrown;
    }
  }

  /** Whether its devices are still to be detached: the lease's end attaches them again. */
  #stillWanted(domain: Domain): boolean {
    return this.#domains.has(domain) && domain.offDevices;
  }

  #reattach(domain: Domain): void {
    if (!domain.offDevices || domain.rewriting) return;
    domain.offDevices = false;
    this.#domains.devices.attach(domain);
  }

  snapshot(lease: HeldLease): NativeSnapshot {
    const { domid } = lease.domain;
    if (lease.snapshotEpoch !== 0)
      throw new DormouseError('DOMAIN_WRONG_STATE', `the lease has a snapshot of domain ${domid} already`);
    const taken = native(() => this.#hv.snapshot(this.#machine, domid));
    lease.snapshotEpoch = taken.epoch;
    return taken;
  }

  /** Idempotent; with an epoch, only if that is the lease's snapshot. */
  dropSnapshot(lease: HeldLease, epoch = lease.snapshotEpoch): void {
    if (epoch === 0 || lease.snapshotEpoch !== epoch) return;
    lease.snapshotEpoch = 0;
    native(() => this.#hv.releaseSnapshot(this.#machine, lease.domain.domid, epoch));
  }

  trackerOn(lease: HeldLease): void {
    native(() => this.#hv.logDirtyOn(this.#machine, lease.domain.domid));
    lease.tracks = true;
  }

  trackerOff(lease: HeldLease): void {
    if (!lease.tracks) return;
    lease.tracks = false;
    native(() => this.#hv.logDirtyOff(this.#machine, lease.domain.domid));
  }

  #of(domain: Domain): HeldLease | undefined {
    for (const lease of this.#held.values()) if (lease.domain === domain) return lease;
    return undefined;
  }

  #requireAnswering(domain: Domain, reason: ShutdownReason | null): void {
    this.#domains.requireBuilt(domain);
    const { domid } = domain;
    const wrong = (what: string) =>
      new DormouseError('DOMAIN_WRONG_STATE', `domain ${domid} ${what}`, { place: { domid } });
    if (reason !== null) throw wrong(`has shut down (${reason})`);
    if (domain.suspendWanted) throw wrong('is being asked to suspend already');
    if (this.#domains.info(domain).paused) throw wrong('is paused, so it cannot answer a suspend request');
  }

  #awaitSuspend(lease: HeldLease, timeoutMs: number): Promise<void> {
    const { domain } = lease;
    return new Promise((resolve, reject) => {
      let timer = setTimeout(() => timedOut(), timeoutMs);
      const done = (error?: Error) => {
        clearTimeout(timer);
        if (error) reject(error);
        else resolve();
      };
      const timedOut = () => {
        if (this.#domains.withdrawSuspend(domain)) {
          domain.suspendWanted = false;
          const text = `domain ${domain.domid} did not answer the suspend request within ${timeoutMs} ms`;
          done(new DormouseError('SUSPEND_TIMEOUT', text, { place: { domid: domain.domid } }));
          return;
        }
        // It has taken the request: it is on its way, and cannot be called back.
        timer = setTimeout(() => timedOut(), Math.max(timeoutMs, 1000));
      };
      lease.wait = { done };
      this.#domains.requestSuspend(domain);
    });
  }

  /** A domain that is half rewritten never runs: the last pause becomes its own. */
  #settlePauses(lease: HeldLease): void {
    const { domain } = lease;
    if (domain.rewriting && !domain.userPaused && lease.pauses > 0) {
      lease.pauses -= 1;
      domain.userPaused = domain.pausedByRewriting = true;
    }
    while (lease.pauses > 0) this.releasePaused(lease);
  }

  /** Gives a domain back running that was asked to suspend or has: it is resumed now, or when it gets there. */
  #settleSuspend(domain: Domain): void {
    if (!domain.suspendWanted) return;
    domain.suspendWanted = false;
    if (this.#domains.shutdownReason(domain) === 'suspend') this.#domains.resume(domain);
    else this.#domains.withdrawSuspend(domain);
  }
}

function attempt(step: () => void, domid: number): void {
  try {
    step();
  } catch (thrown) {
    const { code, message } = asDormouseError(thrown);
    logLine(`domain ${domid}: while its lease was undone: ${code}: ${message}`);
  }
}
