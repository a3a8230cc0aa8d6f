import { copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { LabError } from '../errors.js';

/** Finds kernel modules and what they depend on in an unpacked kernel package. */
export class Modules {
  private readonly files = new Map<string, string>();

  constructor(kernelDir: string) {
    for (const path of readdirSync(join(kernelDir, 'lib/modules'), { recursive: true, encoding: 'utf8' }))
      if (path.endsWith('.ko'))
        this.files.set(plain(basename(path, '.ko')), join(kernelDir, 'lib/modules', path));
  }

  /** Copies modules and all they need; writes `order`, in which they can be loaded. Throws LabError. */
  install(names: string[], into: string, loadedBefore: string[] = []): string[] {
    const order: string[] = [];
    for (const name of names) this.visit(name, order);
    const wanted = order.filter((name) => !loadedBefore.includes(name));
    mkdirSync(into, { recursive: true });
    for (const name of wanted) copyFileSync(this.file(name), join(into, `${name}.ko`));
    writeFileSync(join(into, 'order'), wanted.map((name) => `${name}.ko\n`).join(''));
    return wanted;
  }

  /** The file of one module. Throws LabError. */
  file(name: string): string {
    const path = this.files.get(plain(name));
    if (path === undefined) throw new LabError(`the kernel package has no module ${name}`);
    return path;
  }

  private visit(name: string, order: string[]): void {
    if (order.includes(name)) return;
    const info = /\0depends=([^\0]*)\0/.exec(readFileSync(this.file(name), 'latin1'));
    for (const needed of (info?.[1] ?? '').split(',')) if (needed !== '') this.visit(needed, order);
    order.push(name);
  }
}

/** The kernel takes '-' and '_' in a module's name for the same. */
function plain(name: string): string {
  return name.replaceAll('-', '_');
}
