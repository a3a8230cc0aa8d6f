/** Holds the directions of imports: cli → (save, restore, ...) → (image, host, ...) → pfn. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { packageRoot } from '../../src/addon.js';

/** Top to bottom; a folder imports from layers below it, and from its own layer where that makes no circle. */
const layers: readonly (readonly string[])[] = [
  ['cli', 'demo', 'helper'],
  ['render'],
  ['save', 'restore', 'checkpoint', 'rollback', 'bisect', 'transfer', 'convert', 'digest', 'dump', 'diff'],
  ['protect'],
  ['capture', 'store'],
  ['xenstream', 'host', 'worker', 'trust', 'disks'],
  ['image'],
  ['domain'],
  ['pfn', 'codec'],
];
/** Not to be imported even where the layers would allow it. */
const forbidden: readonly (readonly [from: string, to: RegExp, why: string])[] = [
  ['image', /^src\/(host|domain\/(?!progress|type\.)|worker)\//u, 'images know nothing of hosts'],
  [
    'xenstream',
    /^src\/(host|domain\/(?!progress|type\.|hvm_context)|worker)\//u,
    'streams know nothing of hosts',
  ],
  ['restore', /^src\/save\//u, 'an image is read without the code that wrote it'],
  ['save', /^src\/restore\//u, 'an image is written without the code that reads it'],
];
const engine = [
  'save',
  'restore',
  'checkpoint',
  'rollback',
  'bisect',
  'transfer',
  'convert',
  'digest',
  'dump',
  'diff',
  'capture',
];

interface Import {
  readonly file: string;
  readonly target: string;
  readonly typeOnly: boolean;
}

function files(dir: string, ends: RegExp): string[] {
  return readdirSync(join(packageRoot, dir), { recursive: true, encoding: 'utf8' })
    .filter((name) => ends.test(name))
    .map((name) => join(dir, name))
    .sort();
}

function imports(file: string): Import[] {
  const text = readFileSync(join(packageRoot, file), 'utf8');
  const statements = text.matchAll(
    /(import|export)\s+(type\s)?[^;'"]*?from\s+'(\.[^']+)'|import\(\s*'(\.[^']+)'\s*\)/gu,
  );
  return [...statements].map(([, , type, from, dynamic]) => ({
    file,
    target: normalize(join(dirname(file), from ?? dynamic ?? '')).replace(/\.js$/u, '.ts'),
    typeOnly: type !== undefined,
  }));
}

function folder(file: string): string {
  return file.split('/')[1] ?? '';
}

const all = files('src', /\.ts$/u).flatMap(imports);
const level = (name: string): number => layers.findIndex((names) => names.includes(name));

test('each folder of src/ has its layer', () => {
  for (const entry of readdirSync(join(packageRoot, 'src'), { withFileTypes: true }))
    if (entry.isDirectory()) assert.notEqual(level(entry.name), -1, entry.name);
  assert.ok(all.length > 100, `only ${all.length} imports found`);
});

test('imports point downwards', () => {
  for (const { file, target } of all) {
    const [from, to] = [folder(file), folder(target)];
    if (!file.includes('/', 4)) assert.ok(!target.includes('/', 4), `${file} imports ${target}`);
    else if (target.includes('/', 4)) assert.ok(level(to) >= level(from), `${file} imports ${target}`);
    for (const [folderName, pattern, why] of forbidden)
      if (from === folderName) assert.doesNotMatch(target, pattern, `${file} imports ${target}: ${why}`);
  }
});

test('no engine file knows which host it has', () => {
  for (const { file, target } of all)
    if (engine.includes(folder(file)))
      assert.doesNotMatch(target, /^src\/host\/(embedded|xen|open)/u, `${file} imports ${target}`);
});

/** Folders on the way from one to itself, by imports between any folders below src/; types count, for they are read too. */
function circleOf(edges: ReadonlyMap<string, ReadonlySet<string>>): string | undefined {
  const done = new Set<string>();
  const visit = (name: string, path: readonly string[]): string | undefined => {
    if (path.includes(name)) return [...path, name].join(' -> ');
    if (done.has(name)) return undefined;
    for (const next of edges.get(name) ?? []) {
      const found = visit(next, [...path, name]);
      if (found !== undefined) return found;
    }
    done.add(name);
    return undefined;
  };
  return [...edges.keys()].map((name) => visit(name, [])).find((found) => found !== undefined);
}

test('no circle of folders, down to the innermost', () => {
  const edges = new Map<string, Set<string>>();
  for (const { file, target } of all) {
    const [from, to] = [dirname(file), dirname(target)];
    if (from !== to) edges.set(from, (edges.get(from) ?? new Set()).add(to));
  }
  assert.ok(edges.size > 15, `only ${edges.size} folders found`);
  assert.equal(circleOf(edges), undefined);
});

/** What the C++ files of a folder may include. Page types and frame maps are plain words of pfn/page_words.h. */
const includes: Readonly<Record<string, RegExp>> = {
  'native/pfn': /^(pfn\/|fault\.h$|xxhash\.h$)/u,
  'native/codec': /^(codec\/|fault\.h$|lz4\.h$|xxhash\.h$)/u,
  'native/image': /^(image\/|codec\/|pfn\/|host\/host\.h$|fault\.h$|guard\.h$|xxhash\.h$)/u,
  'native/step':
    /^(step\/|image\/|codec\/|pfn\/|host\/(host|stopped_work)\.h$|fault\.h$|guard\.h$|xxhash\.h$)/u,
  'native/limits': /^(limits\/|codec\/|pfn\/|fault\.h$|xxhash\.h$)/u,
  'native/host': /^(host\/|pfn\/|fault\.h$|guard\.h$|xxhash\.h$)/u,
};

/** The N-API surface of a host, beside it. */
const surface = /^native\/host\/\w+\/binding\//u;

test('native/pfn and native/codec know nothing of images or hosts, native/image nothing of hosts', () => {
  let seen = 0;
  for (const [dir, allowed] of Object.entries(includes))
    for (const file of files(dir, /\.(cc|h)$/u)) {
      const text = readFileSync(join(packageRoot, file), 'utf8');
      for (const [, target = ''] of text.matchAll(/^#include "([^"]+)"/gmu)) {
        seen++;
        if (surface.test(file) && /^(binding\/|guard\.h$)/u.test(target)) continue;
        assert.match(target, allowed, `${file} includes ${target}`);
      }
    }
  assert.ok(seen > 10, `only ${seen} includes found`);
});

test('no circle of native folders', () => {
  const edges = new Map<string, Set<string>>();
  for (const file of files('native', /\.(cc|h)$/u)) {
    const text = readFileSync(join(packageRoot, file), 'utf8');
    for (const [, target = ''] of text.matchAll(/^#include "([^"]+\/[^"]+)"/gmu)) {
      const [from, to] = [dirname(file), join('native', dirname(target))];
      if (from !== to) edges.set(from, (edges.get(from) ?? new Set()).add(to));
    }
  }
  assert.ok(edges.size > 8, `only ${edges.size} folders found`);
  assert.equal(circleOf(edges), undefined);
});
