/**
 * Verifies an image without the writer's or the reader's code: it parses every structure by itself, reads every byte,
 * decodes every block, and goes on after damage. It shares with them only the constants of format.ts.
 */
export interface Finding {
  /** What is wrong, in a sentence. */
  readonly what: string;
  readonly chunk?: number;
  /** Byte offset in the file. */
  readonly offset?: number;
  /** Runs `[first, count]` of the pfns whose content is lost or in doubt. */
  readonly pfns?: readonly (readonly [first: number, count: number])[];
}

export interface VerifyReport {
  readonly path: string;
  /** Hex, or null where the first page is unreadable. */
  readonly imageId: string | null;
  /** The root as recomputed, or null where the index is damaged. */
  readonly root: string | null;
  readonly bytesRead: number;
  readonly chunksChecked: number;
  readonly blocksDecoded: number;
  readonly nrPfns: number;
  /** Empty for a whole image. At most 1000; `more` counts the rest. */
  readonly findings: readonly Finding[];
  readonly more: number;
}

/**
 * Reads all of the file. Damage is reported, not thrown; errors: IMAGE_NOT_FOUND, IMAGE_READ_FAILED,
 * IMAGE_INCOMPATIBLE (a format this version cannot judge), CANCELLED.
 */
export async function verifyImage(
  _path: string,
  _options: { onProgress?: (doneBytes: number, totalBytes: number) => void; signal?: AbortSignal } = {},
): Promise<VerifyReport> {
  await Promise.resolve();
  throw new Error('being written');
}
