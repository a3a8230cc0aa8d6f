/** What the verifier finds wrong. */
export interface Finding {
  /** What is wrong, in a sentence. */
  readonly what: string;
  /** The file, where it is an ancestor's. */
  readonly path?: string;
  readonly chunk?: number;
  /** Byte offset in the file. */
  readonly offset?: number;
  /** Runs `[first, count]` of the pfns whose content is lost or in doubt. */
  readonly pfns?: readonly (readonly [first: number, count: number])[];
}
