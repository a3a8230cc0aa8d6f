/** A key as an argument: the line of `key show`, its base64 form, or a file that holds it. */
import { DormouseError } from '../errors.js';
import { keyText, parseKey, type PublicKey } from '../trust/key_text.js';
import { readConfigFile } from './config_file.js';

/** KEY_INVALID for what is neither. */
export async function publicKeyOf(argument: string): Promise<PublicKey> {
  const typed = parseKey(argument);
  if (typed) return typed;
  let text: string;
  try {
    text = await readConfigFile(argument);
  } catch (thrown) {
    throw new DormouseError('KEY_INVALID', `${argument} is neither a key nor a file with one`, {
      cause: thrown,
    });
  }
  const held = parseKey(text);
  if (held) return held;
  throw new DormouseError('KEY_INVALID', `${argument} holds no line of \`dormouse key show\``);
}

export const textOfKey = ({ key, label }: PublicKey): { key: string; label: string } => ({
  key: keyText(key),
  label,
});
