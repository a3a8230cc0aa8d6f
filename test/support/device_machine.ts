/** Backends that answer as Linux's do (public/io/xenbus.h), or do not, and the toolstack's list of a domain's devices. */
import { DormouseError } from '../../src/errors.js';
import type { Xenstore } from '../../src/host/contract.js';
import type { DevicesOf } from '../../src/host/xen/devices.js';

const answers: Readonly<Record<string, string>> = { '5': '5', '6': '6', '1': '2', '4': '4' };

/** Of domain 7. What was written, in order; `deaf` backends answer nothing. */
export class DeviceMachine {
  readonly nodes = new Map<string, string>();
  readonly written: string[] = [];
  deaf = '';
  isThere = true;
  #lives = 0;

  device(kind: string, id: number, more: Readonly<Record<string, string>> = {}): this {
    const frontend = `/local/domain/7/device/${kind}/${id}`;
    const backend = more['backend'] ?? `/local/domain/0/backend/${kind}/7/${id}`;
    this.nodes.set(`/libxl/7/device/${kind}/${id}/frontend`, frontend);
    this.nodes.set(`/libxl/7/device/${kind}/${id}/backend`, backend);
    this.nodes.set(`${frontend}/backend`, backend);
    this.nodes.set(`${frontend}/state`, '4');
    this.nodes.set(`${frontend}/ring-ref`, more['ring-ref'] ?? '8');
    this.nodes.set(`${backend}/state`, '4');
    if (more['mode'] !== undefined) this.nodes.set(`${backend}/mode`, more['mode']);
    if (more['state'] !== undefined) this.nodes.set(`${frontend}/state`, more['state']);
    return this;
  }

  /** As `xl destroy` leaves it. */
  destroy(): void {
    this.nodes.clear();
    this.#lives++;
    this.isThere = false;
  }

  write(path: string, value: string): void {
    this.written.push(`${path.split('/').slice(5).join('/')}=${value}`);
    this.nodes.set(path, value);
    if (!path.endsWith('/state')) return;
    const backend = this.nodes.get(path.replace(/state$/, 'backend')) ?? '';
    const answer = answers[value];
    if (answer !== undefined && (this.deaf === '' || !backend.includes(this.deaf)))
      this.nodes.set(`${backend}/state`, answer);
  }

  get store(): Xenstore {
    const list = (path: string): string[] => {
      const below = [...this.nodes.keys()].filter((node) => node.startsWith(`${path}/`));
      return [...new Set(below.map((node) => node.slice(path.length + 1).split('/')[0] ?? ''))];
    };
    const part = {
      read: (path: string) => Promise.resolve(this.nodes.get(path) ?? null),
      write: (path: string, value: string) => {
        this.write(path, value);
        return Promise.resolve();
      },
      list: (path: string) => Promise.resolve(list(path)),
      transaction: async (body: (tx: unknown) => Promise<unknown>): Promise<unknown> => {
        for (;;) {
          const began = this.#lives;
          const writes: [path: string, value: string][] = [];
          const result = await body({
            ...part,
            write: (...write: [string, string]) => void writes.push(write),
          });
          if (began !== this.#lives) continue;
          for (const [path, value] of writes) this.write(path, value);
          return result;
        }
      },
    };
    return part as unknown as Xenstore;
  }

  get of(): DevicesOf {
    const requireThere = (): void => {
      if (!this.isThere) throw new DormouseError('DOMAIN_NOT_FOUND', 'domain 7 was destroyed');
    };
    return { xenstore: this.store, domid: 7, requireThere };
  }
}
