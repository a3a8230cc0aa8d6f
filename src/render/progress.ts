/**
 * Progress of a long operation, on stderr. On a terminal a bar, drawn only once the work has taken a second; elsewhere a
 * plain line every five seconds, as logs like it; nothing when quiet.
 */
import cliProgress from 'cli-progress';
import type { PageCounts, Progress } from '../domain/progress.js';
import { formatBytes, formatCount, formatDuration } from './units.js';
import { pageBytes } from '../pfn/page_words.js';

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

export const classWords: readonly (readonly [keyof PageCounts, string])[] = [
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

/** Below this a rate says nothing yet. */
const ratedAfterMs = 250;

/**
 * Rate and time left are those of the phase at hand: what is checked before it, or waited for, says nothing of how fast it goes.
 * Within a phase they are of all of it so far: steady beats fresh.
 */
class PhaseRate {
  private since: Progress | undefined;
  private last: Progress | undefined;

  /** Has to see every report, in order. */
  figures(progress: Progress): Figures {
    const anew = progress.phase !== this.last?.phase || progress.donePages < this.last.donePages;
    if (anew || this.since === undefined) this.since = progress;
    this.last = progress;
    return progressFigures(progress, this.since);
  }
}

function progressFigures(progress: Progress, since: Progress): Figures {
  const { donePages, totalPages } = progress;
  const ms = progress.elapsedMs - since.elapsedMs;
  const pagesPerMs = ms >= ratedAfterMs ? (donePages - since.donePages) / ms : 0;
  const left = Math.max(0, totalPages - donePages);
  return {
    percent: totalPages > 0 ? Math.min(100, Math.floor((donePages * 100) / totalPages)) : 0,
    done: formatBytes(donePages * pageBytes),
    total: formatBytes(totalPages * pageBytes),
    rate: pagesPerMs > 0 ? `${formatBytes(Math.round(pagesPerMs * pageBytes * 1000))}/s` : '?/s',
    eta: pagesPerMs > 0 ? formatDuration(left / pagesPerMs) : '?',
    classes: renderClasses(progress.counts),
  };
}

/** One plain line, as written where stderr is no terminal. */
function progressLine(title: string, phase: string, figures: Figures): string {
  const parts = [
    `${title}: ${phase} ${figures.percent}%`,
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
  const rate = new PhaseRate();
  let nextMs = lineEveryMs;
  return {
    report(progress) {
      const figures = rate.figures(progress);
      if (progress.elapsedMs < nextMs) return;
      nextMs = progress.elapsedMs + lineEveryMs;
      stream.write(progressLine(title, progress.phase, figures));
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
  const rate = new PhaseRate();
  let started = false;
  return {
    report(progress) {
      const { eta, total, ...figures } = rate.figures(progress);
      if (!started && progress.elapsedMs < barAfterMs) return;
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
