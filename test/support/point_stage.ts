/** A host with a guest to be protected, and a store for its points. */
import type { Buffer } from 'node:buffer';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { protect, type ProtectOptions, type ProtectResult } from '../../src/protect/protect.js';
import { FolderShelf } from '../../src/store/folder_shelf.js';
import { PointStore } from '../../src/store/store.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { startTestHost } from './hosts.js';

export interface PointStage {
  readonly host: EmbeddedHost;
  readonly dir: string;
  readonly store: PointStore;
}

export async function pointStage(t: TestContext, memoryMib = 256): Promise<PointStage> {
  const host = await startTestHost(t, { memoryMib });
  const root = mkdtempSync(join(tmpdir(), 'dormouse-points-'));
  t.after(async () => {
    await closeWorkers();
    rmSync(root, { recursive: true, force: true });
  });
  const dir = join(root, 'store');
  return { host, dir, store: await PointStore.open(dir, { create: true }) };
}

/** Of the guest called `guest`. */
export async function uuidOf({ host }: Pick<PointStage, 'host'>): Promise<string> {
  return (await host.find('guest')).uuid;
}

const defaults = {
  everyMs: 30,
  patient: true,
  mode: 'light',
  reason: 'protect',
  retention: {},
  overBudget: 'take',
  minFreeBytes: 0,
} as const;

/** Protects the guest called `guest`. */
export function runProtect(
  { host, dir }: PointStage,
  options: Partial<ProtectOptions>,
): Promise<ProtectResult> {
  const signal = new AbortController().signal;
  return protect(host, 'guest', dir, { ...defaults, signal, ...options });
}

/** The next record of a point cannot be put. */
export function failNextRecord(t: TestContext): void {
  let fails = true;
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called with its shelf
  const real = FolderShelf.prototype.putIfAbsent;
  t.mock.method(
    FolderShelf.prototype,
    'putIfAbsent',
    async function (this: FolderShelf, name: string, bytes: Buffer): Promise<boolean> {
      if (!fails || !name.includes('/points/')) return await real.call(this, name, bytes);
      fails = false;
      throw new Error('the store is away');
    },
  );
}
