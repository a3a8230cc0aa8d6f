/** What every verb is given: the global options, the engine, and where to say things. */
import type { OperationOptions } from '../domain/progress.js';
import type { Host } from '../host/contract.js';
import { createProgress } from '../render/progress.js';
import { printable } from '../render/units.js';
import type { Services } from './services.js';
import { pageBytes } from '../pfn/page_words.js';
import { noPages } from '../pfn/counts.js';

export interface Globals {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  readonly progress: boolean;
  /** `embedded:NAME` or `xen`; the default where it is missing. */
  readonly host: string | undefined;
}

export interface Streams {
  readonly stdout: NodeJS.WritableStream & { readonly isTTY?: boolean };
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean };
}

export class Context {
  readonly globals: Globals;
  readonly services: Services;
  readonly signal: AbortSignal;
  private readonly streams: Streams;

  constructor(globals: Globals, services: Services, signal: AbortSignal, streams: Streams) {
    this.globals = globals;
    this.services = services;
    this.signal = signal;
    this.streams = streams;
  }

  /** A line on stderr that -q hides. */
  warn(message: string): void {
    if (!this.globals.quiet) this.streams.stderr.write(`dormouse: warning: ${printable(message)}\n`);
  }

  /** A line on stderr that only -v shows. */
  debug(message: string): void {
    if (this.globals.verbose) this.streams.stderr.write(`dormouse: ${printable(message)}\n`);
  }

  /** A step that is done, as a line on stderr where progress is shown. */
  step(line: string): void {
    if (this.style() !== 'none') this.streams.stderr.write(`${printable(line)}\n`);
  }

  /** Progress of a verb that speaks for itself (demo): stdout, or nothing with --json or -q. */
  say(line: string): void {
    if (!this.globals.json && !this.globals.quiet) this.streams.stdout.write(`${line}\n`);
  }

  /** Runs `body` with the chosen host and closes it in every case. */
  async withHost<T>(body: (host: Host) => Promise<T>): Promise<T> {
    const host = await this.services.openHost(this.globals.host);
    try {
      this.debug(`host: ${host.description}`);
      return await body(host);
    } finally {
      await host.close();
    }
  }

  /** Runs `body` with progress on stderr as the options ask for, and the signal that cancels it. */
  async withProgress<T>(title: string, body: (options: OperationOptions) => Promise<T>): Promise<T> {
    const view = createProgress({
      stream: this.streams.stderr,
      title: printable(title),
      style: this.style(),
    });
    try {
      return await body({ onProgress: (progress) => view.report(progress), signal: this.signal });
    } finally {
      view.stop();
    }
  }

  /** The same for work that is counted in bytes of a file. */
  async withByteProgress<T>(
    title: string,
    body: (options: {
      onProgress: (doneBytes: number, totalBytes: number) => void;
      signal: AbortSignal;
    }) => Promise<T>,
  ): Promise<T> {
    const startedMs = performance.now();
    return await this.withProgress(title, (options) =>
      body({
        signal: this.signal,
        onProgress: (doneBytes, totalBytes) =>
          options.onProgress?.({
            phase: 'verify',
            donePages: doneBytes / pageBytes,
            totalPages: totalBytes / pageBytes,
            storedBytes: doneBytes,
            counts: noPages,
            elapsedMs: performance.now() - startedMs,
          }),
      }),
    );
  }

  private style(): 'bar' | 'lines' | 'none' {
    const { json, quiet, progress } = this.globals;
    if (json || quiet || !progress) return 'none';
    return this.streams.stderr.isTTY === true ? 'bar' : 'lines';
  }
}
