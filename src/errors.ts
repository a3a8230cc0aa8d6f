/**
 * The closed list of errors. Each says which exit code it gives, what state the guest is in, and what to do.
 */
export const guestStates = [
  'untouched',
  'running',
  'resumed',
  'suspended',
  'paused',
  'none',
  'gone',
  'unknown',
] as const;
export type GuestState = (typeof guestStates)[number];

/** Every exit code and what it means, in the words of `--help`. */
export const exitCodes = {
  0: 'done',
  1: 'failed',
  2: 'usage or configuration',
  3: 'findings: the image is damaged or cannot be restored here, or bisect cannot decide',
  4: 'no such domain, or in the wrong state',
  5: 'the host cannot do this, or is not there',
  10: 'no such image',
  11: 'another operation works on this domain, or another domain has its disk',
  12: 'image or stream damaged',
  13: 'image of an unknown format, not trusted, or not to be restored here',
  15: 'did not converge: the guest writes too fast',
  20: 'did not suspend in time, or failed after that; the guest runs on',
  21: 'it was done, keep the image; what was to follow failed',
  129: 'cancelled by SIGHUP, cleaned up',
  130: 'cancelled by SIGINT, cleaned up',
  143: 'cancelled by SIGTERM, cleaned up',
} as const;

interface ErrorKind {
  readonly exit: keyof typeof exitCodes;
  readonly guest: GuestState;
  readonly advice: string;
}

