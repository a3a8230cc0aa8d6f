/** What the verbs do with keys. */
import { DormouseError } from '../errors.js';
import { KeyStore, ownLabel } from './key_store.js';
import { keyLine, parseKey, type PublicKey } from './key_text.js';

export interface KnownKeys {
  readonly folder: string;
  /** Null while there is none. */
  readonly own: PublicKey | null;
  readonly trusted: readonly PublicKey[];
}

const labelled = ({ key }: { readonly key: Buffer }): PublicKey => ({ key, label: ownLabel() });

/** KEY_INVALID, as of each of these. */
export function listKeys(): KnownKeys {
  const store = new KeyStore();
  const own = store.find();
  return { folder: store.folder, own: own && labelled(own), trusted: store.trusted() };
}

/** This host's key, made if there is none. */
export function showKey(): PublicKey & { readonly line: string } {
  const own = labelled(new KeyStore().identity());
  return { ...own, line: keyLine(own) };
}

/** `added` is false if it was trusted already; `known` is how it is known from now on: a label that it has stays. */
export function trustKey(key: PublicKey): { readonly added: boolean; readonly known: PublicKey } {
  const added = new KeyStore().trust(key);
  const { own, trusted } = listKeys();
  const known = [...(own ? [own] : []), ...trusted].find((one) => one.key.equals(key.key));
  return { added, known: known ?? key };
}

/**
 * By the text of a key, or by label, or by what `read` finds in a file of that name, which anybody may have put there: so the last.
 * KEY_INVALID if it is not one of those trusted.
 */
export async function forgetKey(
  words: string,
  read: (words: string) => Promise<PublicKey>,
): Promise<PublicKey> {
  const notFound = (cause: unknown): never => {
    throw new DormouseError('KEY_INVALID', `no trusted key has the text, label or file '${words}'`, {
      cause,
      advice: 'See `dormouse key list`.',
    });
  };
  const store = new KeyStore();
  const known = store.trusted();
  const called = known.filter(({ label }) => label === words);
  const typed = parseKey(words);
  const given = typed ?? (called.length === 0 ? await read(words).catch(notFound) : null);
  if (given && store.find()?.key.equals(given.key))
    throw new DormouseError('KEY_INVALID', "this host's own key is always trusted");
  const named = given && known.find(({ key }) => key.equals(given.key));
  if (!named && called.length > 1)
    throw new DormouseError(
      'KEY_INVALID',
      `${called.length} keys are called '${words}': name the key itself`,
    );
  const found = named ?? called[0];
  if (!found || !store.forget(found.key))
    throw new DormouseError('KEY_INVALID', 'that key is not among those trusted (dormouse key list)');
  return found;
}
