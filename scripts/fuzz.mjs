// Fuzzes native code with clang's libFuzzer under AddressSanitizer and UndefinedBehaviorSanitizer.
// usage: fuzz.mjs [TARGET] [SECONDS]   every target for 30 seconds each when neither is given
// What a target finds is kept in build/fuzz/TARGET/found; its corpus grows in build/fuzz/TARGET/corpus.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);
const lz4Dir = join(dirname(require.resolve('lz4/package.json')), 'deps/lz4/lib');

const pageKernels = ['native/pfn/kernels.cc', 'native/pfn/scalar.cc'];
const simd = {
  'native/pfn/kernels_avx2.cc': ['-mavx2', '-mbmi', '-mbmi2'],
  'native/pfn/kernels_avx512.cc': [
    ...['-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq', '-mavx2', '-mbmi', '-mbmi2'],
  ],
};
const lz4 = ['native/codec/lz4.cc', join(lz4Dir, 'lz4.c')];

/** What each target is made of besides its own native/fuzz/NAME.cc. */
const targets = {
  page_table: { sources: [...pageKernels, ...Object.keys(simd)], options: ['-max_len=4096'] },
  lz4: { sources: lz4, options: ['-max_len=70000', '-len_control=20'] },
  chunk: { sources: ['native/image/chunk.cc', ...lz4], options: ['-max_len=20000'] },
  page_map: {
    sources: ['native/image/page_map.cc', 'native/image/chunk.cc', ...lz4],
    options: ['-max_len=20000'],
  },
};

const sanitizers = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-fno-omit-frame-pointer'];
// LZ4's and xxHash's own C does unaligned and null-plus-zero arithmetic on purpose.
const thirdParty = ['-fno-sanitize=alignment,pointer-overflow,unsigned-integer-overflow'];

function fail(text, status = 1) {
  console.error(`fuzz: ${text}`);
  process.exit(status);
}

/** clang with its fuzzer runtime, found by linking an empty target. */
function findClang() {
  for (const clang of ['clang-14', 'clang']) {
    const empty =
      'int LLVMFuzzerTestOneInput(const unsigned char*d,unsigned long n){(void)d;(void)n;return 0;}';
    const tried = spawnSync(clang, ['-fsanitize=fuzzer,address,undefined', '-xc', '-', '-o', '/dev/null'], {
      input: empty,
    });
    if (!tried.error && tried.status === 0) return clang;
  }
  fail(
    'needs clang with libFuzzer. On Debian or Ubuntu: sudo apt-get install -y clang-14 libclang-rt-14-dev',
    5,
  );
}

function run(command, args, options = {}) {
  const done = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options });
  if (done.error) fail(`${command}: ${done.error.message}`);
  return done.status;
}

function compile(clang, source, object) {
  const own = !source.startsWith(lz4Dir) && !source.includes('/pfn/');
  const language = source.endsWith('.c') ? [] : ['-std=c++17', '-fno-exceptions', '-fno-strict-aliasing'];
  const includes = [`-Inative`, '-Inative/third_party', `-I${lz4Dir}`];
  const args = [
    ...['-g', '-O1', '-fsanitize=fuzzer-no-link', ...sanitizers, ...(own ? [] : thirdParty)],
    ...[...language, ...(simd[source] ?? []), ...includes, '-DLZ4LIB_VISIBILITY='],
  ];
  if (!source.endsWith('.c')) args.push('-DLZ4_STATIC_LINKING_ONLY');
  if (run(clang, [...args, '-c', source, '-o', object]) !== 0) fail(`${source} does not compile`);
}

function link(clang, name, target, dir) {
  const sources = [`native/fuzz/${name}.cc`, ...target.sources];
  const objects = sources.map((source, i) => {
    const object = join(dir, `${i}.o`);
    compile(clang, source, object);
    return object;
  });
  const program = join(dir, name);
  const args = [
    '--driver-mode=g++',
    '-fsanitize=fuzzer',
    ...sanitizers,
    ...objects,
    '-lpthread',
    '-o',
    program,
  ];
  if (run(clang, args) !== 0) fail(`${name} does not link`);
  return program;
}

function fuzz(clang, name, seconds) {
  const dir = join(root, 'build/fuzz', name);
  const corpus = join(dir, 'corpus');
  const found = join(dir, 'found');
  for (const path of [corpus, found]) mkdirSync(path, { recursive: true });
  const target = targets[name];
  const program = link(clang, name, target, dir);
  console.log(`fuzz: ${name} for ${seconds} s`);
  const options = [
    `-max_total_time=${seconds}`,
    ...['-rss_limit_mb=1024', '-timeout=10', '-print_final_stats=1', '-verbosity=0'],
    `-artifact_prefix=${found}/`,
  ];
  const env = { ...process.env, UBSAN_OPTIONS: 'print_stacktrace=1', ASAN_OPTIONS: 'detect_leaks=1' };
  const done = spawnSync(program, [...target.options, ...options, corpus], {
    ...{ cwd: root, env, encoding: 'utf8', maxBuffer: 2 ** 28 },
  });
  const good = !done.error && done.status === 0;
  const lines = done.stderr.split('\n');
  console.log((good ? lines.filter((line) => /^stat::number_of_executed/.test(line)) : lines).join('\n'));
  console.log(`fuzz: ${name} ${good ? 'found nothing' : `FAILED; see ${found}`}`);
  return good;
}

const args = process.argv.slice(2);
const seconds = Number(args.find((arg) => /^\d+$/.test(arg)) ?? 30);
const named = args.filter((arg) => !/^\d+$/.test(arg));
const unknown = named.filter((name) => !Object.hasOwn(targets, name));
if (unknown.length > 0 || seconds < 1)
  fail(`usage: npm run fuzz -- [${Object.keys(targets).join(' | ')}] [SECONDS]`, 2);
if (!existsSync(lz4Dir)) fail('run `npm ci --ignore-scripts` first');
const missing = readdirSync(join(root, 'native/fuzz')).filter(
  (file) => file.endsWith('.cc') && !Object.hasOwn(targets, file.slice(0, -3)),
);
if (missing.length > 0) fail(`native/fuzz/${missing.join(', ')} is in no target`);
const clang = findClang();
const results = (named.length > 0 ? named : Object.keys(targets)).map((name) => fuzz(clang, name, seconds));
process.exit(results.every(Boolean) ? 0 : 1);