const kinds = {
  USAGE: { exit: 2, guest: 'untouched', advice: 'See `dormouse VERB --help`.' },
  CONFIG_INVALID: { exit: 2, guest: 'untouched', advice: 'Correct the configuration and run it again.' },
  DOMAIN_NOT_FOUND: { exit: 4, guest: 'none', advice: 'See `dormouse list` for the domains of this host.' },
  DOMAIN_EXISTS: {
    exit: 4,
    guest: 'untouched',
    advice:
      'Give another name (`restore --name NEW`, `create name=NEW`) or uuid, or destroy the domain first.',
  },
  DOMAIN_WRONG_STATE: { exit: 4, guest: 'untouched', advice: 'See `dormouse domstate --reason DOMAIN`.' },
  LOCKED: { exit: 11, guest: 'untouched', advice: 'Wait for the other operation on this domain to end.' },
  DISK_IN_USE: {
    exit: 11,
    guest: 'none',
    advice:
      'Detach the disk from the other domain or end that domain; `--force` gives it to both, which destroys it.',
  },
  HOST_UNAVAILABLE: {
    exit: 5,
    guest: 'none',
    advice: 'An embedded host: `dormouse host start`. Xen: as root in its control domain.',
  },
  HOST_DIED: { exit: 5, guest: 'gone', advice: 'Its guests died with it; restore them from their images.' },
  HOST_LACKS: {
    exit: 5,
    guest: 'untouched',
    advice: 'This host cannot do it; `dormouse host status` lists what it can.',
  },
  HOST_PROTOCOL: {
    exit: 5,
    guest: 'unknown',
    advice: 'Host and tool are of different versions; restart the host.',
  },
  NO_MEMORY: { exit: 5, guest: 'untouched', advice: 'Free memory on the host, or start it with more.' },
  IMAGE_NOT_FOUND: { exit: 10, guest: 'untouched', advice: 'Check the path.' },
  IMAGE_DAMAGED: {
    exit: 12,
    guest: 'untouched',
    advice: 'Run `dormouse image verify FILE` for the extent; use another image.',
  },
  IMAGE_INCOMPATIBLE: {
    exit: 13,
    guest: 'untouched',
    advice: 'Use an image, and a dormouse that knows its format.',
  },
  IMAGE_NOT_RESTORABLE: {
    exit: 13,
    guest: 'untouched',
    advice: 'Restore one that `save` or `checkpoint --mode cooperative` made.',
  },
  CONFIG_UNTRUSTED: {
    exit: 13,
    guest: 'none',
    advice: 'Read what it asks for; if that is meant, type one of the lines above.',
  },
  CPU_INCOMPATIBLE: {
    exit: 13,
    guest: 'none',
    advice:
      'Restore it where the processor has these features, or boot guests without them (cpuid in xl.cfg).',
  },
  POINT_NOT_FOUND: { exit: 10, guest: 'untouched', advice: 'See `dormouse points` for what the store has.' },
  STORE_INVALID: {
    exit: 13,
    guest: 'untouched',
    advice: 'Give the folder of a store, or one that is empty, and a dormouse that knows its version.',
  },
  STORE_DAMAGED: {
    exit: 12,
    guest: 'untouched',
    advice: 'Nothing was removed. See `dormouse point verify`; take new points into another store.',
  },
  STREAM_INVALID: {
    exit: 12,
    guest: 'untouched',
    advice: 'The file is not a whole xl save stream; save the guest again.',
  },
  STREAM_UNSUPPORTED: {
    exit: 13,
    guest: 'untouched',
    advice: 'Convert it with the Xen release that wrote it.',
  },
  OUTPUT_EXISTS: { exit: 1, guest: 'untouched', advice: 'Choose another path or remove the file.' },
  OUTPUT_INVALID: {
    exit: 1,
    guest: 'untouched',
    advice:
      'Choose a path for a new regular file, with a name of at most 255 bytes, in a folder that is there and may be written to.',
  },
  NO_SPACE: { exit: 1, guest: 'untouched', advice: 'Free disk space and run it again.' },
  IMAGE_WRITE_FAILED: { exit: 1, guest: 'untouched', advice: 'Check the disk; the image was abandoned.' },
  IMAGE_READ_FAILED: { exit: 1, guest: 'untouched', advice: 'Check the disk and permissions.' },
  PAGE_TABLE_INVALID: {
    exit: 1,
    guest: 'untouched',
    advice: 'The guest maps memory that is not its own; detach what it shares and try again.',
  },
  GUEST_MEMORY_UNREADABLE: {
    exit: 1,
    guest: 'untouched',
    advice: 'Try again; if it persists the guest cannot be saved.',
  },
  ACCOUNTING_MISMATCH: {
    exit: 1,
    guest: 'untouched',
    advice: 'The image was not committed. Please report this.',
  },
  NOT_CONVERGED: {
    exit: 15,
    guest: 'untouched',
    advice: 'The guest writes too fast for a short pause; use a cooperative checkpoint.',
  },
  NOT_SETTLED: {
    exit: 21,
    guest: 'unknown',
    advice: 'Keep the image. See `dormouse domstate DOMAIN`; never restore it while that domain still runs.',
  },
  SUSPEND_TIMEOUT: {
    exit: 20,
    // The request is withdrawn before the guest took it: it never stood still.
    guest: 'untouched',
    advice: 'The guest did not answer; use a light checkpoint or see its console.',
  },
  RESTORE_FAILED: {
    exit: 1,
    guest: 'none',
    advice: 'The half-built domain was removed; the image is untouched.',
  },
  RESULT_LOST: { exit: 1, guest: 'untouched', advice: 'Make room where stdout goes, and run it again.' },
  COMMAND_FAILED: {
    exit: 1,
    guest: 'untouched',
    advice: 'COMMAND says good with 0, cannot be judged with 125, bad with another code below 128.',
  },
  KEY_INVALID: {
    exit: 1,
    guest: 'untouched',
    advice: 'See `dormouse key --help`; the folder of keys is $DORMOUSE_KEY_DIR where that is set.',
  },
  CANCELLED: { exit: 130, guest: 'untouched', advice: 'Run it again when ready.' },
  INTERNAL: { exit: 1, guest: 'unknown', advice: 'Please report this.' },
} as const satisfies Record<string, ErrorKind>;

export type ErrorCode = keyof typeof kinds;

