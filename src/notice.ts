/** A line on stderr that no operation fails for: a full disk behind it throws. */
export function notice(text: string): void {
  try {
    process.stderr.write(`dormouse: ${text}\n`);
  } catch {
    // There is no other place for it.
  }
}
