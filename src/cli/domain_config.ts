/**
 * The syntax of xl.cfg(5): `NAME = VALUE` ended by a line end or `;`, VALUE being a number, a string in single or double
 * quotes, or a list in brackets that may run over lines; `NAME += VALUE` appends
 * to a list or string; `#` starts a comment. The last setting
 * of a name counts. The text is hostile: its size and depth are limited, and an error names the line.
 */
import { DormouseError } from '../errors.js';

export type ConfigValue = string | number | ConfigValue[];
export type Settings = Map<string, ConfigValue>;

export const configLimits = { bytes: 1 << 20, listItems: 4096, listDepth: 8 } as const;

type Token =
  | { readonly kind: 'name' | 'string'; readonly text: string; readonly line: number }
  | { readonly kind: 'number'; readonly value: number; readonly line: number }
  | { readonly kind: '=' | '+=' | '[' | ']' | ',' | ';' | 'end' | 'eof'; readonly line: number };

const tokenPattern =
  /(?<blank>[ \t]+|#[^\n]*)|(?<end>\r?\n|;)|(?<name>[a-z][._0-9a-z]*)|(?<number>[0-9][0-9A-Za-z]*)|(?<mark>\+=|[=[\],])|(?<string>'(?:[^'\\\n]|\\[^\n])*'|"(?:[^"\\\n]|\\[^\n])*")/uy;

const plainEscapes: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
};

/** The settings of a configuration text. `source` names it in errors. Error: CONFIG_INVALID with the line. */
export function parseConfig(text: string, source: string): Settings {
  if (Buffer.byteLength(text) > configLimits.bytes)
    throw new DormouseError('CONFIG_INVALID', `${source} is larger than ${configLimits.bytes} bytes`);
  return new Parser(tokens(text, source), source).settings();
}

/** True for an argument of the form NAME=VALUE. */
export function isOverride(argument: string): boolean {
  return /^[a-z][._0-9a-z]*\s*\+?=/u.test(argument);
}

/** One NAME=VALUE of a command line, added to `settings`; a value that is no number, string or list is taken as it is. */
export function applyOverride(settings: Settings, argument: string): void {
  const [, name = '', value = ''] = /^([a-z][._0-9a-z]*)\s*=\s*(.*)$/su.exec(argument) ?? [];
  if (name !== '' && value === '')
    throw new DormouseError('CONFIG_INVALID', `${name}= has no value: ${name}=VALUE`);
  const bare = name !== '' && !/^(['"[]|[0-9]+$|0[xX][0-9A-Fa-f]+$)/u.test(value);
  if (bare && /^[^\p{Cc}]+$/u.test(value)) {
    settings.set(name, value);
    return;
  }
  for (const [key, parsed] of parseConfig(argument, `argument ${JSON.stringify(argument)}`))
    settings.set(key, parsed);
}

/** The settings as a configuration text that parses to the same. */
export function renderSettings(settings: Settings): string {
  return [...settings].map(([name, value]) => `${name} = ${renderValue(value)}\n`).join('');
}

function renderValue(value: ConfigValue): string {
  if (typeof value === 'number') return String(value);
  if (Array.isArray(value)) return `[${value.map(renderValue).join(', ')}]`;
  const escaped = value.replace(/[\\"\p{Cc}]/gu, (character) =>
    `\\"`.includes(character) ? `\\${character}` : escapeControl(character),
  );
  return `"${escaped}"`;
}

/** By an escape, where xl.cfg(5) has one for it: those of ASCII. */
function escapeControl(character: string): string {
  const code = character.charCodeAt(0);
  return code > 0x7f ? character : `\\x${code.toString(16).padStart(2, '0')}`;
}

function fail(source: string, line: number, message: string): never {
  throw new DormouseError('CONFIG_INVALID', `${source} line ${line}: ${message}`);
}

function* tokens(text: string, source: string): Generator<Token, undefined> {
  const pattern = new RegExp(tokenPattern);
  let line = 1;
  while (pattern.lastIndex < text.length) {
    const at = pattern.lastIndex;
    const found = pattern.exec(text)?.groups;
    if (!found) fail(source, line, describeBadStart(text.slice(at, at + 1)));
    const { end, name, number, mark, string } = found;
    if (end !== undefined) {
      yield { kind: end === ';' ? ';' : 'end', line };
      if (end !== ';') line++;
    } else if (name !== undefined) yield { kind: 'name', text: name, line };
    else if (number !== undefined) yield { kind: 'number', value: parseNumber(number, source, line), line };
    else if (mark !== undefined) yield { kind: mark as '=' | '+=' | '[' | ']' | ',', line };
    else if (string !== undefined)
      yield { kind: 'string', text: unquote(string.slice(1, -1), source, line), line };
  }
  yield { kind: 'eof', line };
  return undefined;
}

function describeBadStart(character: string): string {
  if (character === '"' || character === "'")
    return `a string that starts with ${character} does not end on its line`;
  return `unexpected character ${JSON.stringify(character)}`;
}

function parseNumber(text: string, source: string, line: number): number {
  const value = /^(0[xX][0-9A-Fa-f]+|[0-9]+)$/u.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value))
    fail(source, line, `${JSON.stringify(text)} is not a whole number below 2^53`);
  return value;
}

function unquote(body: string, source: string, line: number): string {
  return body.replace(/\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)/gsu, (_, escape: string) => {
    const plain = plainEscapes[escape];
    if (plain !== undefined) return plain;
    const code = /^x[0-9A-Fa-f]/u.test(escape)
      ? parseInt(escape.slice(1), 16)
      : /^[0-7]/u.test(escape)
        ? parseInt(escape, 8)
        : -1;
    if (code === 0 || code > 0x7f) fail(source, line, `escape \\${escape} is not an ASCII character`);
    if (code > 0) return String.fromCharCode(code);
    if (!`\\"'`.includes(escape)) fail(source, line, `unknown escape \\${escape}`);
    return escape;
  });
}

