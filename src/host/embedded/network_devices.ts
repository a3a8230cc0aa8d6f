/** The toolstack's half of a domain's network interfaces. */
import { createHash } from 'node:crypto';
import type { NativeDevice } from './hypervisor.js';
import type { XenstoreTree } from './xenstore.js';
import { XenbusNodes } from './xenbus_nodes.js';

export interface AttachedNetwork {
  /** Six bytes. */
  readonly mac: Buffer;
  readonly port: number;
}

/** An address of Xen's range that is the same whenever that domain has it. */
export function macOf(uuid: string, index: number): Buffer {
  const own = createHash('sha256').update(`${uuid.toLowerCase()} ${index}`).digest();
  return Buffer.concat([Buffer.from([0x00, 0x16, 0x3e]), own.subarray(0, 3)]);
}

const written = (mac: Buffer): string => mac.toString('hex').replace(/..(?!$)/gu, '$&:');

/** Writes what libxl writes of a new interface. */
export function addNetworkNodes(
  xenstore: XenstoreTree,
  domid: number,
  { mac }: AttachedNetwork,
  index: number,
): void {
  const own = { handle: String(index), mac: written(mac) };
  new XenbusNodes(xenstore, domid, 'vif', index).add(domid, own, own);
}

export function publishNetwork(
  xenstore: XenstoreTree,
  domid: number,
  { port }: AttachedNetwork,
  index: number,
  now: NativeDevice,
): void {
  const [tx, rx] = now.ringRefs;
  new XenbusNodes(xenstore, domid, 'vif', index).publish(now, {
    offers: { 'feature-rx-copy': '1' },
    asks: {
      'tx-ring-ref': String(tx),
      'rx-ring-ref': String(rx),
      'event-channel': String(port),
      'request-rx-copy': '1',
    },
    serves: {},
  });
}
