/** The field table under a heading of a specification: name, offset and size of each row. */
export function fieldTable(text: string, heading: string): Record<string, [number, number]> {
  const section = text.split(new RegExp(`^#+ ${heading}$`, 'm'))[1]?.split(/^#/m)[0] ?? '';
  const rows = [...section.matchAll(/^\| (\d+) \| (\d+) \| (\w+) \|/gm)];
  return Object.fromEntries(
    rows.map(([, offset, size, name = '']): [string, [number, number]] => [
      name,
      [Number(offset), Number(size)],
    ]),
  );
}
