import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { createProgress } from '../../src/render/progress.js';
import type { Progress } from '../../src/domain/progress.js';

class Screen extends Writable {
  text = '';
  readonly isTTY = true;
  readonly columns = 200;
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
  cursorTo(): boolean {
    return true;
  }
}

function at(elapsedMs: number, donePages: number): Progress {
  const counts = { data: donePages, zero: 7, table: 0, noFrame: 0, broken: 0, alloc: 0, sameAsParent: 0 };
  return { phase: 'pages', donePages, totalPages: 262_144, storedBytes: 0, counts, elapsedMs };
}

test('where stderr is no terminal there is a line every five seconds', () => {
  const screen = new Screen();
  const view = createProgress({ stream: screen, title: 'save web1', style: 'lines' });
  for (let ms = 0; ms <= 12_000; ms += 100) view.report(at(ms, 10 * ms));
  view.stop();
  assert.deepEqual(screen.text.split('\n'), [
    'save web1: pages 19%  195 MiB/1.00 GiB  39.1 MiB/s  eta 21.2 s  data 50,000  zero 7',
    'save web1: pages 38%  391 MiB/1.00 GiB  39.1 MiB/s  eta 16.2 s  data 100,000  zero 7',
    '',
  ]);
});

test('rate and time left are those of the phase at hand', () => {
  const screen = new Screen();
  const view = createProgress({ stream: screen, title: 'restore web1', style: 'lines' });
  for (let ms = 0; ms <= 4900; ms += 100) view.report({ ...at(ms, 1000), phase: 'verify' });
  // Two seconds without a word, as while a domain is built; then the second phase begins.
  for (let ms = 7000; ms <= 12_000; ms += 100) view.report(at(ms, 20 * (ms - 7000)));
  // A phase that starts over is measured anew.
  for (let ms = 12_100; ms <= 17_000; ms += 100) view.report(at(ms, 5 * (ms - 12_100)));
  view.stop();
  assert.deepEqual(screen.text.split('\n'), [
    'restore web1: pages 0%  0 B/1.00 GiB  ?/s  eta ?  zero 7',
    'restore web1: pages 38%  391 MiB/1.00 GiB  78.1 MiB/s  eta 8.11 s  data 100,000  zero 7',
    'restore web1: pages 9%  95.7 MiB/1.00 GiB  19.5 MiB/s  eta 47.5 s  data 24,500  zero 7',
    '',
  ]);
});

test('on a terminal a bar appears after a second and is gone at the end', () => {
  const screen = new Screen();
  const short = createProgress({ stream: screen, title: 'save web1', style: 'bar' });
  short.report(at(10, 1000));
  short.report(at(990, 262_144));
  short.stop();
  assert.equal(screen.text, '');
  const long = createProgress({ stream: screen, title: 'save web1', style: 'bar' });
  long.report(at(10, 0));
  long.report(at(1510, 131_072));
  long.stop();
  long.stop();
  assert.match(
    screen.text,
    /save web1 {2}pages .* 50% {2}512 MiB\/1\.00 GiB {2}341 MiB\/s {2}eta 1\.50 s {2}data 131,072/u,
  );
});

test('nothing is written where progress is off', () => {
  const screen = new Screen();
  const view = createProgress({ stream: screen, title: 'save web1', style: 'none' });
  view.report(at(60_000, 5));
  view.stop();
  assert.equal(screen.text, '');
});
