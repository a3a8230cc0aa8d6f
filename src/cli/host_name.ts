/** Which embedded host a `host` verb means: --name, else the one of --host, else `default`. */
import { DormouseError } from '../errors.js';
import type { Context } from './context.js';
import { textOption, type VerbInput } from './verb.js';

export const nameOption = { flags: '--name <name>', says: 'which embedded host (default: that of --host, else default)' };

export function embeddedName(context: Context, input: VerbInput): string {
  const name = textOption(input, 'name');
  if (name !== undefined) return name;
  const selector = context.globals.host ?? 'embedded';
  const [kind, chosen] = selector.split(/:(.*)/su);
  if (kind === 'embedded') return chosen === undefined || chosen === '' ? 'default' : chosen;
  throw new DormouseError('USAGE', `${selector} is not an embedded host; give --name`);
}
