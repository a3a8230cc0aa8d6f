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

const end = '<!-- end of figures -->';

/** Replaces everything up to the end mark of the file; what follows it is written by hand and kept. */
export function writeReport(
  path: string,
  figures: readonly Figure[],
  mixture: string,
  command: string,
): void {
  const limits = figures.filter(({ name }) => name.startsWith('limit.'));
  const results = figures.filter(({ name }) => !name.startsWith('limit.'));
  const lines = [
    '# Performance',
    '',
    `Written by \`${command}\` on ${new Date().toISOString().slice(0, 10)}. Machine: ${machine()}.`,
    'A ratio is the figure by its limit, both measured in the same run; figures of other runs and machines do not compare.',
    '',
    `Memory of the guest that is saved and restored: ${mixture}.`,
    '',
    '| figure | ratio | value | limit | bar | | note |',
    '| --- | --- | --- | --- | --- | --- | --- |',
    ...results.map(row),
    '',
    'Limits of this machine:',
    '',
    '| limit | value |',
    '| --- | --- |',
    ...limits.map(({ name, value, unit }) => `| ${name.slice(6)} | ${cell(value)} ${unit} |`),
    '',
    end,
  ];
  let kept = '\n';
  try {
    kept = readFileSync(path, 'utf8').split(end)[1] ?? '\n';
  } catch {
    // The first report has nothing to keep.
  }
  writeFileSync(path, lines.join('\n') + kept);
}
