/** One line of JSON a figure: the value, the limit or peer it stands beside, and the bar it is held to. */
export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** What it is measured against in the same run. */
  readonly limitName?: string;
  readonly limit?: number;
  /** value ÷ limit. */
  readonly ratio?: number;
  /** The bar, in words, and whether this run met it. */
  readonly bar?: string;
  readonly met?: boolean;
  readonly note?: string;
}

const printed: Figure[] = [];

function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

/** Prints a figure and keeps it for the table. */
export function figure(entry: Figure): void {
  const tidy = Object.fromEntries(
    Object.entries(entry).map(([key, value]) => [key, typeof value === 'number' ? rounded(value) : value]),
  );
  printed.push(tidy as unknown as Figure);
  process.stdout.write(`${JSON.stringify(tidy)}\n`);
}

export function figures(): readonly Figure[] {
  return printed;
}

/** The q-quantile (0 to 1) of a sample, by rank. */
export function quantile(sample: readonly number[], q: number): number {
  const sorted = [...sample].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

export const median = (sample: readonly number[]): number => quantile(sample, 0.5);

/** By least squares. */
export function fitOf(samples: readonly { readonly pages: number; readonly ms: number }[]): {
  interceptMs: number;
  slopeUs: number;
} {
  const mean = (of: (sample: (typeof samples)[number]) => number): number =>
    samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length;
  const [x, y] = [mean(({ pages }) => pages), mean(({ ms }) => ms)];
  const slope = mean(({ pages, ms }) => (pages - x) * (ms - y)) / mean(({ pages }) => (pages - x) ** 2);
  return { interceptMs: y - slope * x, slopeUs: slope * 1000 };
}
