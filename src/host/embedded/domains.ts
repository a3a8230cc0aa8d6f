/**
 * The toolstack half of the embedded host: names, ids, xenstore nodes, event-channel ports, what is to happen when a
 * guest shuts down, and the state blobs that the software hypervisor has no use for but an image carries.
 */
import { DormouseError, asDormouseError } from '../../errors.js';
import { native } from '../../addon.js';
import { requireName, selectDomain } from '../../domain/selector.js';
import type { DomainSpec, Obstacle, TablePin } from '../contract.js';
import type { DomainHappening } from '../events.js';
import { type AttachedDisk, disksInUse, lookAtDisk } from './block_devices.js';
import { Devices, devicesOf, type DomainDevices, firstDevicePort, hasDevices } from './devices.js';
import { checkSpec, crashAction, diskConfigs, guestOptions } from './guest_config.js';
import type { HypervisorApi, HypervisorEvent, MachineId, NativePart } from './hypervisor.js';
import type { AttachedNetwork } from './network_devices.js';
import type { XenstoreTree } from './xenstore.js';
import type { DomainInfo, DomainState, MemoryGeometry, ShutdownReason } from '../../domain/state.js';
import { sharedInfoBytes } from '../../domain/vcpu_context.js';

const maxDomid = 32_751;
const maxNrPfns = 2 ** 31;
/** A PVH guest owns pages beside its memory (rings, start info); libxl allows it 1 MiB for them. */
const specialPages = 256;

/** Parts of a domain's state that it is given and gives back, but never uses. */
type CarriedState = Omit<DomainState, 'sharedInfo'>;

export interface Domain extends DomainDevices {
  readonly spec: DomainSpec;
  building: boolean;
  /** Building, of a domain that ran before: it stays paused until it is filled anew or destroyed. */
  rewriting: boolean;
  /** It was left paused because it was half rewritten: it runs once it is whole. */
  pausedByRewriting: boolean;
  /** The user's pause: on or off, whatever leases hold besides. */
  userPaused: boolean;
  /** The lease that works on it, if any. */
  leased: boolean;
  /** A lease asked it to suspend; else it is resumed as soon as it does. */
  suspendWanted: boolean;
  carried: CarriedState | null;
  lastPort: number;
  readonly ports: Set<number>;
  disks: readonly AttachedDisk[];
  networks: readonly AttachedNetwork[];
  /** Its backends were asked to close, so that it can be rewritten. */
  offDevices: boolean;
  readonly endWatch: () => void;
}

const noBytes = Buffer.alloc(0);

export class Domains {
  readonly #hv: HypervisorApi;
  readonly #machine: MachineId;
  readonly #xenstore: XenstoreTree;
  readonly #emit: (event: DomainHappening) => void;
  readonly #byId = new Map<number, Domain>();
  readonly devices: Devices;
  #lastDomid = 0;

  constructor(
    hv: HypervisorApi,
    machine: MachineId,
    xenstore: XenstoreTree,
    emit: (event: DomainHappening) => void,
  ) {
    this.#hv = hv;
    this.#machine = machine;
    this.#xenstore = xenstore;
    this.#emit = emit;
    this.devices = new Devices(hv, machine, xenstore);
  }

  get(domid: number): Domain {
    const domain = this.#byId.get(domid);
    if (!domain) throw new DormouseError('DOMAIN_NOT_FOUND', `no domain ${domid}`, { place: { domid } });
    return domain;
  }

