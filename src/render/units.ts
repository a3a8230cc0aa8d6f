/** Numbers as people read them. JSON documents carry the raw numbers instead. */

const sizeUnits = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** Three significant digits and a binary unit: 1.46 GiB. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1023.5 && unit < sizeUnits.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? String(value) : threeDigits(value)} ${sizeUnits[unit] ?? ''}`;
}

/** 0.185 ms, 12.3 ms, 4.21 s, 2 min 05 s, 1 h 04 min. */
export function formatDuration(ms: number): string {
  if (ms < 999.5) return `${threeDigits(ms)} ms`;
  if (ms < 59_950) return `${threeDigits(ms / 1000)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${pad2(seconds % 60)} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${pad2(minutes % 60)} min`;
}

/** 1,048,576. Not by Intl: loading that takes longer than listing domains. */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(?:\d{3})+$)/gu, ',');
}

/** "1 finding", "2,000 findings". */
export const counted = (count: number, what: string): string =>
  `${formatCount(count)} ${what}${count === 1 ? '' : 's'}`;

/** Decimal gigabytes a second, the unit of docs/performance.md. */
export function formatRate(bytes: number, ms: number): string {
  return ms > 0 ? `${(bytes / ms / 1e6).toFixed(2)} GB/s` : '-';
}

export function formatRatio(ratio: number): string {
  return Number.isFinite(ratio) ? `${ratio.toFixed(2)}:1` : '-';
}

function threeDigits(value: number): string {
  if (value >= 99.95) return value.toFixed(0);
  if (value >= 9.995) return value.toFixed(1);
  return value >= 0.9995 || value === 0 ? value.toFixed(2) : value.toFixed(3);
}

function pad2(value: number): string {
  return String(value).padStart(2, '0');
}

/**
 * Text of unknown origin (domain names, strings of an image) made safe for a terminal: control characters, and those
 * that change the direction of writing, become `?`.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu, '?');
}

/** As `printable`, keeping line ends. */
export function printableLines(text: string): string {
  return text.split('\n').map(printable).join('\n');
}
