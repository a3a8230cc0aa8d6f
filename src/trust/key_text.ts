/** Public keys of hosts as people hand them on: one line, `dormouse-ed25519 BASE64 LABEL`. */
import { Buffer } from 'node:buffer';

export const publicKeyBytes = 32;
const kind = 'dormouse-ed25519';
const line = /^(?:dormouse-ed25519 +)?([A-Za-z0-9+/]{43}=)(?: +([^\p{C}]{1,128}))? *$/u;

export interface PublicKey {
  readonly key: Buffer;
  /** What it is called, without a meaning. */
  readonly label: string;
}

/** Null for what is no key. */
export function parseKey(words: string): PublicKey | null {
  const [, coded = '', label = ''] = line.exec(words.trim()) ?? [];
  const key = Buffer.from(coded, 'base64');
  return key.length === publicKeyBytes && key.toString('base64') === coded ? { key, label } : null;
}

export const keyText = (key: Buffer): string => key.toString('base64');

/** The line that `key trust` takes. */
export const keyLine = ({ key, label }: PublicKey): string =>
  `${kind} ${keyText(key)}${label === '' ? '' : ` ${label}`}`;
