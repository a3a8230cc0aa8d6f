/** A record of an HVM context: type, instance, body. */
export function hvmRecord(type: number, instance: number, body: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt16LE(type, 0);
  head.writeUInt16LE(instance, 2);
  head.writeUInt32LE(body.length, 4);
  return Buffer.concat([head, body]);
}
