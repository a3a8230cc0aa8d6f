import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import { LabError } from '../errors.js';
import { cacheDir, sourceDir } from '../paths.js';
import { layOutDom0 } from './dom0.js';
import { layOutGuest } from './guest.js';
import { Modules } from './modules.js';
import { needPackages, type Packages } from './packages.js';
import { needTools, run } from './tools.js';

/** What a host boots from. */
export interface BootFiles {
  xen: string;
  kernel: string;
  initrd: string;
  rootDisk: string;
}

/** Changes with everything that goes into the images. */
function inputsKey(packages: Packages): string {
  const hash = createHash('sha256').update(packages.key);
  const here = dirname(fileURLToPath(import.meta.url));
  for (const dir of [join(sourceDir, 'dom0'), join(sourceDir, 'guest'), here])
    for (const name of readdirSync(dir).sort())
      if (!name.endsWith('.map')) hash.update(name).update(readFileSync(join(dir, name)));
  const { size, mtimeMs } = statSync(process.execPath);
  return hash.update(`${process.version} ${size} ${mtimeMs}`).digest('hex').slice(0, 16);
}

function archive(root: string, into: string): void {
  const names = readdirSync(root, { recursive: true, encoding: 'utf8' }).join('\n');
  const raw = `${into}.cpio`;
  run('cpio', ['-o', '-H', 'newc', '--quiet', '-R', '0:0', '-O', raw], { cwd: root, input: `${names}\n` });
  writeFileSync(into, gzipSync(readFileSync(raw), { level: 1 }));
  rmSync(raw);
}

/** Makes an ext4 disk image from a folder. Throws LabError. */
export function makeDisk(image: string, from: string | undefined, mib: number): void {
  const content = from === undefined ? [] : ['-d', from];
  const extended = 'lazy_itable_init=1,root_owner=0:0';
  const options = ['-q', '-F', '-t', 'ext4', '-O', '^has_journal', '-m', '0', '-E', extended];
  run('/sbin/mke2fs', [...options, ...content, image, `${mib}m`]);
}

/** Takes the ELF out of a bzImage (Linux, Documentation/arch/x86/boot.rst): unpacking it takes emulated xl and Xen seconds. */
function unpackKernel(bzImage: string, into: string): void {
  const image = readFileSync(bzImage);
  const payload = (image.readUInt8(0x1f1) + 1) * 512 + image.readUInt32LE(0x248);
  writeFileSync(`${into}.xz`, image.subarray(payload, payload + image.readUInt32LE(0x24c)));
  // After the stream comes its unpacked size.
  run('xz', ['--decompress', '--single-stream', `${into}.xz`]);
}

function buildInto(dir: string, packages: Packages): void {
  const bootDir = join(packages.kernelDir, 'boot');
  const kernel = readdirSync(bootDir).find((name) => name.startsWith('vmlinuz-'));
  if (kernel === undefined) throw new LabError(`no kernel in ${bootDir}`);
  const modules = new Modules(packages.kernelDir);
  const layout = join(dir, 'layout');
  layOutDom0(layout, packages, modules);
  layOutGuest(join(layout, 'guest'), modules);
  unpackKernel(join(bootDir, kernel), join(dir, 'vmlinux'));
  copyFileSync(join(dir, 'vmlinux'), join(layout, 'root/domu/vmlinux'));
  archive(join(layout, 'guest'), join(layout, 'root/domu/initrd'));
  archive(join(layout, 'boot'), join(dir, 'initrd'));
  const xen = join(packages.xenDir, 'boot/xen-4.17-amd64.gz');
  writeFileSync(join(dir, 'xen'), gunzipSync(readFileSync(xen)));
  makeDisk(join(dir, 'root.ext4'), join(layout, 'root'), 512);
  rmSync(layout, { recursive: true });
}

/** Builds Xen, dom0's kernel, its root disk and the guests, or finds them as built before. Throws LabError. */
export function needBootFiles(): BootFiles {
  needTools();
  const packages = needPackages();
  const images = join(cacheDir, 'images');
  const dir = join(images, inputsKey(packages));
  if (!existsSync(dir)) {
    process.stderr.write('lab: building the images of dom0 and the guests ...\n');
    const partial = `${dir}.${process.pid}.partial`;
    mkdirSync(partial, { recursive: true });
    try {
      buildInto(partial, packages);
      if (!existsSync(dir)) renameSync(partial, dir);
    } finally {
      rmSync(partial, { recursive: true, force: true });
    }
  }
  return {
    xen: join(dir, 'xen'),
    kernel: join(dir, 'vmlinux'),
    initrd: join(dir, 'initrd'),
    rootDisk: join(dir, 'root.ext4'),
  };
}
