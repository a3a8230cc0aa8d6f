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

/** KEY_INVALID, as of each of these. */
export function listKeys(): KnownKeys {
  const store = new KeyStore();
  const own = store.find();
  return { folder: store.folder, own: own && { key: own.key, label: ownLabel() }, trusted: store.trusted() };
}

/** This host's key, made if there is none. */
export function showKey(): PublicKey & { readonly line: string } {
  const own = { key: new KeyStore().identity().key, label: ownLabel() };
  return { ...own, line: keyLine(own) };
}

/** `added` is false if it was trusted already; `known` is how it is known from now on: a label that it has stays. */
export function trustKey(key: PublicKey): { readonly added: boolean; readonly known: PublicKey } {
  const store = new KeyStore();
  const added = store.trust(key);
  const own = store.find();
  if (own?.key.equals(key.key)) return { added, known: { key: own.key, label: ownLabel() } };
  return { added, known: store.trusted().find((one) => one.key.equals(key.key)) ?? key };
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
  const labelled = known.filter(({ label }) => label === words);
  const typed = parseKey(words);
  const given = typed ?? (labelled.length === 0 ? await read(words).catch(notFound) : null);
  if (given && store.find()?.key.equals(given.key))
    throw new DormouseError('KEY_INVALID', "this host's own key is always trusted");
  const named = given && known.find(({ key }) => key.equals(given.key));
  if (!named && labelled.length > 1)
    throw new DormouseError(
      'KEY_INVALID',
      `${labelled.length} keys are called '${words}': name the key itself`,
    );
  const found = named ?? labelled[0];
  if (!found || !store.forget(found.key))
    throw new DormouseError('KEY_INVALID', 'that key is not among those trusted (dormouse key list)');
  return found;
}
