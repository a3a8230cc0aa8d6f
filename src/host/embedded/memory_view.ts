/** Guests' memory in a tool's process: the machine is mapped once, then each domain's p2m on top of it. */
import { native } from '../../addon.js';
import type { MemoryView } from '../contract.js';
import { embedded, type EmbeddedApi } from './hypervisor.js';
import type { LayoutReply } from './ops.js';
import type { MappedMachineHandle } from '../../handle.js';

export interface ViewRequest {
  readonly kind: MemoryView['kind'];
  /** Of the snapshot; 0 for the other kinds. */
  readonly epoch: number;
  /** Snapshot only: each page is read once at most, which spares the guest copying what was read. */
  readonly readOnce: boolean;
}

export class MachineViews {
  readonly #native: EmbeddedApi = embedded();
  readonly #open = new Set<MemoryView>();
  #machine: MappedMachineHandle | undefined;

  /** HOST_DIED if the host or the domain is gone, HOST_UNAVAILABLE if it may not be mapped. */
  open({ machine, domain }: LayoutReply, { kind, epoch, readOnce }: ViewRequest): MemoryView {
    const mapped = (this.#machine ??= native(() => this.#native.openMachine(machine)));
    const handle = native(() => this.#native.openView(mapped, { domain, kind, epoch, consume: readOnce }));
    const view: MemoryView = {
      handle,
      kind,
      close: () => {
        if (this.#open.delete(view)) native(() => this.#native.closeView(handle));
      },
    };
    this.#open.add(view);
    return view;
  }

  /** For tests: a live view through what the xen host keeps of a domain. Errors: as open. */
  openAsXen({ machine, domain }: LayoutReply, translated: boolean, p2mFrames: readonly number[]): MemoryView {
    const mapped = (this.#machine ??= native(() => this.#native.openMachine(machine)));
    const p2mPfns = BigUint64Array.from(p2mFrames, BigInt);
    const handle = native(() => this.#native.openAsXen(mapped, { domain, translated, p2mPfns }));
    const view: MemoryView = {
      handle,
      kind: 'live',
      refresh: (logged) => {
        native(() => this.#native.refreshAsXen(handle, logged));
        return Promise.resolve();
      },
      catchUp: (logged) => native(() => this.#native.catchUpAsXen(handle, logged)),
      close: () => {
        if (this.#open.delete(view)) native(() => this.#native.closeView(handle));
      },
    };
    this.#open.add(view);
    return view;
  }

  /** Unmaps everything. Idempotent. */
  close(): void {
    for (const view of [...this.#open]) view.close();
    const machine = this.#machine;
    this.#machine = undefined;
    if (machine !== undefined) native(() => this.#native.closeMachine(machine));
  }
}
