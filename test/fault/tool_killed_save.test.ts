/** `kill -9` of `save` at random moments: the guest goes on, or is gone and whole in its image; nothing else is left. */
import { test } from 'node:test';
import { killMany, kills } from '../support/killed.js';

test(`save, killed ${kills} times`, (t) => killMany(t, 'destroy', (name, image) => ['save', name, image]));
