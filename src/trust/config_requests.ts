/** What a configuration asks of the host beyond the allow-list: each value by its place. */
import { allowedOf, type ConfiguredDomain, plainName, type Shape } from './config_rules.js';
import { withoutTrailingNuls } from '../domain/trailing_nuls.js';

export interface ConfigRequests {
  /** `disks[0].pdev_path = "/dev/sda"`, in the order of the configuration; at most `mostShown`. */
  readonly values: readonly string[];
  /** How many more there are. */
  readonly more: number;
}

const mostShown = 100;
const longestText = 160;
const deepest = 8;
/** Characters. What xl writes of a domain with hundreds of devices is a tenth of it. */
const longestConfig = 1 << 20;

const shorten = (words: string): string =>
  words.length <= longestText ? words : `${words.slice(0, longestText)}...`;
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Every value below, by its place; what lies too deep is one value. */
function* leaves(value: unknown, place: string, depth = 0): Generator<string> {
  const inner: readonly (readonly [string, unknown])[] = Array.isArray(value)
    ? value.map((item, at) => [`${place}[${at}]`, item] as const)
    : isObject(value)
      ? Object.entries(value).map(([key, item]) => [`${place}.${shorten(key)}`, item] as const)
      : [];
  if (inner.length === 0) yield `${place} = ${shorten(JSON.stringify(value))}`;
  if (depth >= deepest && inner.length > 0) {
    yield `${place} = (nested deeply)`;
    return;
  }
  for (const [name, item] of inner) yield* leaves(item, name, depth + 1);
}

/** An empty list names nothing, under a name that libxl reads as it stands. */
const isNothing = (key: string, value: unknown): boolean =>
  /^[\w.]{1,64}$/.test(key) && (value === null || (Array.isArray(value) && value.length === 0));

function* beyond(value: Record<string, unknown>, shape: Shape, place: string): Generator<string> {
  for (const [key, held] of Object.entries(value)) {
    if (isNothing(key, held)) continue;
    const name = `${place}${shorten(key)}`;
    const rule = Object.hasOwn(shape, key) ? shape[key] : undefined;
    if (typeof rule === 'function') {
      if (!rule(held)) yield* leaves(held, name);
    } else if (rule !== undefined && isObject(held)) yield* beyond(held, rule, `${name}.`);
    else yield* leaves(held, name);
  }
}

function jsonObject(config: string): Record<string, unknown> | null {
  try {
    const parsed: unknown = JSON.parse(withoutTrailingNuls(config));
    return isObject(parsed) ? parsed : null;
  } catch {
    return null;
  }
}

/** What libxl would be given of it; null where that is nothing, as of a domain that libxl did not make. */
function libxlPart(config: string): Record<string, unknown> | null {
  const parsed = jsonObject(config);
  // As an object's own property it is text like any other; whoever copies it sets a prototype.
  return parsed && ('c_info' in parsed || Object.hasOwn(parsed, '__proto__')) ? parsed : null;
}

/** Of all objects in it; without recursion, as it may be nested as deeply as it is long. */
function fieldCount(whole: unknown): number {
  const left: unknown[] = [whole];
  let count = 0;
  for (let value = left.pop(); value !== undefined; value = left.pop()) {
    if (typeof value !== 'object' || value === null) continue;
    if (!Array.isArray(value)) count += Object.keys(value).length;
    for (const held of Object.values(value)) left.push(held);
  }
  return count;
}

/** Every string of a JSON text, as a whole; with the colon behind it where it names a field. */
const jsonStrings = /"(?:[^"\\]|\\.)*"(\s*:)?/gsu;

/** Whether an object of JSON names some field twice: of the two libxl takes the first, JSON.parse the last. */
function namesTwice(config: string, parsed: Record<string, unknown>): boolean {
  const named = [...config.matchAll(jsonStrings)].filter(([, colon]) => colon !== undefined);
  return named.length !== fieldCount(parsed);
}

const tooLong = (config: string): string =>
  `a configuration of ${config.length} characters, too long to be judged`;

/** All of them, of which as many are kept as are shown. */
function requests(all: Iterable<string>): ConfigRequests {
  const values: string[] = [];
  let more = 0;
  for (const value of all)
    if (values.length < mostShown) values.push(value);
    else more++;
  return { values, more };
}

function* ofFile({ type, config }: FileConfig): Generator<string> {
  if (config.length > longestConfig) {
    yield tooLong(config);
    return;
  }
  const parsed = jsonObject(config);
  if (!parsed) {
    yield 'a configuration that is no JSON object';
    return;
  }
  yield* beyond(parsed, allowedOf(type), '');
  if (namesTwice(withoutTrailingNuls(config), parsed)) yield 'a field that is named twice';
}

function* ofDomain({ name, type, config }: ConfiguredDomain): Generator<string> {
  // Of it the names of log files are made.
  if (name !== null && !plainName.test(name)) yield `name = ${shorten(JSON.stringify(name))}`;
  if (config.length > longestConfig) {
    yield tooLong(config);
    return;
  }
  const parsed = libxlPart(config);
  if (parsed) yield* beyond(parsed, allowedOf(type), '');
  else yield* ofGuestProgram(config);
}

/** The one thing that a guest program of the embedded host asks for: files to be its disks. */
function* ofGuestProgram(config: string): Generator<string> {
  const disks = jsonObject(config)?.disks;
  for (const disk of Array.isArray(disks) ? disks : []) yield `disks: ${shorten(JSON.stringify(disk))}`;
}

type FileConfig = Pick<ConfiguredDomain, 'type' | 'config'>;

/**
 * The same of the text in a file that libxl itself is going to read. What can be read in two ways, or by nobody here, is one of them.
 */
export const fileRequests = (file: FileConfig): ConfigRequests => requests(ofFile(file));

/**
 * The values that are used only if the configuration is trusted. A host that has no use for libxl's configuration is asked
 * all the same: images that it makes carry it on, under its signature.
 */
export const configRequests = (domain: ConfiguredDomain): ConfigRequests => requests(ofDomain(domain));
