/** A host in memory, for tests of the command line: it lists, pauses and destroys, and holds no pages. */
import { selectDomain } from '../../src/domain/selector.js';
import { DormouseError } from '../../src/errors.js';
import type { DomainSpec, Host, XlDomain } from '../../src/host/contract.js';
import type { DomainInfo } from '../../src/domain/state.js';

/** A running domain; `over` says what is different about it. */
export function domainInfo(over: Partial<DomainInfo> = {}): DomainInfo {
  return {
    domid: 1,
    name: 'web1',
    uuid: '12345678-9abc-4def-8123-456789abcdef',
    type: 'pv',
    memoryKib: 262_144,
    maxMemoryKib: 262_144,
    vcpus: 2,
    running: true,
    blocked: false,
    paused: false,
    dying: false,
    shutdown: null,
    building: false,
    cpuTimeNs: 12_345_678_900,
    ...over,
  };
}

function notHere(): never {
  throw new DormouseError('HOST_LACKS', 'the fake host holds no pages');
}

export class FakeHost implements Host {
  readonly kind = 'embedded';
  readonly description = 'fake host';
  readonly domains: DomainInfo[];
  readonly created: { spec: DomainSpec | XlDomain; paused: boolean }[] = [];
  closed = 0;

  /** `xlConfig`: as Xen it takes the settings of xl. */
  constructor(
    domains: readonly DomainInfo[] = [],
    private readonly xlConfig = false,
  ) {
    this.domains = [...domains];
  }

  capabilities: Host['capabilities'] = () =>
    Promise.resolve({
      'light-suspend-point': 'no pages',
      'cow-snapshot': 'no pages',
      'log-dirty': 'no pages',
      'cooperative-suspend': 'no pages',
      rewrite: 'no pages',
      create: true,
      'xl-config': this.xlConfig || 'guest programs',
    });
  list: Host['list'] = () => Promise.resolve(this.domains);
  info: Host['info'] = (domid) => this.find(String(domid));
  find: Host['find'] = async (selector) => selectDomain(await this.list(), selector);
  config: Host['config'] = () => Promise.resolve('{"program":"idle"}');

  create: Host['create'] = (spec, { paused }) => {
    this.created.push({ spec, paused });
    const domid = 1 + Math.max(0, ...this.domains.map((info) => info.domid));
    const { name } = spec;
    this.domains.push(domainInfo({ ...('xlConfig' in spec ? { name } : spec), domid, paused }));
    return Promise.resolve(domid);
  };
  pause: Host['pause'] = (domid) => this.change(domid, { paused: true, running: false });
  unpause: Host['unpause'] = (domid) => this.change(domid, { paused: false, running: true });
  destroy: Host['destroy'] = (domid) => {
    const at = this.domains.findIndex((info) => info.domid === domid);
    this.domains.splice(at, at < 0 ? 0 : 1);
    return Promise.resolve();
  };

  obstacles: Host['obstacles'] = () => Promise.resolve([]);
  acquire: Host['acquire'] = () => notHere();
  build: Host['build'] = () => notHere();
  suspend: Host['suspend'] = () => notHere();
  resumeInPlace: Host['resumeInPlace'] = () => notHere();
  noteEnding: Host['noteEnding'] = () => notHere();
  holdPaused: Host['holdPaused'] = () => notHere();
  releasePaused: Host['releasePaused'] = () => notHere();
  captureStopped: Host['captureStopped'] = () => notHere();
  snapshot: Host['snapshot'] = () => notHere();
  geometry: Host['geometry'] = () => notHere();
  openMemory: Host['openMemory'] = () => notHere();
  readState: Host['readState'] = () => notHere();
  coreState: Host['coreState'] = () => notHere();
  tracker: Host['tracker'] = () => notHere();
  get xenstore(): Host['xenstore'] {
    return notHere();
  }
  disks: Host['disks'] = () => Promise.resolve([]);
  sharedDisks: Host['sharedDisks'] = () => Promise.resolve([]);
  onEvent: Host['onEvent'] = () => () => undefined;
  close: Host['close'] = () => {
    this.closed++;
    return Promise.resolve();
  };

  private change(domid: number, over: Partial<DomainInfo>): Promise<void> {
    const at = this.domains.findIndex((info) => info.domid === domid);
    const info = this.domains[at];
    if (!info) throw new DormouseError('DOMAIN_NOT_FOUND', `there is no domain ${domid}`);
    this.domains[at] = { ...info, ...over };
    return Promise.resolve();
  }
}
