/**
 * HVM guests are left to Xen's own tools: the state of their device model is in no image, and the pages it writes past the guest
 * are in no log of ours. PVH guests have none.
 */
import { DormouseError } from '../errors.js';
import type { DomainInfo } from './state.js';

const ownHelper = "with Xen's own helper (LIBXL_SAVE_HELPER not set)";

/** HOST_LACKS for a guest that has a device model. */
export function refuseDeviceModel({ domid, name, type }: Pick<DomainInfo, 'domid' | 'name' | 'type'>): void {
  if (type !== 'hvm') return;
  throw new DormouseError(
    'HOST_LACKS',
    `${name} is an HVM guest, whose device model dormouse cannot save: use \`xl save\` or \`xl migrate\` ${ownHelper}`,
    { place: { domid } },
  );
}

/** IMAGE_INCOMPATIBLE for what was saved of a guest with a device model. */
export function refuseSavedDeviceModel({ name, type }: Pick<DomainInfo, 'name' | 'type'>): void {
  if (type !== 'hvm') return;
  throw new DormouseError(
    'IMAGE_INCOMPATIBLE',
    `${name} is an HVM guest, whose device model dormouse cannot restore: use \`xl restore\` ${ownHelper} ` +
      'on the file of `xl save`',
  );
}
