/**
 * What an image may bring into the configuration of a new domain without being trusted: an allow-list over libxl's
 * domain configuration as JSON. Nothing on it names a path, a script, a program, a device, a bridge, another domain or
 * a share of the host beyond what the guest itself had, and every value has a form and a bound.
 */
import type { DomainType } from '../domain/type.js';
import { anyUuid } from '../uuid.js';

export type Rule = (value: unknown) => boolean;
export interface Shape {
  readonly [key: string]: Rule | Shape;
}

/** What is known of the domain besides its configuration. */
export interface ConfiguredDomain {
  /** Null where the user gave one. */
  readonly name: string | null;
  readonly type: DomainType;
  readonly config: string;
}

const integer =
  (least: number, most: number): Rule =>
  (value) =>
    typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most;
const text =
  (form: RegExp): Rule =>
  (value) =>
    typeof value === 'string' && form.test(value);
const word = (...words: string[]): Rule => {
  const known = new Set<unknown>(words);
  return (value) => known.has(value);
};
const either =
  (...rules: Rule[]): Rule =>
  (value) =>
    rules.some((rule) => rule(value));
const listOf =
  (item: Rule, most: number): Rule =>
  (value) =>
    Array.isArray(value) && value.length <= most && value.every(item);
/** An object with these fields only; each may be missing. */
const fields =
  (shape: Readonly<Record<string, Rule>>): Rule =>
  (value) =>
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.entries(value).every(([key, held]) => Object.hasOwn(shape, key) && shape[key]?.(held));

/** libxl_defbool, or a plain boolean. */
const yesNo: Rule = either(word('True', 'False', '<default>'), (value) => typeof value === 'boolean');
const no: Rule = either(word('False', '<default>'), (value) => value === false);
const zero = integer(0, 0);
const u32 = integer(0, 0xffff_ffff);
/** LIBXL_MAX_GRANT_DEFAULT as the signed or unsigned number that libxl writes. */
const unset: Rule = either(integer(-1, -1), integer(0xffff_ffff, 0xffff_ffff));
/** 16 TiB: what any format here can hold. */
const memoryKib = either(integer(-1, -1), integer(0, 2 ** 34));
/** Page tables and grants of a domain take memory of the host beside its own. */
const sideMemoryKib = integer(-1, 2 ** 22);
const maxVcpus = 8192;

/** Nothing that is a path, an option or of meaning to a shell: scripts and completions are handed it. */
export const plainName = /^[\p{L}\p{N}_][\p{L}\p{N}_ .+:@-]{0,255}$/u;
/** The guest's own kernel is told this; it leads nowhere on the host. */
const guestWords = /^[^\p{C}]{0,4096}$/u;

const cpuidRegister = text(/^[01xksX]{32}$/);
const cpuidLeaf = fields({
  leaf: u32,
  subleaf: u32,
  eax: cpuidRegister,
  ebx: cpuidRegister,
  ecx: cpuidRegister,
  edx: cpuidRegister,
});
const cpuidLeaves = listOf(cpuidLeaf, 1024);
const msr = fields({ index: u32, policy: text(/^[01xksX]{64}$/) });
const cpuid = either(cpuidLeaves, fields({ cpuid: cpuidLeaves, msr: listOf(msr, 1024) }));

/** Without coredump_*, which write a file of the host. */
const action = word('destroy', 'restart', 'rename_restart', 'preserve', 'soft_reset');

/** xl's own defaults at most: more would be a larger share of the host's processors. */
const schedule: Shape = {
  sched: word('unknown', 'credit', 'credit2', 'null'),
  weight: integer(-1, 256),
  cap: integer(-1, 100 * maxVcpus),
};

/** Fields of one type of guest. */
function ofType(type: DomainType): Shape {
  if (type === 'pv') return { 'type.pv': { slack_memkb: integer(-1, 1 << 20), cmdline: text(guestWords) } };
  return type === 'pvh' ? { 'type.pvh': { pvshim: no } } : {};
}

/** The allow-list for a guest of that type. */
export function allowedOf(type: DomainType): Shape {
  return {
    c_info: {
      type: word(type),
      name: text(plainName),
      uuid: text(anyUuid),
      hap: yesNo,
      oos: yesNo,
      ssidref: zero,
      poolid: zero,
      // Any that is free.
      domid: integer(0xffff_ffff, 0xffff_ffff),
      // Of devices, and these are not on the list.
      run_hotplug_scripts: yesNo,
      driver_domain: no,
      passthrough: word('default', 'disabled'),
      xend_suspend_evtchn_compat: yesNo,
    },
    b_info: {
      max_vcpus: integer(1, maxVcpus),
      avail_vcpus: listOf(integer(0, maxVcpus - 1), maxVcpus),
      numa_placement: yesNo,
      tsc_mode: word('default', 'always_emulate', 'native', 'native_paravirt'),
      timer_mode: word(
        'unknown',
        'delay_for_missed_ticks',
        'no_delay_for_missed_ticks',
        'no_missed_ticks_pending',
        'one_missed_tick_pending',
      ),
      max_memkb: memoryKib,
      target_memkb: memoryKib,
      video_memkb: either(integer(-1, -1), zero),
      shadow_memkb: sideMemoryKib,
      iommu_memkb: sideMemoryKib,
      rtc_timeoffset: u32,
      localtime: yesNo,
      exec_ssidref: zero,
      disable_migrate: yesNo,
      cpuid,
      blkdev_start: text(/^(xvd|sd|hd)[a-z]$/),
      max_grant_frames: either(unset, integer(0, 64)),
      max_maptrack_frames: either(unset, integer(0, 1024)),
      max_grant_version: either(unset, integer(0, 2)),
      device_model_version: word('unknown', 'none', 'qemu_xen'),
      device_model_ssidref: zero,
      device_model_stubdomain: no,
      sched_params: schedule,
      claim_mode: yesNo,
      event_channels: integer(0, 4096),
      cmdline: text(guestWords),
      acpi: yesNo,
      apic: yesNo,
      nested_hvm: no,
      dm_restrict: yesNo,
      tee: word('none'),
      arch_arm: { gic_version: word('DEFAULT', 'default'), vuart: word('unknown') },
      arch_x86: { msr_relaxed: no },
      altp2m: word('disabled'),
      vmtrace_buf_kb: zero,
      vpmu: no,
      ...ofType(type),
    },
    on_poweroff: action,
    on_reboot: action,
    on_watchdog: action,
    on_crash: action,
    on_soft_reset: action,
  };
}
