/** What the lab itself could not do; a test that meets one fails. */
export class LabError extends Error {
  override readonly name = 'LabError';
}
