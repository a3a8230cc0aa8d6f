import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { serve } from '../xen-lab/agent.js';
import { AgentClient } from '../xen-lab/client.js';
import { LabError } from '../xen-lab/errors.js';
import { parseTicks } from '../xen-lab/ticks.js';
import { encode, FrameReader, Kind, maxPayloadBytes } from '../xen-lab/wire.js';

test('frames survive being cut anywhere', () => {
  const fields = {
    kind: fc.constantFrom(...Object.values(Kind)),
    channel: fc.nat(0xffffffff),
    payload: fc.uint8Array({ maxLength: 300 }),
  };
  const frame = fc.record(fields, { noNullPrototype: true });
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 20 }), fc.array(fc.nat(500)), (frames, cuts) => {
      const bytes = Buffer.concat(frames.map(({ kind, channel, payload }) => encode(kind, channel, payload)));
      const reader = new FrameReader();
      const seen = [];
      let at = 0;
      for (const cut of [...cuts, bytes.length]) {
        seen.push(...reader.push(bytes.subarray(at, at + cut)));
        at += cut;
      }
      const plain = seen.map((one) => ({ ...one, payload: new Uint8Array(one.payload) }));
      assert.deepEqual(plain, frames);
    }),
  );
});

test('a frame longer or shorter than any is refused', () => {
  for (const length of [0, 4, maxPayloadBytes + 6, 0xffffffff]) {
    const head = Buffer.alloc(4);
    head.writeUInt32LE(length);
    assert.throws(() => new FrameReader().push(head), RangeError);
  }
});

test('ticks are read whole, and only whole lines', () => {
  const line =
    'tick 3 mono_us=1 boot_us=2 tsc=3 gap_mono_us=4 gap_boot_us=5 gap_tsc_us=6 gap_at_us=7 mem_kib=8 cpus=1 written=9 ' +
    'rounds=1 sum=00ff bad=0 disk=1 disk_ops=2 disk_bad=0 disk_err=0 disk_slow_us=3 net=1 net_sent=4 net_recv=4 net_lost=0 net_bad=0 naps=5 broken=0';
  const [tick, ...others] = parseTicks(`noise\r\n${line}\r\n${line.slice(0, 80)}`);
  assert.equal(others.length, 0);
  assert.deepEqual([tick?.count, tick?.gapBootUs, tick?.sum, tick?.netReceived], [3, 5, '00ff', 4]);
  assert.throws(() => parseTicks(`${line.slice(0, 80)}\n`), LabError);
});

describe('the agent, without a host', () => {
  let client: AgentClient;
  let stop: () => void;
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-agent-'));
  before(async () => {
    const { port, close } = await serve(0, '127.0.0.1', false);
    stop = close;
    client = await AgentClient.connect(port, 5000, () => undefined);
  });
  after(() => {
    client.close();
    stop();
    rmSync(dir, { recursive: true });
  });

  test('runs scripts at once and keeps their outputs apart', async () => {
    const all = await Promise.all(
      Array.from({ length: 8 }, (_, index) =>
        client.exec(`echo out${index}; echo err${index} >&2; exit ${index}`),
      ),
    );
    assert.deepEqual(
      all,
      all.map((_, index) => ({ code: index, stdout: `out${index}\n`, stderr: `err${index}\n` })),
    );
  });

  test('loses nothing of a long output', async () => {
    const { stdout } = await client.exec('head -c 20000000 /dev/zero | tr "\\0" x');
    assert.equal(stdout.length, 20_000_000);
  });

  test('does not wait for a daemon that keeps the output open', async () => {
    const start = Date.now();
    const { stdout } = await client.exec('sleep 20 & echo $!; exit 0');
    assert.match(stdout, /^\d+\n$/);
    assert.ok(Date.now() - start < 5000);
    process.kill(Number(stdout), 'SIGKILL');
  });

  test('kills what takes too long, with its children', async () => {
    const file = join(dir, 'alive');
    const script = `(while true; do date +%N > ${file}; sleep 0.05; done) & sleep 60`;
    await assert.rejects(client.exec(script, { timeoutMs: 400 }), /killed after 400 ms/);
    const then = readFileSync(file, 'utf8');
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(readFileSync(file, 'utf8'), then);
  });

  test('moves files both ways, and part of one', async () => {
    const content = randomBytes(3_000_000);
    writeFileSync(join(dir, 'a'), content);
    await client.put(join(dir, 'a'), join(dir, 'b'));
    await client.get(join(dir, 'b'), join(dir, 'c'));
    assert.ok(readFileSync(join(dir, 'c')).equals(content));
    assert.ok((await client.read(join(dir, 'b'), 2_999_000)).equals(content.subarray(2_999_000)));
    assert.equal((await client.read(join(dir, 'b'), 3_000_000)).length, 0);
    await assert.rejects(client.read(join(dir, 'none')), /ENOENT/);
    await assert.rejects(client.put(join(dir, 'a'), join(dir, 'none/b')), /ENOENT/);
  });

  test('a lost connection ends every request', async () => {
    const { port, close } = await serve(0, '127.0.0.1', false);
    const other = await AgentClient.connect(port, 5000, () => undefined);
    const running = other.exec('sleep 60');
    other.close();
    await assert.rejects(running, /was lost/);
    await assert.rejects(other.exec('true'), /was lost/);
    close();
  });

  test('no agent, no endless wait', async () => {
    await assert.rejects(
      AgentClient.connect(1, 700, () => undefined),
      /did not answer within 700 ms/,
    );
    await assert.rejects(
      AgentClient.connect(1, 700, () => 'the host ended'),
      /the host ended/,
    );
  });
});
