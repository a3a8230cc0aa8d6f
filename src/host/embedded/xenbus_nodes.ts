/** The nodes of a device's two ends in xenstore, which follow what the hypervisor's backend and the guest's driver are at. */
import type { NativeDevice } from './hypervisor.js';
import type { XenstoreTree } from './xenstore.js';

/** As xenbus numbers them. */
export const xenbus = {
  initialising: 1,
  initWait: 2,
  initialised: 3,
  connected: 4,
  closing: 5,
  closed: 6,
} as const;

type Nodes = Readonly<Record<string, string>>;

export class XenbusNodes {
  readonly #xenstore: XenstoreTree;
  readonly #front: string;
  readonly #back: string;

  /** Of a device of the kind `vbd` or `vif`. */
  constructor(xenstore: XenstoreTree, domid: number, kind: string, device: number) {
    this.#xenstore = xenstore;
    this.#front = `/local/domain/${domid}/device/${kind}/${device}`;
    this.#back = `/local/domain/0/backend/${kind}/${domid}/${device}`;
  }

  /** What libxl writes of a new device, besides what every device has. */
  add(domid: number, front: Nodes, back: Nodes): void {
    const state = String(xenbus.initialising);
    this.#writeAll(this.#front, { backend: this.#back, 'backend-id': '0', ...front, state });
    this.#writeAll(this.#back, {
      frontend: this.#front,
      'frontend-id': String(domid),
      ...back,
      online: '1',
      state,
    });
  }

  /**
   * Brings the nodes to where the device is, each end through the states between: the backend says `offers` before a frontend
   * comes and `serves` once it has, the frontend says `asks`.
   */
  publish(now: NativeDevice, { offers, asks, serves }: Record<'offers' | 'asks' | 'serves', Nodes>): void {
    if (now.backend === xenbus.initWait) this.#writeAll(this.#back, offers);
    if (now.frontend === xenbus.connected) {
      this.#move(this.#back, xenbus.initWait);
      this.#writeAll(this.#front, asks);
      this.#move(this.#front, xenbus.initialised);
      this.#writeAll(this.#back, serves);
    }
    this.#move(this.#back, now.backend);
    this.#move(this.#front, now.frontend);
  }

  /** A state is written only where it is another one, and not gone back to on the way to a later one. */
  #move(home: string, state: number): void {
    const path = `${home}/state`;
    const before = Number(this.#xenstore.read(path));
    const onTheWay = state === xenbus.initWait || state === xenbus.initialised;
    if (before === state || (onTheWay && before > state && before < xenbus.closing)) return;
    this.#xenstore.write(path, String(state));
  }

  #writeAll(home: string, nodes: Nodes): void {
    for (const [name, value] of Object.entries(nodes))
      if (this.#xenstore.read(`${home}/${name}`) !== value) this.#xenstore.write(`${home}/${name}`, value);
  }
}
