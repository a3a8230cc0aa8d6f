// Prints the release of Xen whose development files are installed, as a target's name has it
// ("4_17"), or nothing: then the xen host is not built.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

function pkgConfigFile() {
  const dirs = ['/usr/lib/pkgconfig', '/usr/lib64/pkgconfig'];
  for (const name of readdirSync('/usr/lib')) dirs.push(join('/usr/lib', name, 'pkgconfig'));
  return dirs.map((dir) => join(dir, 'xencontrol.pc')).find((path) => existsSync(path));
}

export function xenRelease() {
  const file = existsSync('/usr/include/xenctrl.h') ? pkgConfigFile() : undefined;
  const version = file && /^Version: *(\d+)\.(\d+)/m.exec(readFileSync(file, 'utf8'));
  return version ? `${version[1]}_${version[2]}` : '';
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(xenRelease());
