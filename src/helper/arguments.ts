/** The arguments libxl starts its save helper with, all decimal. */
import { DormouseError } from '../errors.js';

export interface SaveArguments {
  readonly verb: 'save';
  readonly streamFd: number;
  readonly domid: number;
}

export interface RestoreArguments {
  readonly verb: 'restore';
  readonly streamFd: number;
  readonly domid: number;
  readonly storePort: number;
  readonly storeDomid: number;
  readonly consolePort: number;
  readonly consoleDomid: number;
}

const plainStream = 0;

function numbers(words: readonly string[], count: number): number[] {
  if (words.length !== count || words.some((word) => !/^-?\d{1,10}$/.test(word)))
    throw new DormouseError('USAGE', `not the arguments of a save helper: ${words.join(' ')}`);
  return words.map(Number);
}

function requirePlain(streamType: number | undefined): void {
  if (streamType !== plainStream)
    throw new DormouseError('STREAM_UNSUPPORTED', 'checkpointed streams (Remus, COLO) are not supported');
}

/** USAGE for anything else; STREAM_UNSUPPORTED for Remus and COLO. */
export function parseArguments([verb, ...words]: readonly string[]): SaveArguments | RestoreArguments {
  if (verb === '--save-domain') {
    const [streamFd = -1, , domid = 0, , , streamType] = numbers(words, 6);
    requirePlain(streamType);
    return { verb: 'save', streamFd, domid };
  }
  if (verb === '--restore-domain') {
    const [streamFd = -1, , domid = 0, storePort = 0, storeDomid = 0, consolePort = 0, ...rest] = numbers(
      words,
      9,
    );
    const [consoleDomid = 0, , streamType] = rest;
    requirePlain(streamType);
    return { verb: 'restore', streamFd, domid, storePort, storeDomid, consolePort, consoleDomid };
  }
  throw new DormouseError(
    'USAGE',
    'this is a save helper: libxl runs it (LIBXL_SAVE_HELPER=PATH xl save ...)',
  );
}