  all(): Domain[] {
    return [...this.#byId.values()];
  }

  find(selector: string): Domain {
    const all = this.all().map((domain) => ({ ...domain.spec, domid: domain.domid, domain }));
    return selectDomain(all, selector).domain;
  }

  info({ domid, spec, building, rewriting }: Domain): DomainInfo {
    const seen = native(() => this.#hv.domainInfo(this.#machine, domid));
    return {
      domid,
      name: spec.name,
      uuid: spec.uuid,
      type: spec.type,
      memoryKib: seen.pages * 4,
      maxMemoryKib: spec.maxMemoryKib,
      vcpus: spec.vcpus,
      running: seen.running,
      blocked: seen.blocked,
      paused: seen.paused,
      dying: false,
      shutdown: seen.shutdown,
      building,
      ...(rewriting && { rewinding: true }),
      cpuTimeNs: seen.cpuTimeNs,
    };
  }

  /** Boots a guest; nothing is left of it if that fails. */
  create(spec: DomainSpec, paused: boolean): number {
    const [inUse] = this.diskObstacles(spec.config);
    if (inUse) throw new DormouseError(inUse.code, inUse.message);
    const domain = this.shell(spec);
    try {
      const options = guestOptions(spec, { store: this.#port(domain), console: this.#port(domain) });
      const booted = native(() => this.#hv.boot(this.#machine, domain.domid, options));
      this.#publishRings(
        domain,
        [booted.storeMfn, options.storePort],
        [booted.consoleMfn, options.consolePort],
      );
      this.#completed(domain);
      if (!paused) this.unpause(domain);
      return domain.domid;
    } catch (thrown) {
      this.destroy(domain);
      throw thrown;
    }
  }

  /** An empty domain with its name taken and its xenstore nodes written. */
  shell(spec: DomainSpec): Domain {
    checkSpec(spec);
    const { name, vcpus } = spec;
    requireName(name);
    const other = this.all().find((domain) => domain.spec.name === name);
    if (other)
      throw new DormouseError('DOMAIN_EXISTS', `a domain '${name}' exists (id ${other.domid})`, {
        place: { domid: other.domid },
      });
    const uuid = spec.uuid.toLowerCase();
    const twin = this.all().find((domain) => domain.spec.uuid.toLowerCase() === uuid);
    if (twin)
      throw new DormouseError('DOMAIN_EXISTS', `domain '${twin.spec.name}' has the uuid ${uuid}`, {
        place: { domid: twin.domid },
      });
    const domid = this.#nextDomid();
    const type = spec.type === 'pvh' ? 'pvh' : 'pv';
    const maxPages = spec.maxMemoryKib / 4 + (type === 'pvh' ? specialPages : 0);
    native(() => {
      this.#hv.createShell(this.#machine, { domid, type, vcpus, maxPages });
    });
    this.#publish(domid, spec);
    const domain: Domain = {
      domid,
      spec,
      building: true,
      rewriting: false,
      pausedByRewriting: false,
      userPaused: false,
      leased: false,
      suspendWanted: false,
      carried: null,
      lastPort: 0,
      ports: new Set(),
      disks: [],
      networks: [],
      offDevices: false,
      endWatch: this.#watchControl(domid),
    };
    this.#byId.set(domid, domain);
    try {
      Object.assign(domain, devicesOf(domain.spec));
      this.devices.add(domain);
    } catch (thrown) {
      this.destroy(domain);
      throw thrown;
    }
    return domain;
  }

  /** What stands against another domain of such disks, or against that one's being changed. */
  diskObstacles(config: string, domid?: number): readonly Obstacle[] {
    const others = this.all().filter((other) => other.domid !== domid);
    const owners = others.map(({ domid, spec, disks }) => ({ domid, name: spec.name, disks }));
    try {
      return disksInUse(diskConfigs(config).map(lookAtDisk), owners);
    } catch (thrown) {
      const { code, message } = asDormouseError(thrown);
      return [{ code, message }];
    }
  }

  /** Whether it is still there. */
  has(domain: Domain): boolean {
    return this.#byId.get(domain.domid) === domain;
  }

  pause(domain: Domain): void {
    this.requireBuilt(domain);
    if (domain.userPaused) return;
    native(() => this.#hv.pause(this.#machine, domain.domid));
    domain.userPaused = true;
  }

  unpause(domain: Domain): void {
    this.requireBuilt(domain);
    if (!domain.userPaused) return;
    native(() => this.#hv.unpause(this.#machine, domain.domid));
    domain.userPaused = false;
    this.devices.publish(domain);
  }

  destroy(domain: Domain): void {
    const { domid, spec } = domain;
    const reason = this.shutdownReason(domain);
    native(() => this.#hv.destroy(this.#machine, domid));
    this.#byId.delete(domid);
    domain.endWatch();
    this.#xenstore.remove(`/local/domain/${domid}`);
    if (hasDevices(domain)) this.devices.removed(domid);
    const shared = this.all().some((other) => other.spec.uuid === spec.uuid);
    if (!shared) this.#xenstore.remove(`/vm/${spec.uuid}`);
    this.#xenstore.announce('@releaseDomain');
    this.#emit({ type: 'released', domid, uuid: spec.uuid, reason });
  }

  /** Called for every event of the hypervisor. */
  onEvent({ domid, event, reason }: HypervisorEvent): void {
    const domain = this.#byId.get(domid);
    if (!domain) return;
    if (event === 'device') {
      // While it is filled there is no guest whose devices these are.
      if (!domain.building) this.devices.publish(domain);
      return;
    }
    if (event === 'suspend-ack') {
      this.#blankRequest(domid);
      return;
    }
    if (reason === 'suspend' && !domain.suspendWanted) {
      this.resume(domain);
      return;
    }
    if (reason !== 'suspend') this.#blankRequest(domid);
    this.#emit({ type: 'shutdown', domid, uuid: domain.spec.uuid, reason });
    this.#xenstore.announce('@releaseDomain');
    this.reap(domain);
  }

  /** Removes a domain that has ended, unless it is kept to be looked at or somebody works on it. */
  reap(domain: Domain): void {
    if (domain.leased || !this.has(domain)) return;
    const reason = this.shutdownReason(domain);
    if (reason === null || reason === 'suspend') return;
    const crashed = reason === 'crash' || reason === 'watchdog';
    if (!crashed || crashAction(domain.spec.config) === 'destroy') this.destroy(domain);
  }

  shutdownReason({ domid }: Domain): ShutdownReason | null {
    return native(() => this.#hv.domainInfo(this.#machine, domid)).shutdown;
  }

  resume({ domid }: Domain): void {
    native(() => this.#hv.resumeInPlace(this.#machine, domid));
  }

  /** Asks through xenstore, as xl does. */
  requestSuspend({ domid }: Domain): void {
    this.#xenstore.write(controlPath(domid), 'suspend');
  }

  /** Takes an unanswered request back. False if the guest has taken it already and will suspend. */
  withdrawSuspend({ domid }: Domain): boolean {
    if (!native(() => this.#hv.shutdownCancel(this.#machine, domid))) return false;
    this.#blankRequest(domid);
    return true;
  }

  /** Of a domain that stands still. The blobs of a domain that was built here come back as they were given. */
  readState(domain: Domain): DomainState {
    this.requireBuilt(domain);
    const { domid, carried, spec } = domain;
    const ids = carried?.vcpus.map(({ id }) => id) ?? Array.from({ length: spec.vcpus }, (_, id) => id);
    if (spec.type !== 'pv') return this.joinState(domain, [], noBytes);
    const basics = ids.map((id) => native(() => this.#hv.getVcpu(this.#machine, domid, id)));
    return this.joinState(
      domain,
      basics,
      native(() => this.#hv.readSharedInfo(this.#machine, domid)),
    );
  }

  /** A domain's whole state from what the hypervisor holds of it and what it only carries. */
  joinState({ carried }: Domain, basics: readonly Buffer[], sharedInfo: Buffer): DomainState {
    const bare = (basic: Buffer, id: number) => ({
      id,
      basic,
      extended: noBytes,
      xsave: noBytes,
      msrs: noBytes,
    });
    if (!carried)
      return {
        vcpus: basics.map(bare),
        sharedInfo,
        tscInfo: noBytes,
        cpuidPolicy: noBytes,
        msrPolicy: noBytes,
        hvmContext: noBytes,
        hvmParams: noBytes,
      };
    const vcpus = carried.vcpus.map((vcpu, i) => ({ ...vcpu, basic: basics[i] ?? vcpu.basic }));
    return { ...carried, vcpus, sharedInfo };
  }

  setState(domain: Domain, state: DomainState): void {
    const { domid, spec } = domain;
    const { sharedInfo, ...carried } = state;
    const wrong = (what: string) => new DormouseError('RESTORE_FAILED', what, { place: { domid } });
    const ids = new Set(state.vcpus.map(({ id }) => id));
    if (ids.size !== state.vcpus.length || state.vcpus.some(({ id }) => id >= spec.vcpus))
      throw wrong(`the state is not one of a domain of ${spec.vcpus} vCPUs`);
    if (spec.type === 'pv') {
      if (sharedInfo.length !== sharedInfoBytes || state.vcpus.some(({ basic }) => basic.length !== 5168))
        throw wrong('the state is not one of a PV domain');
      for (const { id, basic } of state.vcpus)
        native(() => this.#hv.setVcpu(this.#machine, domid, id, basic));
      native(() => this.#hv.writeSharedInfo(this.#machine, domid, sharedInfo));
    }
    domain.carried = carried;
  }

  setGeometry({ domid }: Domain, geometry: MemoryGeometry): void {
    if (geometry.nrPfns < 1 || geometry.nrPfns > maxNrPfns)
      throw new DormouseError('RESTORE_FAILED', `a domain of ${geometry.nrPfns} pfns cannot be built here`);
    if (geometry.p2mFrames.some((pfn) => pfn >= geometry.nrPfns))
      throw new DormouseError('RESTORE_FAILED', 'a p2m frame lies outside the pfn space');
    native(() => this.#hv.setGeometry(this.#machine, domid, geometry));
  }

  /** RESTORE_FAILED if one of the pfns lies outside the domain. */
  requirePfns({ domid }: Domain, pfns: readonly number[]): void {
    const { nrPfns } = native(() => this.#hv.domainInfo(this.#machine, domid));
    const outside = pfns.find((pfn) => pfn >= nrPfns);
    if (outside === undefined) return;
    throw new DormouseError('RESTORE_FAILED', `pfn ${outside} lies outside the ${nrPfns} of the domain`, {
      place: { domid, pfn: outside },
    });
  }

  connectRings(
    domain: Domain,
    storePfn: number,
    consolePfn: number,
  ): { storePort: number; consolePort: number } {
    const pfns = [storePfn, consolePfn];
    let refs: (number | null)[] = pfns;
    if (domain.spec.type === 'pv') {
      this.requirePfns(domain, pfns);
      refs = native(() => this.#hv.frames(this.#machine, domain.domid, pfns));
    }
    const [storeRef, consoleRef] = refs;
    if (typeof storeRef !== 'number' || typeof consoleRef !== 'number')
      throw new DormouseError('RESTORE_FAILED', 'a ring page of the domain has no frame');
    const storePort = this.#ringPort(domain, 'store');
    const consolePort = this.#ringPort(domain, 'console');
    this.#publishRings(domain, [storeRef, storePort], [consoleRef, consolePort]);
    return { storePort, consolePort };
  }

  /** Of a domain that is paused, or was half rewritten before. DOMAIN_WRONG_STATE. */
  beginRewrite(domain: Domain, part: NativePart | null): void {
    if (part) this.#requirePart(domain, part);
    native(() => this.#hv.beginRewrite(this.#machine, domain.domid, part));
    domain.building = domain.rewriting = true;
  }

  #requirePart(domain: Domain, { gained, lost, tables, unpinned, geometry }: NativePart): void {
    const ends = [...gained, ...lost].map(([first, count]) => first + count - 1);
    this.requirePfns(domain, [...ends, ...tables, ...unpinned, ...geometry.p2mFrames]);
  }

  /** Whatever fails here, the domain stays as half rewritten as it is. */
  completeRewrite(domain: Domain, pins: readonly TablePin[], state: DomainState): void {
    const { domid } = domain;
    if (!domain.rewriting)
      throw new DormouseError('DOMAIN_WRONG_STATE', `domain ${domid} is not being rewritten`, {
        place: { domid },
      });
    native(() => this.#hv.takeTables(this.#machine, domid, pins));
    this.setState(domain, state);
    native(() => this.#hv.finishInPlace(this.#machine, domid));
    domain.building = domain.rewriting = domain.offDevices = false;
    this.devices.publish(domain);
    if (!domain.pausedByRewriting) return;
    domain.pausedByRewriting = false;
    this.unpause(domain);
  }

  finish(domain: Domain): void {
    native(() => this.#hv.finish(this.#machine, domain.domid));
    if (domain.rewriting) domain.building = domain.rewriting = false;
    else this.#completed(domain);
  }

  requireBuilt({ building, rewriting, domid }: Domain): void {
    const what = rewriting ? 'is half rewound: roll it back again or destroy it' : 'is still being built';
    if (building)
      throw new DormouseError('DOMAIN_WRONG_STATE', `domain ${domid} ${what}`, { place: { domid } });
  }

  #completed(domain: Domain): void {
    domain.building = false;
    domain.userPaused = true;
    this.devices.publish(domain);
    this.#xenstore.announce('@introduceDomain');
    this.#emit({ type: 'created', domid: domain.domid, uuid: domain.spec.uuid, reason: null });
  }

  #nextDomid(): number {
    for (let tries = 0; tries < maxDomid; tries++) {
      this.#lastDomid = (this.#lastDomid % maxDomid) + 1;
      if (!this.#byId.has(this.#lastDomid)) return this.#lastDomid;
    }
    throw new DormouseError('NO_MEMORY', 'no domain id is free');
  }

  /** A domain that is rewritten keeps the port it has. */
  #ringPort(domain: Domain, ring: 'store' | 'console'): number {
    const path = `/local/domain/${domain.domid}/${ring}/port`;
    const known = domain.rewriting ? Number(this.#xenstore.read(path)) : 0;
    return domain.ports.has(known) ? known : this.#port(domain);
  }

  #port(domain: Domain): number {
    if (domain.lastPort + 1 >= firstDevicePort)
      throw new DormouseError('NO_MEMORY', 'no event channel is free');
    domain.ports.add(++domain.lastPort);
    return domain.lastPort;
  }

  /** The nodes that libxl writes for a domain. */
  #publish(domid: number, { name, uuid, vcpus, maxMemoryKib }: DomainSpec): void {
    const home = `/local/domain/${domid}`;
    const nodes: Record<string, string> = {
      [`/vm/${uuid}/name`]: name,
      [`/vm/${uuid}/uuid`]: uuid,
      [`${home}/name`]: name,
      [`${home}/domid`]: String(domid),
      [`${home}/vm`]: `/vm/${uuid}`,
      [`${home}/memory/static-max`]: String(maxMemoryKib),
      [`${home}/memory/target`]: String(maxMemoryKib),
      [`${home}/control/shutdown`]: '',
      [`${home}/control/feature-suspend`]: '1',
    };
    for (let id = 0; id < vcpus; id++) nodes[`${home}/cpu/${id}/availability`] = 'online';
    for (const [path, value] of Object.entries(nodes)) this.#xenstore.write(path, value);
  }

  #publishRings({ domid }: Domain, store: [number, number], console: [number, number]): void {
    const home = `/local/domain/${domid}`;
    for (const [ring, [ref, port]] of [
      ['store', store],
      ['console', console],
    ] as const) {
      this.#xenstore.write(`${home}/${ring}/ring-ref`, String(ref));
      this.#xenstore.write(`${home}/${ring}/port`, String(port));
    }
  }

  /** The guest's own watch on control/shutdown. */
  #watchControl(domid: number): () => void {
    return this.#xenstore.watch(controlPath(domid), () => {
      if (!this.#byId.has(domid)) return;
      const request = this.#xenstore.read(controlPath(domid)) ?? '';
      try {
        if (request === 'suspend' || request === 'poweroff' || request === 'reboot')
          native(() => this.#hv.shutdownRequest(this.#machine, domid, request));
        else native(() => this.#hv.shutdownCancel(this.#machine, domid));
      } catch (thrown) {
        // A domain that cannot hear the request leaves it unanswered, which whoever asked will notice.
        if (asDormouseError(thrown).code !== 'DOMAIN_WRONG_STATE') throw thrown;
      }
    });
  }

  #blankRequest(domid: number): void {
    if (this.#xenstore.read(controlPath(domid)) !== '') this.#xenstore.write(controlPath(domid), '');
  }
}

const controlPath = (domid: number): string => `/local/domain/${domid}/control/shutdown`;
