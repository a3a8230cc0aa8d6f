/** `kill -9` of `checkpoint --mode cooperative` at random moments: the guest goes on, or is whole in its image; nothing else is left. */
import { test } from 'node:test';
import { killMany, kills } from '../support/killed.js';

test(`checkpoint --mode cooperative, killed ${kills} times`, (t) =>
  killMany(t, 'resume', (name, image) => ['checkpoint', '--mode', 'cooperative', name, image]));
