/**
 * Calls every exported native function with arguments of which some are junk, in this one process, and prints what came of
 * it as JSON: usage: native_calls_child.js DIR SEED CALLS. Prints each call to standard error first where DORMOUSE_SAY is set.
 */
import { createRequire } from 'node:module';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { addon, packageRoot } from '../../src/addon.js';
import { isErrorCode } from '../../src/errors.js';
import { random } from './images.js';
import { type Arguments, newWorld, type World } from './native_world.js';

type Function = (...args: unknown[]) => unknown;

const namespaces = [
  ...[
    'pfn',
    'codec',
    'image',
    'hypervisor',
    'embedded',
    'step',
    'limits',
    'fileLock',
    'disk',
    'output',
    'pageStream',
  ],
];

/** Of the xen host's addon too, where it is built: without Xen, none of its calls gets far. */
function exported(): Map<string, Function> {
  const found = new Map<string, Function>();
  const take = (prefix: string, from: object): void => {
    for (const [name, value] of Object.entries(from))
      if (typeof value === 'function') found.set(`${prefix}.${name}`, value as Function);
  };
  for (const name of namespaces) take(name, addon(name) as object);
  const dir = join(packageRoot, 'build/Release');
  const xen = existsSync(dir)
    ? readdirSync(dir).find((name) => /^dormouse_xen_.*\.node$/u.test(name))
    : undefined;
  if (xen !== undefined) take('xen', createRequire(import.meta.url)(join(dir, xen)) as object);
  return found;
}

const hostile = new Proxy(
  {},
  {
    get: () => {
      throw new RangeError('a getter that throws');
    },
  },
);

/** Small enough to be had at once, or more than any machine has: what lies between would only take long. */
const numbers = [
  ...[0, 1, 2, 3, 7, 63, 64, 65, 511, 512, 1024, 1025, 4096, 50_000, 1_000_000, -1, 0.5, NaN, Infinity, -0],
  ...[2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 40, 2 ** 52, 2 ** 53, 2 ** 53 + 2, 2 ** 63, 1e300],
];

function junk(next: (below: number) => number, { handles, right }: World): unknown {
  const kinds: (() => unknown)[] = [
    () => numbers[next(numbers.length)],
    () => numbers[next(numbers.length)],
    () => (handles[next(handles.length)] ?? 0) + (next(4) === 0 ? next(3) - 1 : 0),
    () => 2 ** 32 * next(16) + next(6),
    () => [undefined, null, true, false, 5n, -1n, 2n ** 70n, Symbol('s'), () => undefined][next(9)],
    () => ['', 'live', '/no/where/at/all', 'a\0b', 'x'.repeat(5000), 'scalar'][next(6)],
    () => Buffer.alloc([0, 1, 15, 16, 4095, 4096, 8192, 5168, 100_000][next(9)] ?? 0, next(256)),
    () => BigUint64Array.from({ length: next(5) }, () => BigInt(next(2 ** 31)) << BigInt(next(40))),
    () => Uint8Array.from({ length: next(5) }, () => next(256)),
    () => Float64Array.from({ length: next(4) }, () => numbers[next(numbers.length)] ?? 0),
    () => [new Uint16Array(3), new DataView(new ArrayBuffer(8)), new ArrayBuffer(8), new Map()][next(4)],
    () =>
      [{}, [], [[]], [null], [1, -1, NaN], [[0, 2 ** 40]], [{ pfn: 2 ** 40, level: 9 }], hostile][next(8)],
    () => {
      const names = Object.keys(right);
      const other = right[names[next(names.length)] ?? ''] ?? [];
      return other[next(Math.max(1, other.length))];
    },
    () => {
      const objects = Object.values(right)
        .flat()
        .filter((value): value is object => typeof value === 'object' && value?.constructor === Object);
      const copy = { ...objects[next(objects.length)] } as Record<string, unknown>;
      const keys = Object.keys(copy);
      copy[keys[next(keys.length)] ?? ''] = numbers[next(numbers.length)];
      return copy;
    },
  ];
  return kinds[next(kinds.length)]?.();
}

/** Where the call would do harm to this process, or only take long: descriptors that are libuv's, machines of many GiB. */
function harmless(name: string, args: readonly unknown[]): boolean {
  const isFd = (value: unknown): boolean =>
    typeof value === 'number' && value >= 0 && value < 2 ** 31 && value !== 1e6;
  if (name === 'pageStream.create') return !isFd(args[0]) || (args[0] as number) > 20;
  if (name === 'hypervisor.createMachine')
    return args[0] === hostile || ((args[0] as { frames?: number } | null | undefined)?.frames ?? 0) <= 4096;
  if (name.startsWith('limits.'))
    return !args.some((arg) => typeof arg === 'number' && arg >= 4096 && arg <= 2 ** 40);
  return true;
}

function mutated(right: Arguments, world: World, next: (below: number) => number): unknown[] {
  const args = [...right];
  const changes = next(8) === 0 ? 0 : 1 + next(2);
  for (let i = 0; i < changes; i++) args[next(args.length + 1)] = junk(next, world);
  if (next(12) === 0) args.length = next(args.length + 1);
  return args;
}

async function outcome(call: () => unknown): Promise<string> {
  try {
    const answer = call();
    await answer;
    return 'answer';
  } catch (thrown) {
    const { code } = thrown as { code?: unknown };
    if (!isErrorCode(code)) throw new Error(`no code of the list: ${String(thrown)}`, { cause: thrown });
    return code;
  }
}

const [dir = '', seed = '1', calls = '1000'] = process.argv.slice(2);
process.chdir(dir);
const next = random(Number(seed));
const functions = [...exported()];
const tally: Record<string, Record<string, number>> = {};
let world: World | undefined;
for (let i = 0; i < Number(calls); i++) {
  if (i % 400 === 0) world = await newWorld(dir, i);
  const known = world as World;
  const [name, call] = functions[i % functions.length] ?? ['', () => undefined];
  const right = known.right[name];
  const args = right ? mutated(right, known, next) : Array.from({ length: next(6) }, () => junk(next, known));
  if (!harmless(name, args)) continue;
  if (process.env['DORMOUSE_SAY'] !== undefined)
    process.stderr.write(`${i} ${name} ${args.map(say).join(', ')}\n`);
  const came = await outcome(() => call(...args)).catch((thrown: unknown) => {
    throw new Error(`${name}(${args.map(say).join(', ')})`, { cause: thrown });
  });
  const of = (tally[name] ??= {});
  of[came] = (of[came] ?? 0) + 1;
}

function say(value: unknown): string {
  if (value === hostile) return 'hostile';
  if (ArrayBuffer.isView(value)) return `${value.constructor.name}(${value.byteLength})`;
  if (typeof value === 'object' && value !== null) return Object.prototype.toString.call(value);
  return String(value).slice(0, 40);
}

process.stdout.write(JSON.stringify({ functions: functions.map(([name]) => name), tally }));
process.exit(0);
