/** What stands against a rollback, found before the domain is touched. */
import { requireWhole } from '../capture/stand_still.js';
import { refuseSavedDeviceModel } from '../domain/hvm.js';
import type { DomainInfo, MemoryGeometry } from '../domain/state.js';
import { sharedInfoBytes } from '../domain/vcpu_context.js';
import { DormouseError } from '../errors.js';
import type { Host } from '../host/contract.js';
import type { ImageReader } from '../image/reader.js';
import type { RollbackOptions } from './job.js';

/** HOST_LACKS where the host cannot rewrite a domain in place. */
export async function requireRewrite(host: Host): Promise<void> {
  const have = (await host.capabilities()).rewrite;
  if (have !== true || !(host.rewrite ?? host.rewind) || !host.openToRewrite)
    throw new DormouseError('HOST_LACKS', `a rollback needs rewrite: ${String(have)}`);
}

/** A domain that a rollback left half done is whole again after the next one; one that is being built is not ours. */
export function requireThere(info: DomainInfo): void {
  if (!info.rewinding) requireWhole(info);
}

/** The domain must be one that its point before the rollback can be taken of. */
export function requireSafetyPossible({ name, rewinding, shutdown }: DomainInfo): void {
  const why = rewinding ? 'is half rewound' : shutdown === null ? null : `has shut down (${shutdown})`;
  if (why === null) return;
  throw new DormouseError('DOMAIN_WRONG_STATE', `${name} ${why}: no safety image can be taken of it`, {
    advice: 'Say `--no-safety` to roll it back without one.',
  });
}

function notOf(message: string): DormouseError {
  return new DormouseError('IMAGE_INCOMPATIBLE', message, {
    advice: 'Use an image of this domain; `dormouse restore` makes a new domain of another.',
  });
}

/**
 * The image must be one of this domain as it is built. Who signed it does not matter: nothing of its configuration is used, and
 * a guest that goes back to another memory is still confined to what its own configuration gives it.
 */
export function requireOwnImage(
  host: Host,
  info: DomainInfo,
  { nrPfns }: MemoryGeometry,
  reader: ImageReader,
): void {
  const { hostKind, domain, geometry, consistency, state } = reader.manifest;
  refuseSavedDeviceModel(domain);
  if (domain.uuid.toLowerCase() !== info.uuid.toLowerCase())
    throw notOf(`the image is of '${domain.name}' (uuid ${domain.uuid}), not of ${info.name} (${info.uuid})`);
  if (hostKind !== host.kind)
    throw notOf(
      `the image was taken on a host of kind ${hostKind}, ${info.name} is on one of kind ${host.kind}`,
    );
  if (domain.type !== info.type)
    throw notOf(`the image is of a ${domain.type} domain, ${info.name} is a ${info.type} one`);
  // One that goes back to a pause has on those that it had on then; a kernel that panics switches some off.
  if (domain.vcpus !== info.vcpus && consistency !== 'paused')
    throw notOf(`the image has ${domain.vcpus} vCPUs, ${info.name} has ${info.vcpus}`);
  if (geometry.nrPfns !== nrPfns)
    throw notOf(`the image has ${geometry.nrPfns} pfns, ${info.name} has ${nrPfns}`);
  if (consistency === 'paused' && !host.rewind)
    throw new DormouseError(
      'IMAGE_NOT_RESTORABLE',
      'the image was taken of a paused guest, not at its suspend point: this host cannot go back to it',
    );
  if (consistency !== 'paused' && !host.rewrite)
    throw new DormouseError(
      'IMAGE_NOT_RESTORABLE',
      "the image was taken at the guest's suspend point: this host goes back in place only to light ones",
    );
  if (domain.type !== 'pv') return;
  if (geometry.guestWidth !== 8)
    throw notOf('the image holds a 32-bit PV guest; only 64-bit ones are handled');
  if (state.sharedInfo.length !== sharedInfoBytes)
    throw new DormouseError('IMAGE_DAMAGED', `shared info has ${state.sharedInfo.length} bytes`);
}

/** What the host has against it, seen before anything is begun. */
export async function requireNoObstacle(
  host: Host,
  { domid }: DomainInfo,
  reader: ImageReader,
  { keepDisks = false }: RollbackOptions,
): Promise<void> {
  if (reader.manifest.consistency !== 'paused') return;
  const target = { state: reader.manifest.state, keepDisks };
  const [first, ...others] = (await host.rewindObstacles?.(domid, target)) ?? [];
  if (!first) return;
  const details = others.map(({ message }) => message);
  throw new DormouseError(first.code, first.message, { place: { domid }, details });
}
