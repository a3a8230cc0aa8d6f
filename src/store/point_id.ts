/** Names of points: the UTC time at which it was taken, so that they sort as they came: `20261122-183512.123`. */
import { DormouseError } from '../errors.js';

/** Characters of each. */
export const pointIdLength = 19;
const form = /^(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)\.(\d{3})$/u;

export const pointIdOf = (ms: number): string =>
  new Date(ms).toISOString().replace(/[-:Z]/gu, '').replace('T', '-');

/** Milliseconds since 1970; NaN for what is no id. */
export function timeOfPointId(id: string): number {
  const [, year, month, day, hour, minute, second, ms] = form.exec(id) ?? [];
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}.${ms}Z`);
}

export const isPointId = (text: string): boolean => {
  const ms = timeOfPointId(text);
  return !Number.isNaN(ms) && pointIdOf(ms) === text;
};

/** That of now, but always after `previous`: clocks go backwards, chains do not. */
export function nextPointId(nowMs: number, previous: string | null): string {
  const least = previous === null ? 0 : timeOfPointId(previous) + 1;
  return pointIdOf(Math.max(nowMs, least));
}

function oneOf(found: readonly string[], typed: string, of: string): string {
  const [first, second] = found;
  if (first === undefined) throw new DormouseError('POINT_NOT_FOUND', `${of} has no point '${typed}'`);
  if (second !== undefined)
    throw new DormouseError(
      'POINT_NOT_FOUND',
      `'${typed}' is the beginning of ${found.length} points of ${of}`,
    );
  return first;
}

/**
 * What a user wrote: an id or how it begins, `latest`, `latest~2` (the second before it). POINT_NOT_FOUND. `ids`
 * ascending.
 */
export function selectPoint(ids: readonly string[], typed: string, of: string): string {
  const back = /^latest(?:~(\d{1,9}))?$/u.exec(typed);
  if (back)
    return oneOf(
      ids
        .slice()
        .reverse()
        .slice(Number(back[1] ?? 0))
        .slice(0, 1),
      typed,
      of,
    );
  const begins = ids.filter((id) => id.startsWith(typed));
  return begins.includes(typed) ? typed : oneOf(begins, typed, of);
}

/** `@TIME` as a user wrote it, in milliseconds since 1970; null for what is none. USAGE. */
export function timeTyped(typed: string): number | null {
  if (!typed.startsWith('@')) return null;
  const at = Date.parse(typed.slice(1));
  if (!Number.isNaN(at)) return at;
  throw new DormouseError('USAGE', `'${typed.slice(1)}' is no time, such as 2026-11-22T18:35`);
}
