/** What `restore` and `image check` are told of trust, name and disks. */
import type * as z from 'zod';
import { DormouseError } from '../errors.js';
import type { Host } from '../host/contract.js';
import type { CheckOptions } from '../restore/check.js';
import { shellWord } from '../trust/shell_word.js';
import { hostWords } from './advice.js';
import { readConfigFile } from './config_file.js';
import type { Context } from './context.js';
import { domainSpec } from './create_spec.js';
import { parseConfig } from './domain_config.js';
import { flag, maybeText } from './input.js';
import { given, type VerbOption } from './verb.js';

export const trustOptions: readonly VerbOption[] = [
  { flags: '--name <name>', says: 'name of the new domain, instead of the one in the image' },
  { flags: '--config <file>', says: "configuration (xl.cfg, or libxl's JSON) to use instead of the image's" },
  { flags: '--trust-config', says: "use the image's configuration, whatever it names" },
  { flags: '--force', says: 'take disks although another domain may write to them' },
];

export const trustFields = {
  ...{ scratch: maybeText, name: maybeText, config: maybeText },
  ...{ trustConfig: flag, force: flag },
};

/** `paused` is of `restore` alone. */
export type RestoreInput = z.output<z.ZodObject<typeof trustFields>> & { readonly paused?: boolean };

/** How `what` (a file, or a point of a store) is restored, with room for an option. */
export async function typedOf(
  context: Context,
  input: RestoreInput,
  what: readonly string[],
): Promise<NonNullable<CheckOptions['typed']>> {
  const host = await hostWords(context.globals);
  const values = (['name', 'scratch'] as const).flatMap((name) => {
    const value = input[name];
    return value === undefined ? [] : [`--${name}`, shellWord(value)];
  });
  const flags = (['paused', 'force'] as const).filter((name) => input[name]).map((name) => `--${name}`);
  return {
    before: ['dormouse', ...(host === '' ? [] : [host]), 'restore'].join(' '),
    after: [...flags, ...values, ...what.map(shellWord)].join(' '),
  };
}

/** CONFIG_INVALID for a file that is no configuration. */
async function configOf(context: Context, host: Host, path: string): Promise<string> {
  const text = await readConfigFile(path);
  if (text.trimStart().startsWith('{')) {
    try {
      JSON.parse(text);
      return text;
    } catch (thrown) {
      throw new DormouseError('CONFIG_INVALID', `${path} is not JSON: ${(thrown as Error).message}`, {
        cause: thrown,
        place: { path },
      });
    }
  }
  if (host.readXlConfig) return host.readXlConfig(text);
  const { spec, ignored } = domainSpec(parseConfig(text, path));
  if (ignored.length > 0) context.warn(`settings without meaning here: ${ignored.join(', ')}`);
  return spec.config;
}

/** USAGE for --config and --trust-config together. */
export async function restoreChoices(
  context: Context,
  host: Host,
  { name, scratch, config: file, trustConfig, force }: RestoreInput,
  typed: NonNullable<CheckOptions['typed']>,
): Promise<Omit<CheckOptions, 'signal' | 'onProgress'>> {
  if (file !== undefined && trustConfig)
    throw new DormouseError('USAGE', "--config replaces the image's configuration, --trust-config keeps it");
  return {
    typed,
    trustConfig,
    force,
    ...given({ name, scratchDir: scratch }),
    ...(file !== undefined && { config: await configOf(context, host, file) }),
  };
}
