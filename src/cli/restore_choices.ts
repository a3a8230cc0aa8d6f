/** What `restore` and `image check` are told of trust, name and disks. */
import { DormouseError } from '../errors.js';
import type { Host } from '../host/contract.js';
import type { CheckOptions } from '../restore/check.js';
import { shellWord } from '../trust/shell_word.js';
import { readConfigFile } from './config_file.js';
import type { Context } from './context.js';
import { domainSpec } from './create_spec.js';
import { parseConfig } from './domain_config.js';
import { flag, textArgument, textOption, type VerbInput, type VerbOption } from './verb.js';

export const trustOptions: readonly VerbOption[] = [
  { flags: '--name <name>', says: 'name of the new domain, instead of the one in the image' },
  { flags: '--config <file>', says: "configuration (xl.cfg, or libxl's JSON) to use instead of the image's" },
  { flags: '--trust-config', says: "use the image's configuration, whatever it names" },
  { flags: '--force', says: 'take disks although another domain may write to them' },
];

/** How the file is restored, with room for an option. */
export function typedOf(
  context: Context,
  input: VerbInput,
): NonNullable<CheckOptions['typed']> {
  const { host } = context.globals;
  const values = ['name', 'scratch'].flatMap((name) => {
    const value = textOption(input, name);
    return value === undefined ? [] : [`--${name}`, shellWord(value)];
  });
  const flags = ['paused', 'force'].filter((name) => flag(input, name)).map((name) => `--${name}`);
  return {
    before: ['dormouse', ...(host === undefined ? [] : ['--host', shellWord(host)]), 'restore'].join(' '),
    after: [...flags, ...values, shellWord(textArgument(input, 0))].join(' '),
  };
}

/** CONFIG_INVALID for a file that is no configuration. */
async function configOf(host: Host, path: string): Promise<string> {
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
  return host.readXlConfig ? host.readXlConfig(text) : domainSpec(parseConfig(text, path)).spec.config;
}

/** USAGE for --config and --trust-config together. */
export async function restoreChoices(
  host: Host,
  input: VerbInput,
  typed: NonNullable<CheckOptions['typed']>,
): Promise<Omit<CheckOptions, 'signal' | 'onProgress'>> {
  const [name, scratchDir, file] = ['name', 'scratch', 'config'].map((option) => textOption(input, option));
  const trustConfig = flag(input, 'trustConfig');
  if (file !== undefined && trustConfig)
    throw new DormouseError('USAGE', "--config replaces the image's configuration, --trust-config keeps it");
  return {
    typed,
    trustConfig,
    force: flag(input, 'force'),
    ...(name !== undefined && { name }),
    ...(scratchDir !== undefined && { scratchDir }),
    ...(file !== undefined && { config: await configOf(host, file) }),
  };
}
