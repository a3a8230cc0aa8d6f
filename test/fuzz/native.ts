/** The targets in C++: native/fuzz/NAME.cc under clang's libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer. */
import { execFile, type ExecFileException, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot } from '../../src/addon.js';
import { mostResidentMib, slowestMs, type Bounds, type Outcome } from './script.js';
import { placesOf } from './target.js';

const require = createRequire(import.meta.url);
const lz4Dir = join(dirname(require.resolve('lz4/package.json')), 'deps/lz4/lib');

const pfnFlags: Readonly<Record<string, readonly string[]>> = {
  'native/pfn/kernels_avx2.cc': ['-mavx2', '-mbmi', '-mbmi2'],
  'native/pfn/kernels_avx512.cc': [
    ...['-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq', '-mavx2', '-mbmi', '-mbmi2'],
  ],
};
const pfn = ['native/pfn/kernels.cc', 'native/pfn/scalar.cc', ...Object.keys(pfnFlags)];
const lz4 = ['native/codec/lz4.cc', join(lz4Dir, 'lz4.c')];
const chunk = ['chunk', 'encode', 'block_coder'].map((part) => `native/image/${part}.cc`).concat(lz4);

interface NativeTarget {
  /** Besides its own file. */
  readonly sources: readonly string[];
  readonly options: readonly string[];
}

const inFile = (name: string): string => `native/fuzz/${name.replaceAll('-', '_')}.cc`;

export const nativeTargets: Readonly<Record<string, NativeTarget>> = {
  'page-table': { sources: pfn, options: ['-max_len=4096'] },
  lz4: { sources: lz4, options: ['-max_len=70000', '-len_control=20'] },
  delta: { sources: ['native/codec/delta.cc', ...lz4], options: ['-max_len=70000', '-len_control=20'] },
  chunk: { sources: chunk, options: ['-max_len=20000'] },
  'page-map': { sources: ['native/image/page_map.cc', ...chunk], options: ['-max_len=20000'] },
  'image-reader': {
    sources: [
      ...['image_reader', 'image_reader_delta', 'page_map', 'content_root'].map(
        (part) => `native/image/${part}.cc`,
      ),
      ...['base_pages', 'delta_chunk'].map((part) => `native/image/${part}.cc`),
      ...['native/codec/delta.cc', ...chunk, ...pfn],
    ],
    options: ['-max_len=4096'],
  },
  journal: {
    sources: ['native/host/xen/watcher/journal.cc', 'native/host/xen/watcher/saved_image.cc'],
    options: ['-max_len=4096'],
  },
  'p2m-walk': { sources: ['native/host/xen/p2m_walk.cc'], options: ['-max_len=4096'] },
};

const sanitizers = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-fno-omit-frame-pointer'];
// LZ4's and xxHash's own C does unaligned and null-plus-zero arithmetic on purpose.
const thirdParty = ['-fno-sanitize=alignment,pointer-overflow,unsigned-integer-overflow'];

/** What stands in the way of building the targets, in a sentence. */
export class NotBuilt extends Error {}

/** clang with its fuzzer runtime, found by linking an empty target; null without. */
export function findClang(): string | null {
  const empty =
    'int LLVMFuzzerTestOneInput(const unsigned char*d,unsigned long n){(void)d;(void)n;return 0;}';
  const args = ['-fsanitize=fuzzer,address,undefined', '-xc', '-', '-o', '/dev/null'];
  const works = (clang: string): boolean => spawnSync(clang, args, { input: empty }).status === 0;
  return ['clang-14', 'clang'].find(works) ?? null;
}

/** Targets whose file nobody builds. */
export const forgotten = (): string[] =>
  readdirSync(join(packageRoot, 'native/fuzz'))
    .map((file) => `native/fuzz/${file}`)
    .filter((file) => file.endsWith('.cc') && !Object.keys(nativeTargets).map(inFile).includes(file));

function run(clang: string, args: readonly string[], what: string): void {
  const done = spawnSync(clang, args, { cwd: packageRoot, stdio: ['ignore', 'inherit', 'inherit'] });
  if (done.status !== 0) throw new NotBuilt(`${what} ${done.error?.message ?? 'does not compile'}`);
}

