// What has to be on the machine, and one message that names all of it that is not.
// usage: needs.mjs [build] [lab]   exit code 5 and the message on stderr if something is missing
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { xenRelease } from './xen-release.mjs';

const runs = (name) => () => !spawnSync(name, ['--version'], { stdio: 'ignore' }).error;
const found = (name) => () => spawnSync('/bin/sh', ['-c', `command -v ${name}`]).status === 0;

/** Debian's package, and whether what is wanted of it is there. */
const build = [
  ['python3', runs('python3')],
  ['make', runs('make')],
  ['g++', runs('g++')],
];
const lab = [
  ['libxen-dev', () => xenRelease() !== ''],
  ['qemu-system-x86', found('qemu-system-x86_64')],
  ['busybox-static', () => spawnSync('dpkg', ['-s', 'busybox-static']).status === 0 && found('busybox')()],
  ['xz-utils', found('xz')],
  ['cpio', found('cpio')],
  ['e2fsprogs', () => existsSync('/sbin/mke2fs')],
  ['xfsprogs', () => existsSync('/sbin/mkfs.xfs')],
  ['lvm2', () => existsSync('/sbin/lvm')],
  ['gcc', found('gcc')],
  ['libc6-dev', () => existsSync('/usr/lib/x86_64-linux-gnu/libpthread.a')],
  ['util-linux', found('setpriv')],
];
const lists = { build: ['building the addon', build], lab: ['the Xen lab', lab] };

/** Whether the lab can get the packages that it unpacks: it has them, or apt knows where they are. */
function labPackages() {
  const cache = process.env.DORMOUSE_LAB_CACHE ?? join(homedir(), '.cache/dormouse-lab');
  if (existsSync(join(cache, 'packages'))) return true;
  return spawnSync('apt-cache', ['show', 'xen-utils-4.17', 'linux-image-amd64']).status === 0;
}

/** Whether this Node.js is older than package.json allows: Debian 12's own is. */
export function isTooOld(version) {
  const [major, minor] = version.split('.').map(Number);
  return major < 20 || (major === 20 && minor < 19);
}

/** Names of packages that are missing for `kinds` ('build', 'lab'), and whether apt has to be told first what there is. */
export function missingFor(kinds) {
  const packages = kinds.flatMap((kind) =>
    lists[kind][1].filter(([, there]) => !there()).map(([name]) => name),
  );
  return { packages, update: kinds.includes('lab') && !labPackages() };
}

function message(kinds, { packages, update }) {
  const why = kinds.map((kind) => lists[kind][0]).join(' and ');
  const old = isTooOld(process.versions.node)
    ? [`Node.js 20.19 or newer (nodejs.org; this is ${process.version})`]
    : [];
  const what = [...old, ...packages, ...(update ? ['the package lists of Debian 12'] : [])].join(', ');
  if (packages.length === 0 && !update) return `dormouse: ${why} needs ${what}`;
  const install =
    packages.length > 0 ? `sudo apt-get install -y --no-install-recommends ${packages.join(' ')}` : '';
  const steps = [kinds.includes('lab') ? 'sudo apt-get update' : '', install].filter((step) => step !== '');
  const where = kinds.includes('lab') ? 'On Debian 12' : 'On Debian or Ubuntu';
  return `dormouse: ${why} needs ${what}. ${where}: ${steps.join(' && ')}`;
}

/** Nothing of it may read what a script is piped in for, or write to where results go. */
function apt(...args) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  return spawnSync('apt-get', args, { stdio: ['ignore', 2, 2], env }).status === 0;
}

/** Ends the process with one message if something is missing; as root where CI is set, installs it instead. */
export function need(kinds) {
  let missing = missingFor(kinds);
  const whole = () => missing.packages.length === 0 && !missing.update && !isTooOld(process.versions.node);
  if (whole()) return;
  if (process.env.CI && process.getuid() === 0) {
    console.error(`dormouse: missing ${missing.packages.join(', ') || 'package lists'}; running apt-get`);
    apt('update', '-q');
    if (missing.packages.length > 0) apt('install', '-yq', '--no-install-recommends', ...missing.packages);
    missing = missingFor(kinds);
    if (whole()) return;
  }
  console.error(message(kinds, missing));
  process.exit(5);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) need(process.argv.slice(2));
