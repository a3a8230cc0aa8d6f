import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  applyOverride,
  configLimits,
  type ConfigValue,
  isOverride,
  parseConfig,
  renderSettings,
  type Settings,
} from '../../src/cli/domain_config.js';
import { DormouseError } from '../../src/errors.js';

const name = fc.stringMatching(/^[a-z][._0-9a-z]{0,20}$/);
const { value } = fc.letrec<{ value: ConfigValue }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.maxSafeNat(),
    fc.string({ unit: 'grapheme' }).filter((text) => !text.includes('\0')),
    fc.array(tie('value'), { maxLength: 5 }),
  ),
}));
/** How a setting may be written without changing what it means. */
const style = fc.record({
  quote: fc.constantFrom('"', "'"),
  blank: fc.constantFrom('', ' ', '\t '),
  lineEnd: fc.constantFrom('\n', '\r\n', '\n\n', ' # a comment = [\n', ';', ' ; '),
  inList: fc.constantFrom('', '\n', ' \n# in between\n '),
  hex: fc.boolean(),
});
type Style = typeof style extends fc.Arbitrary<infer T> ? T : never;

function writeValue(given: ConfigValue, how: Style): string {
  if (typeof given === 'number') return how.hex ? `0x${given.toString(16)}` : String(given);
  if (typeof given === 'string') {
    const body = given
      .replace(/[\\\n]/gu, (c) => (c === '\n' ? '\\n' : '\\\\'))
      .replaceAll(how.quote, `\\${how.quote}`);
    return how.quote + body + how.quote;
  }
  const items = given.map((item) => writeValue(item, how) + how.inList);
  return `[${how.inList}${items.join(`,${how.inList}`)}${items.length > 0 && how.hex ? ',' : ''}${how.inList}]`;
}

test('what is written is what is read, however it is laid out', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(name, value, style), { maxLength: 12 }), (settings) => {
      const text = settings
        .map(
          ([key, given, how]) =>
            `${how.blank}${key}${how.blank}=${how.blank}${writeValue(given, how)}${how.lineEnd}`,
        )
        .join('');
      const expected: Settings = new Map(settings.map(([key, given]) => [key, given]));
      assert.deepEqual(parseConfig(text, 'test.cfg'), expected);
    }),
    { numRuns: 300 },
  );
});

test('what is rendered is read as the same settings', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(name, value), { maxLength: 12 }), (settings) => {
      const given: Settings = new Map(settings);
      assert.deepEqual(parseConfig(renderSettings(given), 'test.cfg'), given);
    }),
    { numRuns: 300 },
  );
});

const fragment = fc.oneof(
  fc.constantFrom(
    'name',
    '=',
    '+=',
    '[',
    ']',
    ',',
    ';',
    '\n',
    '"',
    "'",
    '\\',
    '#',
    ' ',
    '0x',
    '12',
    '9'.repeat(20),
  ),
  fc.string({ unit: 'binary', maxLength: 6 }),
);

test('any text is read or refused with the line, never anything else', () => {
  fc.assert(
    fc.property(fc.array(fragment, { maxLength: 60 }), (fragments) => {
      const text = fragments.join('');
      try {
        parseConfig(text, 'hostile.cfg');
      } catch (thrown) {
        assert.ok(thrown instanceof DormouseError, String(thrown));
        assert.equal(thrown.code, 'CONFIG_INVALID');
        const line = Number(/^hostile\.cfg line (\d+): /u.exec(thrown.message)?.[1]);
        assert.ok(line >= 1 && line <= text.split('\n').length, thrown.message);
      }
    }),
    { numRuns: 3000 },
  );
});

function refusal(text: string): string {
  try {
    parseConfig(text, 'a.cfg');
  } catch (thrown) {
    assert.ok(thrown instanceof DormouseError);
    assert.equal(thrown.code, 'CONFIG_INVALID');
    return thrown.message;
  }
  return assert.fail(`accepted: ${text.slice(0, 80)}`);
}

test('errors say what was expected, and in which line', () => {
  assert.equal(refusal('a = 1\nb 2'), 'a.cfg line 2: expected = after b, found a number');
  assert.equal(
    refusal('a = "x\nb = 1'),
    'a.cfg line 1: a string that starts with " does not end on its line',
  );
  assert.equal(
    refusal('a = [1,\n2\n'),
    'a.cfg line 3: expected , or ] in the list that starts in line 1, found the end of the file',
  );
  assert.equal(
    refusal('a = b'),
    'a.cfg line 1: expected a number, a quoted string or a [list], found a name',
  );
  assert.equal(refusal('a = 1 b = 2'), 'a.cfg line 1: expected the end of the line, found a name');
  assert.equal(
    refusal('a = 99999999999999999999'),
    'a.cfg line 1: "99999999999999999999" is not a whole number below 2^53',
  );
  assert.equal(refusal('a = 1\na += 2'), 'a.cfg line 2: += needs two lists or two strings');
  assert.equal(refusal(String.raw`a = "\q"`), String.raw`a.cfg line 1: unknown escape \q`);
  assert.equal(refusal(String.raw`a = "\0"`), String.raw`a.cfg line 1: escape \0 is not an ASCII character`);
});

test('the limits hold, and nothing takes long', () => {
  assert.match(refusal(`a = ${'['.repeat(100_000)}`), /line 1: lists are nested too deeply/u);
  assert.match(refusal(`a = [${'1,'.repeat(configLimits.listItems + 1)}]`), /line 1: the list is too long/u);
  assert.match(refusal('#'.repeat(configLimits.bytes + 1)), /larger than 1048576 bytes/u);
  const startedMs = performance.now();
  refusal(`a = "${'\\\\'.repeat(500_000)}`);
  assert.ok(performance.now() - startedMs < 1000);
});

test('the last setting of a name counts, += appends, and arguments come last', () => {
  const settings = parseConfig('a = 1; a = 2\nl = ["x"]\nl += ["y"]\ns = "p"\ns += "q"\n', 'a.cfg');
  assert.deepEqual(
    [...settings],
    [
      ['a', 2],
      ['l', ['x', 'y']],
      ['s', 'pq'],
    ],
  );
  for (const argument of ['a=3', 'b="x y"', 'c=bare words', 'd=[1,2]', 'e=0x10', 'f=']) {
    assert.ok(isOverride(argument), argument);
    if (argument !== 'f=') applyOverride(settings, argument);
  }
  assert.deepEqual(
    ['a', 'b', 'c', 'd', 'e'].map((key) => settings.get(key)),
    [3, 'x y', 'bare words', [1, 2], 16],
  );
  assert.throws(() => applyOverride(settings, 'f='), { code: 'CONFIG_INVALID' });
  assert.throws(() => applyOverride(settings, 'f="x'), { code: 'CONFIG_INVALID' });
  assert.ok(!isOverride('web1.cfg') && !isOverride('/etc/xen/a=b.cfg'));
});
