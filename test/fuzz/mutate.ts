/** Inputs out of a corpus: each is a few changes away from an entry of it. */

/** A whole number from 0 to below `below`. */
export type Next = (below: number) => number;

/** Of a long period and fast: xorshift128. */
export function generator(seed: number): Next {
  let [a, b, c, d] = [seed | 0, 0x9e37_79b9 | 0, 0x243f_6a88 | 0, 0xb7e1_5162 | 0];
  const next: Next = (below) => {
    const t = d ^ (d << 11);
    d = c;
    c = b;
    b = a;
    a = a ^ (a >>> 19) ^ t ^ (t >>> 8);
    return (a >>> 0) % below;
  };
  for (let i = 0; i < 16; i++) next(1);
  return next;
}

const numbers = [
  ...[0n, 1n, 2n, 7n, 8n, 0x7fn, 0x80n, 0xffn, 0x100n, 4095n, 4096n, 0x7fffn, 0xffffn, 0x10000n],
  ...[2n ** 31n - 1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 52n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n],
].map((value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
});

function putNumber(bytes: Buffer, next: Next): void {
  const size = [1, 2, 4, 8][next(4)] ?? 1;
  if (bytes.length < size) return;
  const at = next(bytes.length - size + 1);
  const value = numbers[next(numbers.length)];
  const little = next(4) !== 0;
  for (let i = 0; i < size; i++) bytes[at + (little ? i : size - 1 - i)] = value?.[i] ?? 0;
}

/** The bytes with those from `at` on, `gone` of them, replaced. */
function splice(bytes: Buffer, at: number, gone: number, by: Uint8Array): Buffer {
  const rest = Math.min(bytes.length, at + gone);
  const made = Buffer.allocUnsafe(at + by.length + bytes.length - rest);
  made.set(bytes.subarray(0, at));
  made.set(by, at);
  made.set(bytes.subarray(rest), at + by.length);
  return made;
}

type Change = (bytes: Buffer, other: Buffer, next: Next, words: readonly Buffer[]) => Buffer;

const changes: readonly Change[] = [
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
  (bytes, _, next) => splice(bytes, next(bytes.length + 1), next(20), Buffer.alloc(0)),
  (bytes, _, next) => splice(bytes, next(bytes.length + 1), 0, Buffer.alloc(1 + next(12), next(256))),
  (bytes, _, next) => {
    const [from, size, to] = [next(bytes.length + 1), next(64), next(bytes.length + 1)];
    return splice(bytes, to, 0, Buffer.from(bytes.subarray(from, from + size)));
  },
  (bytes, other, next) =>
    splice(bytes, next(bytes.length + 1), Infinity, other.subarray(next(other.length + 1))),
  (bytes, other, next) => {
    const [from, size] = [next(other.length + 1), next(64)];
    return splice(bytes, next(bytes.length + 1), next(2) * size, other.subarray(from, from + size));
  },
];

const word: Change = (bytes, _, next, words) =>
  splice(bytes, next(bytes.length + 1), next(2) * next(16), words[next(words.length)] ?? Buffer.alloc(0));

/** The next input: most are few changes away from an entry of the corpus. `words` are put into what is text. */
export function inputOf(corpus: readonly Buffer[], next: Next, words: readonly Buffer[] = []): Buffer {
  const pick = (): Buffer => corpus[next(corpus.length)] ?? Buffer.alloc(0);
  let bytes: Buffer = Buffer.from(pick());
  const rounds = 1 + next(next(6) === 0 ? 16 : 3);
  for (let i = 0; i < rounds; i++) {
    const change = words.length > 0 && next(3) === 0 ? word : changes[next(changes.length)];
    bytes = change?.(bytes, pick(), next, words) ?? bytes;
  }
  return bytes;
}
