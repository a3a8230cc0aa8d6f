/**
 * What the configuration string of an embedded domain may hold: which program the guest runs and how. Images carry the
 * string untouched, so a domain of another host has one of another form; such a domain can be held but not booted.
 */
import * as z from 'zod';
import { DormouseError } from '../../errors.js';
import type { DomainSpec } from '../contract.js';
import { type GuestOptions, guestPrograms } from './hypervisor.js';
import { anyUuid } from '../../uuid.js';

function wholeTo(most: number): z.ZodNumber {
  const says = `a whole number from 0 to ${most}`;
  return z.number(says).int(says).min(0, says).max(most, says);
}

const u32 = wholeTo(2 ** 32 - 1);
const whole = wholeTo(Number.MAX_SAFE_INTEGER);
const percent = wholeTo(100);

const diskSchema = z.strictObject({
  /** Absolute; a file or block device of whole pages. */
  file: z
    .string()
    .max(4096)
    .regex(/^\/[^\0]*$/u, 'an absolute path'),
  readOnly: z.boolean().default(false),
});

export type DiskConfig = z.output<typeof diskSchema>;

const configSchema = z.strictObject({
  program: z.enum(guestPrograms as [GuestOptions['program'], ...GuestOptions['program'][]], {
    error: ({ input }) => `one of ${guestPrograms.join(', ')}, not ${String(input)}`,
  }),
  seed: u32.default(1),
  /** Each vCPU blocks for ever after so many steps; 0 = runs on. */
  steps: whole.default(0),
  /** Steps per second of each vCPU; 0 = as fast as it can. */
  rate: u32.default(0),
  /** Writer: pages written to by all vCPUs together; 0 = all of memory. */
  workingSetPages: whole.default(0),
  /** Writer: percent of the writes that go to the first tenth of the working set. */
  skewPercent: percent.default(0),
  /** Percent of the pages that hold content at boot. */
  fillPercent: percent.default(50),
  /** Crasher: the step at which vCPU 0 crashes the domain. */
  crashAt: whole.default(1000),
  /** Never answers a suspend request. */
  deaf: z.boolean().default(false),
  onCrash: z.enum(['preserve', 'destroy']).default('preserve'),
  disks: z.array(diskSchema).max(4, 'at most 4').default([]),
  /** Network interfaces; what they send comes back. */
  networks: wholeTo(4).default(0),
});

/** As a user writes it: everything but `program` has a default. */
export type EmbeddedConfig = z.input<typeof configSchema>;

/** The configuration string for a guest. */
export const embeddedConfig = (config: EmbeddedConfig): string => JSON.stringify(config);

const maxVcpus = 8;

function invalid(message: string, cause?: unknown): DormouseError {
  return new DormouseError('CONFIG_INVALID', message, { cause });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (thrown) {
    throw invalid(`the configuration is not JSON: ${(thrown as Error).message}`, thrown);
  }
}

/** CONFIG_INVALID if no domain can be built from it on this host; HOST_LACKS for its type. */
export function checkSpec(spec: DomainSpec): void {
  if (!/^[^/\p{Cc}\p{Z}]{1,64}$/u.test(spec.name))
    throw invalid(`not a domain name (1 to 64 characters, no blank or slash): ${JSON.stringify(spec.name)}`);
  if (!anyUuid.test(spec.uuid)) throw invalid(`not a uuid: ${JSON.stringify(spec.uuid)}`);
  if (spec.vcpus < 1 || spec.vcpus > maxVcpus) throw invalid(`vcpus: 1 to ${maxVcpus}, not ${spec.vcpus}`);
  if (spec.maxMemoryKib < 4 || spec.maxMemoryKib % 4 !== 0 || spec.maxMemoryKib > 2 ** 32)
    throw invalid(`maxMemoryKib: a multiple of 4, not ${spec.maxMemoryKib}`);
  if (spec.type === 'hvm') throw new DormouseError('HOST_LACKS', 'the embedded host has no HVM domains');
}

/** A field as the user of `create` knows it: fillPercent is fill_percent. */
const settingOf = (field: string): string => field.replace(/[A-Z]/gu, (letter) => `_${letter.toLowerCase()}`);

/** The guest to boot. CONFIG_INVALID naming the field that is wrong; HOST_LACKS for a type that it cannot boot. */
export function guestOptions(spec: DomainSpec, ports: { store: number; console: number }): GuestOptions {
  if (spec.type !== 'pv')
    throw new DormouseError('HOST_LACKS', `the embedded host boots pv domains, not ${spec.type}`);
  const parsed = configSchema.safeParse(parseJson(spec.config));
  if (!parsed.success) {
    const wrong = parsed.error.issues.map(({ path, message }) =>
      [...path.map((name) => settingOf(String(name))), message].join(': '),
    );
    throw invalid(`the configuration is wrong: ${wrong.join('; ')}`);
  }
  const program = parsed.data;
  const pages = spec.maxMemoryKib / 4;
  const least = 256 + 64 * spec.vcpus;
  if (pages < least)
    throw invalid(
      `a guest of ${spec.vcpus} vCPU${spec.vcpus === 1 ? '' : 's'} needs at least ${least * 4} KiB of memory`,
    );
  if (program.workingSetPages > pages)
    throw invalid(`working_set_pages: at most the ${pages} pages of the guest`);
  return { ...program, pages, storePort: ports.store, consolePort: ports.console };
}

/** The disks that the configuration names: xvda, xvdb, ...; none where it is one of another host's. */
export function diskConfigs(config: string): readonly DiskConfig[] {
  try {
    return z.object({ disks: configSchema.shape.disks }).parse(JSON.parse(config)).disks;
  } catch {
    return [];
  }
}

/** How many network interfaces the configuration names. */
export function networkCount(config: string): number {
  try {
    return z.object({ networks: configSchema.shape.networks }).parse(JSON.parse(config)).networks;
  } catch {
    return 0;
  }
}

/** What becomes of the domain when it crashes: kept to be looked at unless its configuration says otherwise. */
export function crashAction(config: string): 'preserve' | 'destroy' {
  try {
    const action = z.object({ onCrash: z.literal('destroy') }).safeParse(JSON.parse(config));
    return action.success ? 'destroy' : 'preserve';
  } catch {
    return 'preserve';
  }
}
