/** A JSON schema as a short text, for docs/operating.md. */

interface Schema {
  readonly type?: string;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Schema[];
  readonly items?: Schema;
  readonly prefixItems?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: Schema | boolean;
}

/** `{ name: string, sizes?: integer[] }`, indented. */
export function renderShape(schema: Schema, indent = ''): string {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  if (schema.anyOf) return schema.anyOf.map((part) => renderShape(part, indent)).join(' | ');
  if (schema.prefixItems)
    return `[${schema.prefixItems.map((part) => renderShape(part, indent)).join(', ')}]`;
  if (schema.items) return `${renderShape(schema.items, indent)}[]`;
  if (schema.properties) {
    const inner = `${indent}  `;
    const fields = Object.entries(schema.properties).map(([name, part]) => {
      const optional = schema.required?.includes(name) === true ? '' : '?';
      return `${name}${optional}: ${renderShape(part, inner)}`;
    });
    const short = `{ ${fields.join(', ')} }`;
    if (short.length < 90 && !short.includes('\n')) return short;
    return `{\n${fields.map((field) => `${inner}${field}\n`).join('')}${indent}}`;
  }
  if (typeof schema.additionalProperties === 'object')
    return `{ [name]: ${renderShape(schema.additionalProperties, indent)} }`;
  return schema.type ?? 'any';
}
