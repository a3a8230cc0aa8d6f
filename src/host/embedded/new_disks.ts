/** A configuration of this host's with other disks. */
import { DormouseError } from '../../errors.js';

function disksOf(config: string): { readonly disks?: readonly object[] } {
  try {
    return JSON.parse(config) as { readonly disks?: readonly object[] };
  } catch (cause) {
    throw new DormouseError('CONFIG_INVALID', 'the configuration is not JSON', { cause });
  }
}

/** `configWithDisks` of the contract: disks are called xvda, xvdb, ... in their order. */
export function configWithDisks(config: string, paths: ReadonlyMap<string, string>): string {
  const parsed = disksOf(config);
  const disks = [...(parsed.disks ?? [])];
  for (const [name, file] of paths) {
    const index = (/^xvd([a-z])$/u.exec(name)?.[1]?.charCodeAt(0) ?? 0) - 'a'.charCodeAt(0);
    const disk = disks[index];
    if (!disk) throw new DormouseError('CONFIG_INVALID', `the configuration has no disk ${name}`);
    disks[index] = { ...disk, file };
  }
  return JSON.stringify({ ...parsed, disks });
}
