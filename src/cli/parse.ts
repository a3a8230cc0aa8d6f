/** Values of options. Each function throws USAGE for a text that is not one. */
import { DormouseError } from '../errors.js';

function wholeNumber(text: string, what: string, lowest: number, highest: number): number {
  const value = /^[0-9]{1,15}$/u.test(text) ? Number(text) : NaN;
  if (!(value >= lowest && value <= highest))
    throw new DormouseError(
      'USAGE',
      `${what} is a whole number from ${lowest} to ${highest}, not ${JSON.stringify(text)}`,
    );
  return value;
}

/** --count */
export function parseCount(text: string): number {
  return wholeNumber(text, 'a count', 1, 1_000_000);
}

/** --interval, in ms. */
export function parseIntervalMs(text: string): number {
  return wholeNumber(text, 'an interval in milliseconds', 0, 86_400_000);
}

/** Seconds, whole or with a fraction, as milliseconds. */
export function parseSeconds(text: string): number {
  const value = /^[0-9]{1,6}(\.[0-9]{1,3})?$/u.test(text) ? Number(text) : NaN;
  if (!(value > 0 && value <= 86_400))
    throw new DormouseError(
      'USAGE',
      `a time is a number of seconds up to 86400, not ${JSON.stringify(text)}`,
    );
  return Math.round(value * 1000);
}

const timeFactors: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** `500ms`, `1s`, `2.5s`, `5m`, `1h`; in ms, at most a day. */
export function parseDurationMs(text: string): number {
  const [, digits, unit = ''] = /^([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m|h)$/u.exec(text) ?? [];
  const ms = Number(digits) * (timeFactors[unit] ?? NaN);
  if (digits === undefined || !(ms > 0 && ms <= 86_400_000))
    throw new DormouseError(
      'USAGE',
      `a time is a number with ms, s, m or h, such as 2s, of at most a day, not ${JSON.stringify(text)}`,
    );
  return ms;
}

const sizeFactors: Readonly<Record<string, number>> = {
  '': 1 << 20,
  K: 1 << 10,
  M: 1 << 20,
  G: 2 ** 30,
  T: 2 ** 40,
};

/** `4G`, `512M`, `8GiB`; a bare number is MiB, as in xl. In bytes, at most 64 TiB. */
export function parseSize(text: string): number {
  const [, digits, unit] = /^([0-9]{1,9}(?:\.[0-9]{1,3})?)([KMGT]?)(?:i?B)?$/iu.exec(text) ?? [];
  const bytes = Number(digits) * (sizeFactors[(unit ?? '').toUpperCase()] ?? NaN);
  if (digits === undefined || !(bytes >= 1 && bytes <= 2 ** 46))
    throw new DormouseError(
      'USAGE',
      `a size is a number with K, M, G or T, such as 4G, not ${JSON.stringify(text)}`,
    );
  return Math.floor(bytes);
}
