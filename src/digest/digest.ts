import type { Host } from '../host/contract.js';
import type { OperationOptions } from '../domain/progress.js';

export interface DigestResult {
  /** Hex; equal for two domains or images with the same pages, types and registers, whatever their machine frames. */
  readonly digest: string;
  readonly pages: number;
  readonly vcpus: number;
}

/** Digest of a domain's canonical memory and registers; a running domain is paused meanwhile. */
export async function digestDomain(
  _host: Host,
  _selector: string,
  _options: OperationOptions = {},
): Promise<DigestResult> {
  await Promise.resolve();
  throw new Error('being written');
}

/** The same digest of an image's content. */
export async function digestImage(_path: string, _options: OperationOptions = {}): Promise<DigestResult> {
  await Promise.resolve();
  throw new Error('being written');
}
