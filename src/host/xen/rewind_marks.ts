/** Which domains are half rewound: a file each, in the folder of the leases; native/host/xen/watcher looks for it too. */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Of domains that are neither what they were nor what they are to be. The watcher looks for them too. */
export class RewindMarks {
  constructor(private readonly runDir: string) {}

  #path(domid: number): string {
    return join(this.runDir, `${domid}.rewinding`);
  }

  has(domid: number, uuid: string): boolean {
    try {
      return readFileSync(this.#path(domid), 'utf8') === uuid;
    } catch {
      return false;
    }
  }

  set(domid: number, uuid: string): void {
    const next = `${this.#path(domid)}.new`;
    writeFileSync(next, uuid, { mode: 0o600 });
    renameSync(next, this.#path(domid));
  }

  remove(domid: number): void {
    rmSync(this.#path(domid), { force: true });
  }
}
