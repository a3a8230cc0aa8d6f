/** The table of the files that an increment needs. */
import { Buffer } from 'node:buffer';
import { DormouseError } from '../errors.js';
import { ANCESTOR, ANCESTOR_SIZE, isZero, MAX_ANCESTORS, textAt } from './format.js';
import { damaged } from './frame.js';

export interface Ancestor {
  /** 32 hex digits. */
  readonly imageId: string;
  /** 64 hex digits. */
  readonly root: string;
  readonly sequence: number;
  /** Of its file, in the folder of the image. */
  readonly name: string;
}

/** Whether it names a file of a folder and nothing else. */
const isFileName = (name: string): boolean =>
  name.length > 0 && name !== '.' && name !== '..' && !/[/\0]/.test(name);

/** INTERNAL for a name that is no file's or takes more than 256 bytes. */
export function encodeAncestors(ancestors: readonly Ancestor[]): Buffer {
  if (ancestors.length > MAX_ANCESTORS) throw new DormouseError('INTERNAL', 'too many ancestors');
  const bytes = Buffer.alloc(ancestors.length * ANCESTOR_SIZE);
  ancestors.forEach(({ imageId, root, sequence, name }, i) => {
    const base = i * ANCESTOR_SIZE;
    const nameSize = Buffer.byteLength(name);
    if (!isFileName(name) || nameSize > ANCESTOR.name[1])
      throw new DormouseError('INTERNAL', `"${name}" cannot be the name of a parent`);
    bytes.write(imageId, base + ANCESTOR.imageId[0], 'hex');
    bytes.write(root, base + ANCESTOR.root[0], 'hex');
    bytes.writeBigUInt64LE(BigInt(sequence), base + ANCESTOR.sequence[0]);
    bytes.writeUInt16LE(nameSize, base + ANCESTOR.nameSize[0]);
    bytes.write(name, base + ANCESTOR.name[0]);
  });
  return bytes;
}

function decodeAncestor(bytes: Buffer, newer: boolean): Ancestor {
  const hex = ([offset, size]: readonly [number, number]) => bytes.toString('hex', offset, offset + size);
  const nameSize = bytes.readUInt16LE(ANCESTOR.nameSize[0]);
  const [nameAt, nameRoom] = ANCESTOR.name;
  const name = textAt(bytes, nameAt, Math.min(nameSize, nameRoom));
  const sequence = Number(bytes.readBigUInt64LE(ANCESTOR.sequence[0]));
  const fixed =
    nameSize <= nameRoom &&
    isZero(bytes, nameAt + nameSize, nameAt + nameRoom) &&
    (newer || isZero(bytes, ANCESTOR.reserved[0], nameAt));
  if (!fixed || name === null || !isFileName(name) || !Number.isSafeInteger(sequence))
    throw damaged('the table of ancestors: an entry is impossible');
  return { imageId: hex(ANCESTOR.imageId), root: hex(ANCESTOR.root), sequence, name };
}

/** IMAGE_DAMAGED. `newer`: of a newer minor version. */
export function decodeAncestors(bytes: Buffer, newer: boolean): Ancestor[] {
  const count = bytes.length / ANCESTOR_SIZE;
  if (!Number.isInteger(count) || count > MAX_ANCESTORS)
    throw damaged('the table of ancestors has an impossible size');
  return Array.from({ length: count }, (_, i) =>
    decodeAncestor(bytes.subarray(i * ANCESTOR_SIZE, (i + 1) * ANCESTOR_SIZE), newer),
  );
}
