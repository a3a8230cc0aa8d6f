/**
 * The xen host over a Xen of files, as test/support/fake_xen.c has it, run with that preloaded: node xen_on_files.js ADDON
 * WATCHER RUN_DIR. The guest takes a request to suspend at once, and suspends unless the file `late` is there. Suspends and
 * resumes it, holds it paused, tries its dirty log; one line of JSON says what was seen.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { asDormouseError } from '../../src/errors.js';
import { XenHost } from '../../src/host/xen/host.js';
import { XenLease, XenLeases } from '../../src/host/xen/leases.js';
import type { XenNative } from '../../src/host/xen/native.js';
import { XenXenstore } from '../../src/host/xen/xenstore.js';

const dir = process.env['FAKE_XEN'] ?? '';
const file = (name: string): string => join(dir, name);
const node = (path: string): string => file(`store/${path.slice(1).replaceAll('/', ',')}`);

function answer(type: number, [path = '', value = '']: string[]): { type: number; text: string } {
  if (type === 6) return { type, text: '1\0' };
  if (type === 2)
    return existsSync(node(path))
      ? { type, text: readFileSync(node(path), 'utf8') }
      : { type: 16, text: 'ENOENT\0' };
  if (type !== 11) return { type, text: 'OK\0' };
  const asks = path.endsWith('control/shutdown') && value === 'suspend';
  writeFileSync(node(path), asks ? '' : value);
  if (asks && !existsSync(file('late'))) writeFileSync(file('suspended'), '');
  return { type, text: 'OK\0' };
}

/** Requests come whole: each is one small write. */
function serve(socket: Socket): void {
  socket.on('data', (chunk: Buffer) => {
    for (let at = 0; at < chunk.length;) {
      const words = [0, 4, 8, 12].map((offset) => chunk.readUInt32LE(at + offset));
      const [type = 0, , , length = 0] = words;
      const payload = chunk.toString('utf8', at + 16, at + 16 + length).split('\0');
      const reply = answer(type, payload);
      const header = Buffer.from(chunk.subarray(at, at + 16));
      header.writeUInt32LE(reply.type, 0);
      header.writeUInt32LE(Buffer.byteLength(reply.text), 12);
      socket.write(Buffer.concat([header, Buffer.from(reply.text)]));
      at += 16 + length;
    }
  });
}

async function outcome(of: () => Promise<unknown>): Promise<string> {
  try {
    await of();
    return 'done';
  } catch (thrown) {
    const { code, guest } = asDormouseError(thrown);
    return `${code} ${guest}`;
  }
}

const [addon = '', watcher = '', runDir = ''] = process.argv.slice(2);
const server = createServer(serve);
await new Promise<void>((resolve) => server.listen(file('socket'), resolve));
process.env['XENSTORED_PATH'] = file('socket');
const api = createRequire(import.meta.url)(addon) as XenNative;
api.open();
const notices: string[] = [];
const notice = (text: string): void => void notices.push(text);
const leases = new XenLeases(runDir, watcher, notice);
const host = new XenHost(api, '4_17', await XenXenstore.open(notice), leases, notice);
const journal = (): string => readFileSync(join(runDir, '5.journal'), 'utf8');

const lease = await host.acquire(5, 'save');
const seen: Record<string, string> = {};
seen['suspend'] = await outcome(() => host.suspend(lease, 200));
seen['journal'] = journal();
if (seen['suspend'] === 'done') {
  seen['resume'] = await outcome(() => host.resumeInPlace(lease));
  seen['paused'] = await outcome(() => host.holdPaused(lease));
  seen['unpaused'] = await outcome(() => host.releasePaused(lease));
  seen['afterwards'] = journal();
  seen['log'] = await outcome(() => Promise.resolve().then(() => api.logDirtyOn(5)));
  seen['foreignLog'] = await outcome(() => Promise.resolve().then(() => api.logDirtyOn(5)));
}
seen['release'] = await outcome(() => lease.release());
if (seen['release'] === 'done') {
  // What an ended lease still strikes out would be its successor's.
  const next = await host.acquire(5, 'save');
  await host.holdPaused(next);
  if (lease instanceof XenLease) lease.strikeKind('pause');
  seen['endedLease'] = await outcome(() => host.releasePaused(lease));
  seen['successor'] = journal();
  await next.release();
}
process.stdout.write(`${JSON.stringify(seen)}\n`);
host.xenstore.close();
server.close();