const changedMs = (path: string): number => (existsSync(path) ? statSync(path).mtimeMs : 0);
const headersMs = (): number =>
  readdirSync(join(packageRoot, 'native'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.h'))
    .reduce((latest, file) => Math.max(latest, changedMs(join(packageRoot, 'native', file))), 0);

/** The object of a source, made if a source or any header is newer. */
function compile(clang: string, source: string): string {
  const object = join(packageRoot, 'build/fuzz/objects', `${source.replaceAll(/[/.]/g, '_')}.o`);
  mkdirSync(dirname(object), { recursive: true });
  const path = join(packageRoot, source);
  const newest = Math.max(changedMs(source.startsWith('/') ? source : path), headersMs());
  if (changedMs(object) > newest) return object;
  const own = !source.startsWith(lz4Dir) && !source.includes('/pfn/');
  const args = [
    ...['-g', '-O2', '-fsanitize=fuzzer-no-link', ...sanitizers, ...(own ? [] : thirdParty)],
    ...(source.endsWith('.c') ? [] : ['-std=c++17', '-fno-strict-aliasing']),
    ...(source.endsWith('.c') ? [] : ['-DLZ4_STATIC_LINKING_ONLY']),
    ...(pfnFlags[source] ?? []),
    ...['-Inative', '-Inative/third_party', `-I${lz4Dir}`, '-DLZ4LIB_VISIBILITY='],
  ];
  run(clang, [...args, '-c', source, '-o', object], source);
  return object;
}

/** Builds a target; returns its program. Throws NotBuilt. */
export function buildNative(clang: string, name: string, target: NativeTarget): string {
  const objects = [inFile(name), ...target.sources].map((source) => compile(clang, source));
  const program = join(packageRoot, 'build/fuzz', name, 'program');
  mkdirSync(dirname(program), { recursive: true });
  const args = [
    '--driver-mode=g++',
    '-fsanitize=fuzzer',
    ...sanitizers,
    ...objects,
    '-lpthread',
    '-o',
    program,
  ];
  run(clang, args, name);
  return program;
}

async function start(program: string, args: readonly string[]): Promise<{ good: boolean; said: string }> {
  const env = {
    ...process.env,
    UBSAN_OPTIONS: 'print_stacktrace=1',
    ASAN_OPTIONS: 'detect_leaks=1:quarantine_size_mb=8',
  };
  const options = { cwd: packageRoot, env, maxBuffer: 2 ** 28 };
  return promisify(execFile)(program, args, options).then(
    ({ stderr }) => ({ good: true, said: stderr }),
    (thrown: unknown) => {
      const { stderr, message } = thrown as ExecFileException;
      return { good: false, said: `${message}\n${stderr ?? ''}` };
    },
  );
}

/** libFuzzer's word for no limit. */
const orNone = (limit: number, none: number): number => (Number.isFinite(limit) ? limit : none);

/** Runs what was built. */
export async function fuzzNative(
  program: string,
  name: string,
  target: NativeTarget,
  { seconds, executions, seed }: Bounds,
): Promise<Outcome> {
  const { kept, grown, found } = placesOf(name);
  for (const path of [grown, found]) mkdirSync(path, { recursive: true });
  const startedMs = performance.now();
  const { good, said } = await start(program, [
    ...target.options,
    ...[
      `-max_total_time=${orNone(seconds, 0)}`,
      `-runs=${orNone(executions, -1)}`,
      `-timeout=${slowestMs / 1000}`,
      `-rss_limit_mb=${mostResidentMib}`,
    ],
    ...['-print_final_stats=1', '-verbosity=0', '-reload=0', `-seed=${seed}`, `-artifact_prefix=${found}/`],
    ...[grown, ...(existsSync(kept) ? [kept] : [])],
  ]);
  return {
    executions: Number(/^stat::number_of_executed_units:\s*(\d+)/m.exec(said)?.[1] ?? 0),
    seconds: (performance.now() - startedMs) / 1000,
    found: good ? null : `${found}\n${said}`,
  };
}

/** Puts into the empty folder `to` as few inputs of the corpus as reach all that it reaches. Throws NotBuilt. */
export async function mergeNative(
  clang: string,
  name: string,
  target: NativeTarget,
  to: string,
): Promise<void> {
  const program = buildNative(clang, name, target);
  const { kept, grown } = placesOf(name);
  const from = [kept, grown].filter((dir) => existsSync(dir));
  const { good, said } = await start(program, [...target.options, '-set_cover_merge=1', to, ...from]);
  if (!good) throw new NotBuilt(`${name}: ${said}`);
}
