/** The scripts of `completion`: bash's is run; those of zsh and fish are read by their shells where these are installed. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { verbs } from '../../src/cli/program/verbs.js';
import { cli, services } from '../support/cli.js';
import { FakeHost } from '../support/fake_host.js';

const dir = mkdtempSync(join(tmpdir(), 'dormouse-completion-'));
after(() => rmSync(dir, { recursive: true }));

async function scriptFor(shell: string): Promise<string> {
  const { stdout, exitCode } = await cli(services(new FakeHost([])), ['completion', shell]);
  assert.equal(exitCode, 0);
  return stdout;
}

/** What bash offers for the last of the words. `dormouse host status` answers with two guests and the host's own name. */
function offered(
  script: string,
  words: readonly string[],
  names: readonly string[] = ['web1', 'db'],
): string[] {
  const status = JSON.stringify({ name: 'default', guests: names.map((name) => ({ name })) }, null, 2);
  const source = `dormouse() { printf '%s\\n' "$STATUS"; }
${script}
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _dormouse; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const done = spawnSync('bash', ['-c', source, 'bash', 'dormouse', ...words], {
    encoding: 'utf8',
    env: { ...process.env, STATUS: status },
  });
  assert.equal(done.stderr, '');
  return done.stdout.split('\n').filter((word) => word !== '');
}

test('bash is offered verbs, options, their values and domains', async () => {
  const script = await scriptFor('bash');
  const expectations: readonly (readonly [words: string[], offers: string[]])[] = [
    [['chec'], ['checkpoint']],
    [['image', 'ver'], ['verify']],
    [
      ['host', 's'],
      ['start', 'stop', 'status'],
    ],
    [
      ['save', ''],
      ['web1', 'db'],
    ],
    [['save', '-c', 'w'], ['web1']],
    [
      ['save', '--suspend-timeout', '5', ''],
      ['web1', 'db'],
    ],
    [['--host', 'xen', 'destroy', 'd'], ['db']],
    [['save', 'web1', ''], []],
    [
      ['checkpoint', '--mode', ''],
      ['light', 'cooperative'],
    ],
    [['checkpoint', '--mode', 'light', '--int'], ['--interval']],
    [['image', 'convert', '--to', 'n'], ['native']],
    [['list', 'web1', 'd'], ['db']],
    [
      ['list', '--host', ''],
      ['embedded', 'xen'],
    ],
    [
      ['completion', ''],
      ['bash', 'zsh', 'fish'],
    ],
  ];
  for (const [words, offers] of expectations)
    assert.deepEqual(offered(script, words), offers, words.join(' '));
});

test('a guest whose name is a shell command is a word like any other', async () => {
  const made = join(dir, 'made-by-completion');
  const name = `$(touch ${made})`;
  const words = offered(await scriptFor('bash'), ['save', ''], [name, 'a b']);
  assert.equal(spawnSync('ls', [made]).status === 0, false, 'the name was run');
  assert.deepEqual(words, [name.replace(/[$() ]/gu, '\\$&'), 'a\\ b']);
});

test('every verb and each of its options is in every script', async () => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const script = await scriptFor(shell);
    for (const { name, options } of verbs) {
      for (const word of name.split(' ')) assert.ok(script.includes(word), `${shell}: ${name}`);
      for (const { flags } of options) {
        const long = /--([\w-]+)/u.exec(flags)?.[1] ?? '';
        assert.match(script, new RegExp(shell === 'fish' ? `-l ${long}\\b` : `--${long}\\b`, 'u'));
      }
    }
  }
});

test('zsh and fish take their scripts', async (t) => {
  for (const shell of ['zsh', 'fish']) {
    if (spawnSync(shell, ['--version']).error) {
      t.diagnostic(`${shell} is not installed`);
      continue;
    }
    const path = join(dir, shell);
    writeFileSync(path, await scriptFor(shell));
    const done = spawnSync(shell, ['-n', path], { encoding: 'utf8' });
    assert.deepEqual([done.status, done.stderr], [0, '']);
  }
});

test('a shell that is none of them, and a mode that is none, are refused with what there is', async () => {
  for (const [argv, text] of [
    [['completion', 'csh'], /choices are bash, zsh, fish/],
    [['checkpoint', '--mode', 'heavy', 'web1', 'a.dmi'], /choices are light, cooperative/],
    [['image', 'convert', '--to', 'qcow2', 'a', 'b'], /choices are xen, native/],
  ] as const) {
    const { exitCode, stderr } = await cli(services(new FakeHost([])), argv);
    assert.equal(exitCode, 2);
    assert.match(stderr, text);
  }
});
