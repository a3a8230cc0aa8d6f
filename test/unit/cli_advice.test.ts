import assert from 'node:assert/strict';
import { test } from 'node:test';
import { onHost } from '../../src/cli/advice.js';
import { rewindingAdvice } from '../../src/domain/states.js';
import { DormouseError } from '../../src/errors.js';
import { guestOptions } from '../../src/host/embedded/guest_config.js';
import { cli, services } from '../support/cli.js';
import { FakeHost } from '../support/fake_host.js';

const busy = services(new FakeHost([]), {
  startHost: () => Promise.resolve(false),
  stopHost: () => Promise.reject(new DormouseError('DOMAIN_WRONG_STATE', 'it has guests: a')),
});

async function told(argv: string, environment?: string): Promise<string> {
  const before = process.env.DORMOUSE_HOST;
  if (environment === undefined) delete process.env.DORMOUSE_HOST;
  else process.env.DORMOUSE_HOST = environment;
  try {
    const { stdout, stderr } = await cli(busy, argv.split(' '));
    return stdout + stderr;
  } finally {
    if (before === undefined) delete process.env.DORMOUSE_HOST;
    else process.env.DORMOUSE_HOST = before;
  }
}

test('a command line in advice means the host that was meant', async () => {
  assert.match(await told('host stop --name zz'), /`dormouse host stop --force --host embedded:zz`/u);
  assert.match(await told('host stop --host embedded:zz'), /stop --force --host embedded:zz`/u);
  assert.match(await told('host stop', 'embedded:zz'), /stop --force --host embedded:zz`/u);
  // Typed where DORMOUSE_HOST is still set it would end that one.
  assert.match(await told('host stop --host embedded', 'embedded:zz'), /stop --force --host embedded`/u);
  assert.match(await told('host stop'), /`dormouse host stop --force` /u);
  assert.match(await told('host stop --name default'), /`dormouse host stop --force` /u);
  assert.match(await told('host start --name zz --memory 4G'), /`dormouse host status --host embedded:zz`/u);
  assert.match(await told('host start --memory 4G'), /`dormouse host status` /u);
  assert.match(await told('domstate nobody --host embedded:zz'), /`dormouse list --host embedded:zz`/u);
  assert.match(await told('domstate nobody --host embedded:zz --bad'), /See `dormouse domstate --help`/u);
});

test('so does that of verbs that came later', () => {
  assert.equal(
    onHost(rewindingAdvice('a'), '--host embedded:zz'),
    'Roll it back again (`dormouse rollback a --image FILE --no-safety --host embedded:zz`) or end it ' +
      '(`dormouse destroy a --host embedded:zz`).',
  );
});

test('--host and --name that are two hosts are refused', async () => {
  assert.match(await told('host start --host embedded:yy --name zz'), /are two hosts: give one/u);
  assert.match(await told('host start --host xen --name zz'), /are two hosts: give one/u);
  assert.match(await told('host start --host embedded:zz --name zz'), /^embedded host zz /u);
});

test('what names no host says where it was named', async () => {
  assert.match(await told('host stop', 'foo'), /^dormouse: DORMOUSE_HOST names no host .*"foo"/u);
  assert.match(await told('host stop --host foo'), /^dormouse: --host names no host .*"foo"/u);
});

test('what was typed is told in the words in which it was typed', async () => {
  assert.match(await told('create name='), /^dormouse: name= has no value: name=VALUE\n/u);
  assert.match(await told('host start --memory 8000G'), /^dormouse: warning: 7.81 TiB is more than/mu);
  assert.match(await told('-V --json'), /"imageFormat"/u);
  const spec = { name: 'a', uuid: '', type: 'pv', maxMemoryKib: 4, vcpus: 1 } as const;
  const ports = { store: 1, console: 2 };
  assert.throws(() => guestOptions({ ...spec, config: '{"program":"idle","fillPercent":101}' }, ports), {
    message: /fill_percent: a whole number from 0 to 100$/u,
  });
  assert.throws(() => guestOptions({ ...spec, config: '{"program":"idle"}' }, ports), {
    message: /a guest of 1 vCPU needs/u,
  });
});