class Parser {
  private readonly input: Iterator<Token, undefined>;
  private readonly source: string;
  private token: Token;

  constructor(input: Generator<Token, undefined>, source: string) {
    this.input = input;
    this.source = source;
    this.token = { kind: 'end', line: 1 };
    this.next();
  }

  settings(): Settings {
    const settings: Settings = new Map();
    while (!this.at('eof')) {
      if (this.at('end') || this.at(';')) this.next();
      else this.setting(settings);
    }
    return settings;
  }

  private setting(settings: Settings): void {
    const { token } = this;
    if (token.kind !== 'name') return this.expected('a setting NAME = VALUE');
    this.next();
    const operator = this.token.kind;
    if (operator !== '=' && operator !== '+=') return this.expected(`= after ${token.text}`);
    this.next();
    const value = this.value(0);
    if (operator === '=') settings.set(token.text, value);
    else settings.set(token.text, this.appended(settings.get(token.text), value, token.line));
    if (!this.at('end') && !this.at(';') && !this.at('eof')) this.expected('the end of the line');
  }

  private appended(before: ConfigValue | undefined, value: ConfigValue, line: number): ConfigValue {
    if (before === undefined) return value;
    if (typeof before === 'string' && typeof value === 'string') return before + value;
    if (!Array.isArray(before) || !Array.isArray(value))
      fail(this.source, line, '+= needs two lists or two strings');
    if (before.length + value.length > configLimits.listItems)
      fail(this.source, line, 'the list is too long');
    return [...before, ...value];
  }

  private value(depth: number): ConfigValue {
    const { token } = this;
    if (token.kind === 'string') {
      this.next();
      return token.text;
    }
    if (token.kind === 'number') {
      this.next();
      return token.value;
    }
    if (token.kind === '[') return this.list(depth);
    return this.expected('a number, a quoted string or a [list]');
  }

  private list(depth: number): ConfigValue[] {
    const { line } = this.token;
    if (depth >= configLimits.listDepth) fail(this.source, line, 'lists are nested too deeply');
    const items: ConfigValue[] = [];
    this.next();
    this.skipEnds();
    while (!this.at(']')) {
      if (items.length >= configLimits.listItems) fail(this.source, line, 'the list is too long');
      items.push(this.value(depth + 1));
      this.skipEnds();
      if (this.at(',')) {
        this.next();
        this.skipEnds();
      } else if (!this.at(']')) this.expected(`, or ] in the list that starts in line ${line}`);
    }
    this.next();
    return items;
  }

  private at(kind: Token['kind']): boolean {
    return this.token.kind === kind;
  }

  private skipEnds(): void {
    while (this.at('end')) this.next();
  }

  private next(): void {
    const step = this.input.next();
    if (step.done !== true) this.token = step.value;
  }

  private expected(what: string): never {
    const { token } = this;
    const found = {
      name: 'a name',
      string: 'a string',
      number: 'a number',
      end: 'the end of the line',
      eof: 'the end of the file',
    };
    const seen = token.kind in found ? found[token.kind as keyof typeof found] : token.kind;
    fail(this.source, token.line, `expected ${what}, found ${seen}`);
  }
}
