/**
 * Progress of a long operation, on stderr. On a terminal a bar, drawn only once the work has taken a second; elsewhere a
 * plain line every five seconds, as logs like it; nothing when quiet.
 */
import cliProgress from 'cli-progress';
import type { PageCounts, Progress } from '../domain/progress.js';
import { formatBytes, formatCount, formatDuration } from './units.js';

const pageBytes = 4096;
const barAfterMs = 1000;
const lineEveryMs = 5000;

export interface ProgressOptions {
  readonly stream: NodeJS.WriteStream | NodeJS.WritableStream;
  /** What is going on, in front of each line: "save web1". */
  readonly title: string;
  readonly style: 'bar' | 'lines' | 'none';
}

export interface ProgressView {
  report(progress: Progress): void;
  /** Removes the bar; to be called on every way out. Idempotent. */
  stop(): void;
}

const classWords: readonly (readonly [keyof PageCounts, string])[] = [
  ['data', 'data'],
  ['zero', 'zero'],
  ['table', 'tables'],
  ['noFrame', 'no frame'],
  ['broken', 'broken'],
  ['alloc', 'alloc'],
  ['sameAsParent', 'same'],
];

/** "data 182,112  zero 65,536": the classes that occur. */
export function renderClasses(counts: Readonly<PageCounts>): string {
  return classWords
    .filter(([name]) => counts[name] > 0)
    .map(([name, word]) => `${word} ${formatCount(counts[name])}`)
    .join('  ');
}

interface Figures {
  readonly percent: number;
  readonly done: string;
  readonly total: string;
  readonly rate: string;
  readonly eta: string;
  readonly classes: string;
}

/** Rate and ETA are of the whole operation so far: steady beats fresh. */
export function progressFigures(progress: Progress): Figures {
  const { donePages, totalPages, elapsedMs } = progress;
  const pagesPerMs = elapsedMs > 0 ? donePages / elapsedMs : 0;
  const left = Math.max(0, totalPages - donePages);
  return {
    percent: totalPages > 0 ? Math.min(100, Math.floor((donePages * 100) / totalPages)) : 0,
    done: formatBytes(donePages * pageBytes),
    total: formatBytes(totalPages * pageBytes),
    rate: `${formatBytes(Math.round(pagesPerMs * pageBytes * 1000))}/s`,
    eta: pagesPerMs > 0 ? formatDuration(left / pagesPerMs) : '?',
    classes: renderClasses(progress.counts),
  };
}

/** One plain line, as written where stderr is no terminal. */
export function progressLine(title: string, progress: Progress): string {
  const figures = progressFigures(progress);
  const parts = [
    `${title}: ${progress.phase} ${figures.percent}%`,
    `${figures.done}/${figures.total}`,
    figures.rate,
    `eta ${figures.eta}`,
    figures.classes,
  ];
  return `${parts.filter((part) => part !== '').join('  ')}\n`;
}

export function createProgress(options: ProgressOptions): ProgressView {
  if (options.style === 'none') return { report: () => undefined, stop: () => undefined };
  return options.style === 'bar' ? bar(options) : lines(options);
}

function lines({ stream, title }: ProgressOptions): ProgressView {
  let nextMs = lineEveryMs;
  return {
    report(progress) {
      if (progress.elapsedMs < nextMs) return;
      nextMs = progress.elapsedMs + lineEveryMs;
      stream.write(progressLine(title, progress));
    },
    stop: () => undefined,
  };
}

function bar({ stream, title }: ProgressOptions): ProgressView {
  const view = new cliProgress.SingleBar({
    stream: stream,
    format: '{title}  {phase}  {bar} {percent}%  {done}/{size}  {rate}  eta {left}  {classes}',
    barsize: 24,
    fps: 10,
    hideCursor: true,
    clearOnComplete: true,
    linewrap: false,
    gracefulExit: false,
  });
  let started = false;
  return {
    report(progress) {
      if (!started && progress.elapsedMs < barAfterMs) return;
      const { eta, total, ...figures } = progressFigures(progress);
      const payload = { title, phase: progress.phase, ...figures, size: total, left: eta };
      if (!started) view.start(Math.max(1, progress.totalPages), progress.donePages, payload);
      else view.update(progress.donePages, payload);
      view.setTotal(Math.max(1, progress.totalPages));
      started = true;
    },
    stop() {
      if (started) view.stop();
      started = false;
    },
  };
}
