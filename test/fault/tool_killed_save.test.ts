/** `kill -9` of `save` at random moments: the guest goes on, or is whole in its image; nothing else is left. */
import { test } from 'node:test';
import { killMany, kills } from '../support/killed.js';

test(`save, killed ${kills} times`, (t) => killMany(t, (name, image) => ['save', name, image]));
