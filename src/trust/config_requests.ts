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

/** What libxl would be given of it; null where that is nothing, as of a domain that libxl did not make. */
function libxlPart(config: string): Record<string, unknown> | null {
  try {
    const parsed: unknown = JSON.parse(withoutTrailingNuls(config));
    if (!isObject(parsed)) return null;
    // As an object's own property it is text like any other; whoever copies it sets a prototype.
    return 'c_info' in parsed || Object.hasOwn(parsed, '__proto__') ? parsed : null;
  } catch {
    return null;
  }
}

/**
 * The values that are used only if the configuration is trusted. A host that has no use for libxl's configuration is asked
 * all the same: images that it makes carry it on, under its signature.
 */
export function configRequests(domain: ConfiguredDomain): ConfigRequests {
  const values: string[] = [];
  let more = 0;
  const add = (value: string): void => {
    if (values.length < mostShown) values.push(value);
    else more++;
  };
  // Of it the names of log files are made.
  if (domain.name !== null && !plainName.test(domain.name))
    add(`name = ${shorten(JSON.stringify(domain.name))}`);
  if (domain.config.length > longestConfig) {
    add(`a configuration of ${domain.config.length} characters, too long to be judged`);
    return { values, more };
  }
  const config = libxlPart(domain.config);
  if (config) for (const value of beyond(config, allowedOf(domain.type), '')) add(value);
  return { values, more };
}
