/** Plain tables and lists of facts: stable columns, no boxes. */

/** Columns as wide as their widest cell; columns of numbers, with or without a unit, go to the right. */
export function renderTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => (row[i] ?? '').length)));
  const right = head.map((_, i) => rows.every((row) => /^(-|[\d.,]+( [\w/]+)?)$/u.test(row[i] ?? '')));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => (right[i] ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
      .join('  ')
      .trimEnd();
  return [head, ...rows].map((cells) => `${line(cells)}\n`).join('');
}

/** `name:  value` lines with the values in one column; facts without a value are left out. */
export function renderFacts(facts: readonly (readonly [string, string | undefined])[]): string {
  const given = facts.filter((fact): fact is readonly [string, string] => fact[1] !== undefined);
  const width = Math.max(0, ...given.map(([name]) => name.length)) + 1;
  return given.map(([name, value]) => `${`${name}:`.padEnd(width)} ${value}\n`).join('');
}
