/** `kill -9` of `save -c` at random moments: the guest goes on, with or without a whole image; nothing else is left. */
import { test } from 'node:test';
import { killMany, kills } from '../support/killed.js';

test(`save -c, killed ${kills} times`, (t) =>
  killMany(t, 'resume', (name, image) => ['save', '-c', name, image]));
