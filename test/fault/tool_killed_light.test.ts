/** `kill -9` of `checkpoint --mode light` at random moments: the guest goes on, or is whole in its image; nothing else is left. */
import { test } from 'node:test';
import { killMany, kills } from '../support/killed.js';

test(`checkpoint --mode light, killed ${kills} times`, (t) =>
  killMany(t, 'resume', (name, image) => ['checkpoint', '--mode', 'light', name, image]));
