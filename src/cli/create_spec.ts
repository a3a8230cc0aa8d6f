/** From the settings of a configuration to what the host is asked to create. */
import { randomUUID } from 'node:crypto';
import { resolve } from 'node:path';
import { DormouseError } from '../errors.js';
import type { DomainSpec, XlDomain } from '../host/contract.js';
import { type ConfigValue, renderSettings, type Settings } from './domain_config.js';
import { xlOnlySettings } from './xl_settings.js';
import { type DomainType, domainTypes } from '../domain/type.js';

/** Settings of guest programs: our name, the embedded host's name, and their form. The host checks their ranges. */
export const programSettings: Readonly<
  Record<string, readonly [field: string, form: 'number' | 'text' | 'yes-no' | 'files']>
> = {
  program: ['program', 'text'],
  seed: ['seed', 'number'],
  steps: ['steps', 'number'],
  rate: ['rate', 'number'],
  working_set_pages: ['workingSetPages', 'number'],
  skew_percent: ['skewPercent', 'number'],
  fill_percent: ['fillPercent', 'number'],
  crash_at: ['crashAt', 'number'],
  deaf: ['deaf', 'yes-no'],
  on_crash: ['onCrash', 'text'],
  disk_files: ['disks', 'files'],
  networks: ['networks', 'number'],
};

const ownSettings = new Set(['name', 'memory', 'vcpus', 'uuid', 'type', ...Object.keys(programSettings)]);

function invalid(message: string): never {
  throw new DormouseError('CONFIG_INVALID', message);
}

function describe(value: ConfigValue): string {
  return JSON.stringify(value).slice(0, 80);
}

function text(settings: Settings, name: string): string | undefined {
  const value = settings.get(name);
  if (value === undefined || typeof value === 'string') return value;
  return invalid(`${name}: a string is expected, not ${describe(value)}`);
}

/** xl takes a number also in quotes. */
function number(settings: Settings, name: string): number | undefined {
  const value = settings.get(name);
  if (value === undefined || typeof value === 'number') return value;
  if (typeof value === 'string' && /^[0-9]{1,15}$/u.test(value)) return Number(value);
  return invalid(`${name}: a whole number is expected, not ${describe(value)}`);
}

function yesNo(settings: Settings, name: string): boolean | undefined {
  const value = number(settings, name);
  if (value === undefined || value === 0 || value === 1) return value === undefined ? undefined : value === 1;
  return invalid(`${name}: 0 or 1 is expected, not ${value}`);
}

/** A file each, or a list of them; `,ro` behind one that is only read. */
function files(settings: Settings, name: string): { file: string; readOnly: boolean }[] | undefined {
  const value = settings.get(name);
  if (value === undefined) return undefined;
  return (Array.isArray(value) ? value : [value]).map((each) => {
    const [, file, mode] = /^(.+?)(?:,(ro|rw))?$/su.exec(typeof each === 'string' ? each : '') ?? [];
    if (file === undefined) return invalid(`${name}: paths of files are expected, not ${describe(each)}`);
    return { file: resolve(file), readOnly: mode === 'ro' };
  });
}

function domainType(settings: Settings): DomainType {
  const type = text(settings, 'type') ?? 'pv';
  const known = domainTypes.find((each) => each === type);
  if (known) return known;
  return invalid(`type: pv, pvh or hvm, not ${describe(type)}`);
}

/** The host's configuration string: JSON with the fields of its guest programs. */
function programConfig(settings: Settings): string {
  const readers = { number, text, 'yes-no': yesNo, files };
  const fields = Object.entries(programSettings).map(([name, [field, form]]) => [
    field,
    readers[form](settings, name),
  ]);
  return JSON.stringify({
    program: 'idle',
    ...Object.fromEntries(fields.filter(([, value]) => value !== undefined)),
  });
}

/** The domain to create where xl judges the settings. CONFIG_INVALID if it has no name. */
export function xlDomain(settings: Settings): XlDomain {
  return { name: requiredName(settings), xlConfig: renderSettings(settings) };
}

function requiredName(settings: Settings): string {
  const name = text(settings, 'name');
  return name === undefined || name === '' ? invalid('the name is missing: name = "..."') : name;
}

/**
 * The domain to create, and the settings that xl knows and that mean nothing here. CONFIG_INVALID for a setting that
 * is missing, unknown or of the wrong form.
 */
export function domainSpec(settings: Settings): { spec: DomainSpec; ignored: string[] } {
  const foreign = [...settings.keys()].filter((name) => !ownSettings.has(name));
  const unknown = foreign.filter((name) => !xlOnlySettings.has(name));
  if (unknown.length > 0) invalid(`unknown setting${unknown.length > 1 ? 's' : ''} ${unknown.join(', ')}`);
  const name = requiredName(settings);
  const memoryMib = number(settings, 'memory') ?? 256;
  if (memoryMib < 1 || memoryMib > 2 ** 26) invalid(`memory: 1 to ${2 ** 26} MiB, not ${memoryMib}`);
  const spec: DomainSpec = {
    name,
    uuid: (text(settings, 'uuid') ?? randomUUID()).toLowerCase(),
    type: domainType(settings),
    maxMemoryKib: memoryMib * 1024,
    vcpus: number(settings, 'vcpus') ?? 1,
    config: programConfig(settings),
  };
  return { spec, ignored: foreign };
}
