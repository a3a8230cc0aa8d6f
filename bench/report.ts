/** docs/performance.md, written from the figures of a run: ratios first. */
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import type { Figure } from './figure.js';

function machine(): string {
  const model = cpus()[0]?.model.trim() ?? 'unknown processor';
  const gib = Math.round(totalmem() / 2 ** 30);
  return `${cpus().length} × ${model}, ${gib} GiB, Linux ${release()}, Node.js ${process.versions.node}`;
}

const cell = (value: number | undefined): string =>
  value === undefined ? '' : Number(value.toPrecision(3)).toString();

function row(figure: Figure): string {
  const met = figure.met === undefined ? '' : figure.met ? 'met' : '**missed**';
  const cells = [
    figure.name,
    cell(figure.ratio),
    `${cell(figure.value)} ${figure.unit}`,
    figure.limitName === undefined ? '' : `${cell(figure.limit)} (${figure.limitName})`,
    figure.bar ?? '',
    met,
    figure.note ?? '',
  ];
  return `| ${cells.join(' | ')} |`;
}

const table = (figures: readonly Figure[]): string[] => [
  '| figure | ratio | value | limit | bar | | note |',
  '| --- | --- | --- | --- | --- | --- | --- |',
  ...figures.map(row),
];

const written = (command: string): string =>
  `Written by \`${command}\` on ${new Date().toISOString().slice(0, 10)}. Machine: ${machine()}.`;

/** Replaces one marked part of the file, or adds it; all else is written by hand and kept. */
function replacePart(path: string, part: 'engine' | 'points' | 'xen', lines: readonly string[]): void {
  const [begin, end] = [`<!-- begin of ${part} figures -->`, `<!-- end of ${part} figures -->`];
  let old = '# Performance\n';
  try {
    old = readFileSync(path, 'utf8');
  } catch {
    // The first report makes the file.
  }
  const fresh = [begin, '', ...lines, '', end].join('\n');
  const [from, to] = [old.indexOf(begin), old.indexOf(end)];
  const whole =
    from < 0 || to < from ? `${old}\n${fresh}\n` : old.slice(0, from) + fresh + old.slice(to + end.length);
  writeFileSync(path, whole);
}

/** The engine on the embedded host, and the limits of the machine. */
export function writeEngineReport(
  path: string,
  figures: readonly Figure[],
  mixture: string,
  command: string,
): void {
  const limits = figures.filter(({ name }) => name.startsWith('limit.'));
  replacePart(path, 'engine', [
    written(command),
    '',
    `Memory of the guest that is saved and restored: ${mixture}.`,
    '',
    ...table(figures.filter(({ name }) => !name.startsWith('limit.'))),
    '',
    'Limits of this machine:',
    '',
    '| limit | value |',
    '| --- | --- |',
    ...limits.map(({ name, value, unit }) => `| ${name.slice(6)} | ${cell(value)} ${unit} |`),
  ]);
}

/** dormouse beside xl, on a Xen host of the lab. */
export function writeXenReport(path: string, figures: readonly Figure[], command: string): void {
  replacePart(path, 'xen', [written(command), '', ...table(figures)]);
}

/** Points in time on the embedded host. */
export function writePointsReport(path: string, figures: readonly Figure[], command: string): void {
  replacePart(path, 'points', [written(command), '', ...table(figures)]);
}
