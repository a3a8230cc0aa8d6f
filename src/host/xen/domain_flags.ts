/** What the flags of XEN_DOMCTL_getdomaininfo mean (xen/domctl.h, xen/arch-x86/xen.h). */
import { type ShutdownReason, shutdownReasons } from '../../domain/state.js';
import type { DomainType } from '../../domain/type.js';

export const domainFlag = {
  dying: 1 << 0,
  hvm: 1 << 1,
  shutdown: 1 << 2,
  paused: 1 << 3,
  blocked: 1 << 4,
  running: 1 << 5,
} as const;

const reasonShift = 16;
const reasonMask = 0xff;

export const hasFlag = (flags: number, name: keyof typeof domainFlag): boolean =>
  (flags & domainFlag[name]) !== 0;

/** Null while the domain has not shut down. A reason this program does not know counts as a crash. */
export function shutdownReason(flags: number): ShutdownReason | null {
  if (!hasFlag(flags, 'shutdown')) return null;
  return shutdownReasons[(flags >>> reasonShift) & reasonMask] ?? 'crash';
}

/** XEN_X86_EMU_{HPET,PM,RTC,PIC,VGA,IOMMU,PIT}: Xen lets a domain have them with a device model only. */
const besideDeviceModel = 0b1_1110_1110;

/** To the hypervisor a PVH domain is an HVM one too; what tells them apart is the device model, which only HVM has. */
export function domainType({ flags, emulation }: { flags: number; emulation: number }): DomainType {
  if (!hasFlag(flags, 'hvm')) return 'pv';
  return (emulation & besideDeviceModel) !== 0 ? 'hvm' : 'pvh';
}

/** The usual form of the 16 bytes of a domain handle. */
export function uuidOf(handle: Buffer): string {
  const hex = handle.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
