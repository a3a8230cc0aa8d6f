/**
 * The identity of this host, an Ed25519 key made when it is first needed, and the keys of others that it trusts. Files:
 * `host.key` (mode 0600), `trusted/HEX`. Each appears whole or not at all, whoever else makes it at the same time.
 */
import { Buffer } from 'node:buffer';
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
} from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  type Stats,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { homedir, hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { syncFolder } from '../image/file.js';
import { DormouseError } from '../errors.js';
import { makeFolders } from '../folders.js';
import { notice as toStderr } from '../notice.js';
import { type Signer, signedMessage, type SignRoot } from '../image/signature.js';
import { keyLine, parseKey, publicKeyBytes, type PublicKey } from './key_text.js';

const largestFile = 4096;

const codeOf = (thrown: unknown): string | undefined => (thrown as NodeJS.ErrnoException).code;
const isMissing = (thrown: unknown): boolean => codeOf(thrown) === 'ENOENT';

function invalid(path: string, why: string, cause?: unknown): DormouseError {
  return new DormouseError('KEY_INVALID', `${path} ${why}`, { cause, place: { path } });
}

/** `$DORMOUSE_KEY_DIR`; for root /etc/dormouse, for others dormouse in $XDG_CONFIG_HOME or ~/.config. */
export function keyFolder(): string {
  const { DORMOUSE_KEY_DIR: chosen, XDG_CONFIG_HOME: config } = process.env;
  if (chosen !== undefined && chosen !== '') return chosen;
  if (process.geteuid?.() === 0) return '/etc/dormouse';
  return join(config !== undefined && config !== '' ? config : join(homedir(), '.config'), 'dormouse');
}

function isOwn(uid: number): boolean {
  return uid === process.geteuid?.() || uid === 0;
}

/** KEY_INVALID for a folder of which it cannot be told what is in it; ENOENT as it is. */
function statFolder(path: string): Stats {
  try {
    return statSync(path);
  } catch (thrown) {
    if (isMissing(thrown)) throw thrown;
    throw invalid(path, 'cannot be looked into', thrown);
  }
}

/** Whoever may write to the folder could put keys into it. */
function requireOwnFolder(path: string): void {
  const { uid, mode } = statFolder(path);
  if (!isOwn(uid)) throw invalid(path, 'belongs to another user');
  if ((mode & 0o022) !== 0) throw invalid(path, `may be written to by others: chmod go-w ${path}`);
}

/** The file's text; ENOENT as it is. KEY_INVALID for one that others may read (`secret`) or write. */
function readOwnFile(path: string, secret: boolean): string {
  requireOwnFolder(dirname(path));
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (thrown) {
    if (isMissing(thrown)) throw thrown;
    throw invalid(path, 'cannot be read', thrown);
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.size > largestFile) throw invalid(path, 'is not a key file');
    if (!isOwn(stat.uid)) throw invalid(path, 'belongs to another user');
    if ((stat.mode & (secret ? 0o077 : 0o022)) !== 0)
      throw invalid(
        path,
        `may be ${secret ? 'read' : 'written'} by others: chmod ${secret ? 600 : 644} ${path}`,
      );
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}

/** Makes the file, on disk and whole; false if it was there. */
function makeFile(path: string, content: string, mode: number): boolean {
  const folder = dirname(path);
  makeFolders(folder, 0o700);
  requireOwnFolder(folder);
  const temporary = join(folder, `.${randomBytes(8).toString('hex')}.new`);
  const fd = openSync(temporary, 'wx', mode);
  try {
    writeSync(fd, content);
    fsyncSync(fd);
    linkSync(temporary, path);
    return true;
  } catch (thrown) {
    if (codeOf(thrown) === 'EEXIST') return false;
    throw thrown;
  } finally {
    closeSync(fd);
    unlinkSync(temporary);
    syncFolder(folder);
  }
}

/** A host's own key. */
export class Identity {
  readonly key: Buffer;
  readonly #private: KeyObject;

  constructor(path: string, pem: string) {
    try {
      this.#private = createPrivateKey(pem);
    } catch (thrown) {
      throw invalid(path, 'holds no private key', thrown);
    }
    if (this.#private.asymmetricKeyType !== 'ed25519') throw invalid(path, 'holds no Ed25519 key');
    const spki = createPublicKey(this.#private).export({ format: 'der', type: 'spki' });
    this.key = spki.subarray(-publicKeyBytes);
  }

  readonly signRoot: SignRoot = (root) => ({
    key: this.key,
    signature: sign(null, signedMessage(root), this.#private),
  });
}

export class KeyStore {
  constructor(readonly folder: string = keyFolder()) {}

  get #ownPath(): string {
    return join(this.folder, 'host.key');
  }
  #trustedPath(key: Buffer): string {
    return join(this.folder, 'trusted', key.toString('hex'));
  }

  /** This host's identity, null if it has none yet. KEY_INVALID if others may read it or it is no key. */
  find(): Identity | null {
    try {
      return new Identity(this.#ownPath, readOwnFile(this.#ownPath, true));
    } catch (thrown) {
      if (isMissing(thrown)) return null;
      throw thrown;
    }
  }

  /** KEY_INVALID where the folder lies where this user may not look: then it holds no keys for this user. */
  requireVisible(): void {
    try {
      statFolder(this.folder);
    } catch (thrown) {
      if (!isMissing(thrown)) throw thrown;
    }
  }

  /** This host's identity, made if there is none. KEY_INVALID also where it cannot be made. */
  identity(): Identity {
    const found = this.find();
    if (found) return found;
    const pem = generateKeyPairSync('ed25519').privateKey.export({ format: 'pem', type: 'pkcs8' });
    try {
      makeFile(this.#ownPath, pem.toString(), 0o600);
    } catch (thrown) {
      if (thrown instanceof DormouseError) throw thrown;
      throw invalid(this.folder, `cannot hold keys: ${(thrown as Error).message}`, thrown);
    }
    const made = this.find();
    if (!made) throw invalid(this.#ownPath, 'went away while it was made');
    return made;
  }

  /**
   * The keys of others that are trusted, by label. One whose file is damaged is told by its label; it trusts nothing and can
   * be forgotten. KEY_INVALID.
   */
  trusted(): PublicKey[] {
    let names: string[];
    try {
      names = readdirSync(join(this.folder, 'trusted'));
    } catch (thrown) {
      if (isMissing(thrown)) return [];
      throw invalid(join(this.folder, 'trusted'), 'cannot be read', thrown);
    }
    return names
      .filter((name) => /^[0-9a-f]{64}$/.test(name))
      .map((name) => this.#listed(Buffer.from(name, 'hex')))
      .filter((key) => key !== null)
      .sort((a, b) => (a.label < b.label ? -1 : 1));
  }

  #listed(key: Buffer): PublicKey | null {
    try {
      return this.#readTrusted(key);
    } catch (thrown) {
      return { key, label: `(not trusted: ${(thrown as Error).message})` };
    }
  }

  #readTrusted(key: Buffer): PublicKey | null {
    const path = this.#trustedPath(key);
    try {
      const found = parseKey(readOwnFile(path, false));
      if (!found?.key.equals(key)) throw invalid(path, 'does not hold the key of its name');
      return found;
    } catch (thrown) {
      if (isMissing(thrown)) return null;
      throw thrown;
    }
  }

  /** Whether what this key signed is trusted here, as its own key always is. KEY_INVALID. */
  isTrusted(key: Buffer): boolean {
    return this.find()?.key.equals(key) === true || this.#readTrusted(key) !== null;
  }

  /** False if it was trusted already. KEY_INVALID if it cannot be kept. */
  trust(key: PublicKey): boolean {
    if (parseKey(keyLine(key))?.label !== key.label)
      throw new DormouseError(
        'KEY_INVALID',
        'a label has at most 128 characters, none of them a control character or a blank at an end',
      );
    if (this.isTrusted(key.key)) return false;
    const path = this.#trustedPath(key.key);
    try {
      return makeFile(path, `${keyLine(key)}\n`, 0o644);
    } catch (thrown) {
      if (thrown instanceof DormouseError) throw thrown;
      throw invalid(path, `cannot be made: ${(thrown as Error).message}`, thrown);
    }
  }

  /** No longer trusts it. False if it was not. */
  forget(key: Buffer): boolean {
    try {
      unlinkSync(this.#trustedPath(key));
      syncFolder(join(this.folder, 'trusted'));
      return true;
    } catch (thrown) {
      if (isMissing(thrown)) return false;
      throw invalid(this.#trustedPath(key), 'cannot be removed', thrown);
    }
  }
}

/** Whether the images that it signs are trusted here; null is nobody's key. KEY_INVALID. */
export const isTrustedKey = (key: Buffer | null): boolean => key !== null && new KeyStore().isTrusted(key);

/** What a key of this host is called where nobody gave it a name. */
export const ownLabel = (): string => hostname().replace(/[\p{C}]/gu, '?') || 'this host';

/**
 * Signs images as made by this host. Where no key can be kept, as on a read-only system or in a home that this user may not
 * look into, images are not signed, which `notice` says; a key that is there and unsafe is KEY_INVALID.
 */
export function imageSigner(notice: (text: string) => void = toStderr): SignRoot | null {
  const store = new KeyStore();
  const unsigned = (thrown: unknown): null => {
    const { message, cause } = thrown as Error;
    const why = cause instanceof Error && !message.includes(cause.message) ? `: ${cause.message}` : '';
    notice(`the image will not be signed: ${message}${why}`);
    return null;
  };
  try {
    store.requireVisible();
  } catch (thrown) {
    return unsigned(thrown);
  }
  const found = store.find();
  if (found) return found.signRoot;
  try {
    return store.identity().signRoot;
  } catch (thrown) {
    return unsigned(thrown);
  }
}

export type { Signer };
