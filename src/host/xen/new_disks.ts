/** A configuration of libxl's with other disks. */
import { DormouseError } from '../../errors.js';
import { parseXlConfig } from '../../xenstream/xl_config.js';

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null;

/** Of libxl's configuration as JSON: raw files or devices of this machine, with Xen's own script. */
export function configWithDisks(config: string, paths: ReadonlyMap<string, string>): string {
  const invalid = (why: string): DormouseError => new DormouseError('CONFIG_INVALID', why, { guest: 'none' });
  const parsed = parseXlConfig(config);
  if (!parsed) throw invalid('the configuration is not that of an xl domain');
  const left = new Map(paths);
  const disks = (Array.isArray(parsed['disks']) ? parsed['disks'] : []).map((disk: unknown) => {
    const vdev = isObject(disk) ? disk['vdev'] : undefined;
    const path = typeof vdev === 'string' ? left.get(vdev) : undefined;
    if (!isObject(disk) || typeof vdev !== 'string' || path === undefined) return disk;
    left.delete(vdev);
    const rest = Object.entries(disk).filter(([key]) => key !== 'script');
    return { ...Object.fromEntries(rest), pdev_path: path, format: 'raw' };
  });
  const [missing] = left.keys();
  if (missing !== undefined) throw invalid(`the configuration has no disk ${missing}`);
  return JSON.stringify({ ...parsed, disks });
}
