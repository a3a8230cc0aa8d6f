/** Programs of test/xen-lab/oracle, built here of Xen's own libraries and run in dom0. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Lab } from './lab.js';
import { sourceDir } from './paths.js';

const libraries = ['-lxenctrl', '-lxenguest', '-lxenforeignmemory'];

/** Puts them at /tmp/NAME of the host. */
export async function putOracles(lab: Lab, ...names: string[]): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-oracle-'));
  try {
    for (const name of names) {
      const [source, program] = [join(sourceDir, `oracle/${name.replace('.so', '')}.c`), join(dir, name)];
      // What is preloaded brings the libraries whose functions it stands before.
      const shared = name.endsWith('.so') ? ['-shared', '-fPIC', '-Wl,--no-as-needed'] : [];
      execFileSync('cc', ['-O2', ...shared, '-D__XEN_TOOLS__', source, '-o', program, ...libraries]);
      await lab.put(program, `/tmp/${name}`);
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
