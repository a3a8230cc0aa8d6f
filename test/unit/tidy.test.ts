/** House rules that a linter does not know. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { packageRoot } from '../../src/addon.js';
import { errorKinds } from '../../src/errors.js';

const roots = ['src', 'native', 'test', 'bench', 'scripts', 'bin', 'docs'];
const foreign = /^native\/third_party\//u;

function files(): string[] {
  return roots
    .flatMap((root) =>
      readdirSync(join(packageRoot, root), { recursive: true, encoding: 'utf8' }).map((name) =>
        join(root, name),
      ),
    )
    .filter((file) => !foreign.test(file) && statSync(join(packageRoot, file)).isFile())
    .filter((file) => /\.(ts|mjs|cc|h|md)$|^bin\//u.test(file))
    .sort();
}

interface Rule {
  readonly in: RegExp;
  readonly except?: RegExp;
  readonly banned: RegExp;
  readonly instead: string;
}

/** Spelt in two parts so that this file does not break its own rules. */
const word = (...parts: string[]): RegExp => new RegExp(`\\b${parts.join('')}\\b`, 'u');

const rules: readonly Rule[] = [
  { in: /./u, banned: word('TO', 'DO'), instead: 'do it, or name an issue in a sentence' },
  { in: /./u, banned: word('FIX', 'ME'), instead: 'mend it' },
  { in: /./u, banned: word('X', 'XX'), instead: 'say what is wrong' },
  {
    in: /^src\//u,
    banned: /\bconsole\.\w+\(/u,
    instead: 'the streams of the command line, or a thrown error',
  },
  {
    in: /^src\//u,
    except: /^src\/(cli\/program\/main|host\/embedded\/server_main)\.ts$/u,
    banned: /\bprocess\.exit\(/u,
    instead: 'throw, or process.exitCode',
  },
  {
    in: /^src\//u,
    banned: /\bnew Buffer\(/u,
    instead: 'Buffer.alloc or Buffer.from',
  },
  { in: /^(src|test|bench)\//u, banned: /@ts-(ignore|nocheck)/u, instead: 'a type that says it' },
  { in: /^test\//u, banned: /\b(test|it|describe)\.(only|todo)\b/u, instead: 'a test that runs' },
  { in: /^native\//u, banned: /\b(sprintf|strcpy|strcat|gets)\s*\(/u, instead: 'std::string or snprintf' },
  {
    in: /^native\//u,
    // Where what the standard library throws, and a refused call, become one.
    except: /^native\/(guard\.h|binding\/(arguments|entry)\.h)$/u,
    banned: /\bthrow\s|\btry\s*\{/u,
    instead: 'a Fault',
  },
  {
    in: /^native\//u,
    except: /^native\/binding\/entry\.h$/u,
    banned: /\bFunction::New\b/u,
    instead: 'add<> of binding/entry.h, which no error leaves',
  },
];

test('no source file is longer than 500 lines, and every line is clean', () => {
  for (const file of files()) {
    const lines = readFileSync(join(packageRoot, file), 'utf8').split('\n');
    assert.ok(lines.length <= 500 || file.endsWith('.md'), `${file} has ${lines.length} lines`);
    assert.equal(lines.at(-1), '', `${file} does not end with a line end`);
    for (const [at, line] of lines.entries()) {
      assert.doesNotMatch(line, /\t/u, `${file}:${at + 1} holds a tab`);
      assert.doesNotMatch(line, /\s$/u, `${file}:${at + 1} ends with a blank`);
    }
  }
});

test('what is banned is not used', () => {
  for (const file of files()) {
    if (file === 'test/unit/tidy.test.ts') continue;
    const lines = readFileSync(join(packageRoot, file), 'utf8').split('\n');
    for (const rule of rules) {
      if (!rule.in.test(file) || rule.except?.test(file) === true) continue;
      for (const [at, line] of lines.entries())
        assert.doesNotMatch(line, rule.banned, `${file}:${at + 1}: use ${rule.instead}`);
    }
  }
});

test('a markdown file has one title', () => {
  const all = [...readdirSync(packageRoot), ...files()].filter((name) => name.endsWith('.md'));
  for (const file of all) {
    const text = readFileSync(join(packageRoot, file), 'utf8').replace(/^```[^]*?^```/gmu, '');
    assert.equal(text.match(/^# /gmu)?.length, 1, file);
  }
});

test('every error code is raised somewhere', () => {
  const text = files()
    .filter((file) => /^(src|native)\/.*\.(ts|cc|h)$/u.test(file) && file !== 'src/errors.ts')
    .map((file) => readFileSync(join(packageRoot, file), 'utf8'))
    .join('\n');
  const unused = Object.keys(errorKinds).filter(
    (code) => !text.includes(`'${code}'`) && !text.includes(`"${code}"`),
  );
  assert.deepEqual(unused, []);
});