/** Where something went wrong; every field is optional. pfn, chunk and offset are numbers ≤ 2^53. */
export interface ErrorPlace {
  readonly domid?: number;
  readonly pfn?: number;
  readonly chunk?: number;
  readonly offset?: number;
  readonly path?: string;
}

/** The only error class that leaves this program. */
export class DormouseError extends Error {
  readonly code: ErrorCode;
  readonly exitCode: number;
  readonly guest: GuestState;
  readonly advice: string;
  readonly place: ErrorPlace;
  /** What the message is about, one a line: values of a configuration, lines to type. */
  readonly details: readonly string[];
  /** What was finished before it, and stays: a part of the verb's document. */
  readonly done: Readonly<Record<string, unknown>> | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    options: {
      cause?: unknown;
      place?: ErrorPlace;
      guest?: GuestState;
      exitCode?: number;
      details?: readonly string[];
      /** What to do, where it is known better than by the code. */
      advice?: string;
      done?: Readonly<Record<string, unknown>> | undefined;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'DormouseError';
    this.code = code;
    const kind: ErrorKind = kinds[code];
    this.exitCode = options.exitCode ?? kind.exit;
    this.guest = options.guest ?? kind.guest;
    this.advice = options.advice ?? kind.advice;
    this.place = options.place ?? {};
    this.details = options.details ?? [];
    this.done = options.done;
  }
}

/** The same error but for what is given. */
export function changed(
  error: DormouseError,
  changes: { message?: string; cause?: unknown } & Partial<
    Pick<DormouseError, 'place' | 'guest' | 'exitCode' | 'advice' | 'details' | 'done'>
  >,
): DormouseError {
  const { code, message, cause, place, guest, exitCode, details, advice, done } = error;
  const { message: words = message, ...rest } = changes;
  return new DormouseError(code, words, { cause, place, guest, exitCode, details, advice, done, ...rest });
}

/** The same error, which names the file it is about. */
export function inFile(error: DormouseError, path: string): DormouseError {
  if (error.place.path !== undefined) return error;
  const named = /\s/u.test(path)
    ? error.message.includes(path)
    : error.message.split(/[\s'",:;()]+/u).includes(path);
  return changed(error, {
    ...(!named && { message: `${path}: ${error.message}` }),
    place: { ...error.place, path },
    advice: error.advice.replace('FILE', () => path),
  });
}

const ofOutput: readonly ErrorCode[] = ['NO_SPACE', 'IMAGE_WRITE_FAILED', 'OUTPUT_EXISTS', 'OUTPUT_INVALID'];

/** Runs what writes a file; an error of writing it names it. */
export async function writingTo<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    const error = asDormouseError(thrown);
    throw ofOutput.includes(error.code) ? inFile(error, path) : thrown;
  }
}

/** The same error where the guest is known to be in that state. */
export const ofGuest = (
  error: DormouseError,
  guest: GuestState,
  exitCode: number = error.exitCode,
): DormouseError => changed(error, { cause: error, guest, exitCode });

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(kinds, value);
}

/** All codes with their exit code, guest state and advice, for documentation and tests. */
export const errorKinds: Readonly<Record<ErrorCode, ErrorKind>> = kinds;

/** Any thrown value as a DormouseError; errors of the addon carry a code of the list and are kept as such. */
export function asDormouseError(thrown: unknown): DormouseError {
  if (thrown instanceof DormouseError) return thrown;
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const raw = error as Error & { code?: unknown; pfn?: number; chunk?: number; offset?: number };
  if (!isErrorCode(raw.code)) return new DormouseError('INTERNAL', error.message, { cause: error });
  const place = {
    ...(raw.pfn !== undefined && { pfn: raw.pfn }),
    ...(raw.chunk !== undefined && { chunk: raw.chunk }),
    ...(raw.offset !== undefined && { offset: raw.offset }),
  };
  return new DormouseError(raw.code, error.message, { cause: error, place });
}
