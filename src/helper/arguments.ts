/** The arguments libxl starts its save helper with, all decimal; `--stock` before them is ours. */
import { DormouseError } from '../errors.js';
import type { StreamFormat } from '../xenstream/frames/writer.js';

export interface SaveArguments {
  readonly verb: 'save';
  readonly streamFd: number;
  readonly domid: number;
  /** The guest is to run while it is copied. */
  readonly live: boolean;
  /** What is written: ours, or what xl's own helper reads. */
  readonly format: StreamFormat;
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
/** XCFLAGS_LIVE */
const liveFlag = 1;

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
export function parseArguments(given: readonly string[]): SaveArguments | RestoreArguments {
  const stock = given[0] === '--stock';
  const [verb, ...words] = stock ? given.slice(1) : given;
  if (verb === '--save-domain') {
    const [streamFd = -1, , domid = 0, flags = 0, , streamType] = numbers(words, 6);
    requirePlain(streamType);
    const live = (flags & liveFlag) !== 0;
    return { verb: 'save', streamFd, domid, live, format: stock ? 'libxc' : 'frames' };
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
