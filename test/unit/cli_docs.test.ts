/** Holds README.md and docs/operating.md to what the program is: verbs, options, documents, exit codes, variables. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as z from 'zod';
import { packageRoot } from '../../src/addon.js';
import { programSettings } from '../../src/cli/create_spec.js';
import { globalOptions } from '../../src/cli/global_options.js';
import { verbs } from '../../src/cli/program/verbs.js';
import { errorKinds, exitCodes } from '../../src/errors.js';
import { cli, services } from '../support/cli.js';
import { FakeHost } from '../support/fake_host.js';
import { renderShape } from '../support/shape.js';

const operatingPath = join(packageRoot, 'docs/operating.md');
const read = (name: string): string => readFileSync(join(packageRoot, name), 'utf8');

/** The text between a heading and the next one of its level or above. */
function section(text: string, heading: string): string {
  const level = heading.indexOf(' ');
  const from = text.indexOf(`\n${heading}\n`);
  assert.notEqual(from, -1, `no heading "${heading}"`);
  const rest = text.slice(from + heading.length + 2);
  const next = rest.search(new RegExp(`^#{1,${level}} `, 'mu'));
  return next === -1 ? rest : rest.slice(0, next);
}

test('every verb is in the README and has its section in docs/operating.md', () => {
  const [readme, operating] = [read('README.md'), read('docs/operating.md')];
  for (const verb of verbs) {
    assert.ok(readme.includes(`\`${verb.name}`), `README.md does not name ${verb.name}`);
    const text = section(operating, `### ${verb.name}`);
    for (const { flags } of verb.options) assert.ok(text.includes(`\`${flags}\``), `${verb.name}: ${flags}`);
  }
  for (const { flags } of globalOptions) assert.ok(operating.includes(`\`${flags}\``), flags);
  for (const name of Object.keys(programSettings)) assert.ok(operating.includes(`\`${name}\``), name);
});

/** With DORMOUSE_UPDATE_DOCS=1 the documents' shapes are written into the page instead. */
test('the documents in docs/operating.md are those of the schemas', () => {
  let text = read('docs/operating.md');
  for (const verb of verbs) {
    const shape = renderShape(z.toJSONSchema(verb.document) as Parameters<typeof renderShape>[0]);
    const block = `\`\`\`text\n${shape}\n\`\`\`\n`;
    const old = section(text, `### ${verb.name}`);
    const updated = old.replace(/```text\n[^]*?```\n/u, () => block);
    if (process.env.DORMOUSE_UPDATE_DOCS === '1') text = text.replace(old, () => updated);
    else assert.ok(old.includes(block), `${verb.name}: run with DORMOUSE_UPDATE_DOCS=1 to write\n${block}`);
  }
  if (process.env.DORMOUSE_UPDATE_DOCS === '1') writeFileSync(operatingPath, text);
});

test('exit codes and error names in the documentation are those of the program', () => {
  const operating = section(read('docs/operating.md'), '## Exit codes');
  for (const [name, { exit }] of Object.entries(errorKinds)) {
    const row = operating.split('\n').find((line) => line.startsWith(`| ${exit} `));
    assert.ok(row?.includes(name), `${name} is not in the row of ${exit}`);
  }
  for (const name of operating.match(/\b[A-Z]+_[A-Z_]+\b/gu) ?? [])
    if (!name.startsWith('DORMOUSE_')) assert.ok(Object.hasOwn(errorKinds, name), `${name} is no error`);
});

test('--help and the README tell of every exit code, and of no other', async () => {
  const codes = Object.keys(exitCodes);
  const table = section(read('README.md'), '## Exit codes').match(/^\| [\d, ]+ \|/gmu) ?? [];
  assert.deepEqual(
    table.flatMap((row) => row.match(/\d+/gu) ?? []),
    codes,
  );
  const { stdout } = await cli(services(new FakeHost([])), ['--help']);
  const help = stdout.slice(stdout.indexOf('\nExit codes:\n')).split('\n');
  const lines = Object.entries(exitCodes).map(([code, says]) => `  ${code.padEnd(5)}${says}`);
  assert.deepEqual(help.slice(2, 2 + lines.length), lines);
});

test('environment variables that the program reads are documented', () => {
  const sources = readdirSync(join(packageRoot, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => read(join('src', name)));
  const named = new Set(sources.flatMap((text) => text.match(/\bDORMOUSE_[A-Z_]+\b/gu) ?? []));
  assert.ok(named.size > 0);
  for (const name of named) {
    assert.ok(section(read('docs/operating.md'), '## Environment').includes(`\`${name}\``), name);
    assert.ok(read('README.md').includes(`\`${name}\``), `README.md does not name ${name}`);
  }
});
