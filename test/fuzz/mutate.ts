/** Inputs out of a corpus: each follows from the seed and its number, so that any one can be made again. */
import { random } from '../support/images.js';

type Next = (below: number) => number;

const numbers = [
  ...[0n, 1n, 2n, 7n, 8n, 0x7fn, 0x80n, 0xffn, 0x100n, 4095n, 4096n, 0x7fffn, 0xffffn, 0x10000n],
  ...[2n ** 31n - 1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 52n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n],
];

function putNumber(bytes: Buffer, next: Next): void {
  const size = [1, 2, 4, 8][next(4)] ?? 1;
  if (bytes.length < size) return;
  const at = next(bytes.length - size + 1);
  const value = numbers[next(numbers.length)] ?? 0n;
  const little = next(4) !== 0;
  for (let i = 0; i < size; i++)
    bytes[at + (little ? i : size - 1 - i)] = Number((value >> BigInt(8 * i)) & 0xffn);
}

const changes: readonly ((bytes: Buffer, other: Buffer, next: Next) => Buffer)[] = [
  (bytes, _, next) => {
    const at = next(Math.max(1, bytes.length));
    if (bytes.length > 0) bytes[at] = (bytes[at] ?? 0) ^ (1 << next(8));
    return bytes;
  },
  (bytes, _, next) => {
    if (bytes.length > 0) bytes[next(bytes.length)] = next(256);
    return bytes;
  },
  (bytes, _, next) => {
    putNumber(bytes, next);
    return bytes;
  },
  (bytes, _, next) => {
    putNumber(bytes, next);
    putNumber(bytes, next);
    return bytes;
  },
  (bytes, _, next) => bytes.subarray(0, next(bytes.length + 1)),
  (bytes, _, next) => {
    const at = next(bytes.length + 1);
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + next(20))]);
  },
  (bytes, _, next) => {
    const at = next(bytes.length + 1);
    return Buffer.concat([bytes.subarray(0, at), Buffer.alloc(1 + next(12), next(256)), bytes.subarray(at)]);
  },
  (bytes, _, next) => {
    const [from, size, to] = [next(bytes.length + 1), next(64), next(bytes.length + 1)];
    return Buffer.concat([bytes.subarray(0, to), bytes.subarray(from, from + size), bytes.subarray(to)]);
  },
  (bytes, other, next) =>
    Buffer.concat([bytes.subarray(0, next(bytes.length + 1)), other.subarray(next(other.length + 1))]),
];

/** Input `number` of a run. Most are a few changes away from an entry of the corpus. */
export function inputOf(corpus: readonly Buffer[], seed: number, number: number): Buffer {
  const next = random(seed * 0x1000193 + number * 2_654_435 + 1);
  for (let i = 0; i < 4; i++) next(1);
  const pick = (): Buffer => corpus[next(corpus.length)] ?? Buffer.alloc(0);
  let bytes: Buffer = Buffer.from(pick());
  const rounds = 1 + next(next(6) === 0 ? 16 : 3);
  for (let i = 0; i < rounds; i++) bytes = changes[next(changes.length)]?.(bytes, pick(), next) ?? bytes;
  return bytes;
}
