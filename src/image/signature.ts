/** The signature of an image: Ed25519 over its root, in the footer. Whose key is to be trusted is decided elsewhere. */
import { Buffer } from 'node:buffer';
import { createPublicKey, type KeyObject, verify } from 'node:crypto';

/** Who signed an image, and the signature. */
export interface Signer {
  /** Ed25519 public key, 32 bytes. */
  readonly key: Buffer;
  /** 64 bytes over signedMessage(root). */
  readonly signature: Buffer;
}

/** Signs a root of 32 bytes: the signature must be over signedMessage(root). */
export type SignRoot = (root: Buffer) => Signer;

export const SIGNER_KEY_BYTES = 32;
export const SIGNATURE_BYTES = 64;

/** Nothing else that a key signs begins like this. */
const DOMAIN = Buffer.from('dormouse image root v1\0\0', 'latin1');

/** What precedes the 32 bytes of an Ed25519 public key in its SPKI coding. */
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');

/** The bytes to sign for a root of 32 bytes. */
export const signedMessage = (root: Buffer): Buffer => Buffer.concat([DOMAIN, root]);

/** To make one takes longer than to check a signature by it, and a host has few. */
const madeKeys = new Map<string, KeyObject>();
const mostMadeKeys = 16;

function publicKeyOf(key: Buffer): KeyObject {
  const digits = key.toString('hex');
  const known = madeKeys.get(digits);
  if (known) return known;
  const made = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, key]), format: 'der', type: 'spki' });
  if (madeKeys.size >= mostMadeKeys) madeKeys.clear();
  madeKeys.set(digits, made);
  return made;
}

/** Whether the signature is that key's over the root. False for a key that is none. */
export function isSignedBy(root: Buffer, { key, signature }: Signer): boolean {
  if (key.length !== SIGNER_KEY_BYTES || signature.length !== SIGNATURE_BYTES) return false;
  try {
    return verify(null, signedMessage(root), publicKeyOf(key), signature);
  } catch {
    return false;
  }
}
