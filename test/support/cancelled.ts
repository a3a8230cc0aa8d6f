/** What SIGINT and SIGTERM may do to a tool, for cancel*.test.ts. */
import assert from 'node:assert/strict';
import { errorOf, type Ended } from './command.js';

export const times = 6;
export const seed = Date.now() % 1_000_000_000;
export const signals = ['SIGINT', 'SIGTERM'] as const;

/** Done before the signal came, ended by it before it was heard, or cancelled. Returns whether it was cancelled. */
export function judge(ended: Ended, signal: NodeJS.Signals, working: boolean): boolean {
  if (ended.exitCode === 0) return false;
  if (ended.signal !== null) {
    assert.equal(ended.signal, signal);
    assert.equal(working, false, 'a tool at work hears signals');
    return false;
  }
  assert.equal(ended.exitCode, signal === 'SIGINT' ? 130 : 143, ended.stderr);
  if (working) assert.equal(errorOf(ended).name, 'CANCELLED');
  return true;
}
