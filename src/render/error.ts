/** How a failure is told: to people in lines, to programs as the last line of stderr. */
import type { DormouseError, ErrorPlace } from '../errors.js';
import { printable, printableLines } from './units.js';

const guestWords: Record<DormouseError['guest'], string> = {
  untouched: 'untouched',
  running: 'running',
  resumed: 'running again, after a pause',
  suspended: 'suspended',
  paused: 'paused',
  none: 'none',
  gone: 'gone',
  unknown: 'unknown',
};

function renderPlace(place: ErrorPlace): string {
  return Object.entries(place)
    .map(([name, value]) => `${name} ${printable(String(value as string | number))}`)
    .join(', ');
}

function causes(error: DormouseError): string[] {
  const lines: string[] = [];
  let cause = error.cause;
  while (cause instanceof Error && lines.length < 8) {
    if (cause.message !== error.message) lines.push(cause.message);
    cause = cause.cause;
  }
  return lines;
}

/** `verbose` adds the stack. */
export function renderError(error: DormouseError, verbose: boolean): string {
  const place = renderPlace(error.place);
  const lines = [
    `dormouse: ${error.message}`,
    ...error.details.map((line) => `  ${printable(line)}`),
    ...causes(error).map((message) => `  cause: ${message}`),
    ...(place === '' ? [] : [`  where: ${place}`]),
    `  guest: ${guestWords[error.guest]}`,
    `  advice: ${error.advice}`,
    ...(verbose && error.stack !== undefined ? [error.stack] : []),
  ];
  return lines.map((line) => `${printableLines(line)}\n`).join('');
}

export function errorDocument(error: DormouseError): Record<string, unknown> {
  return {
    type: 'exit_error',
    code: error.exitCode,
    name: error.code,
    guest: error.guest,
    message: error.message,
    advice: error.advice,
    ...(Object.keys(error.place).length > 0 && { place: error.place }),
    ...(error.details.length > 0 && { details: error.details }),
    ...(error.done && { done: error.done }),
  };
}
