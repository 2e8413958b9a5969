/**
 * Room: quantities and text as people write and read them: units, tables, progress, escaping.
 * In: text from a command line; numbers in bytes, seconds and ms.
 * Out: numbers, or a `UnitError` that says what would be right; text for reports and pages.
 */
import { isIPv6 } from "node:net";

/**
 * A text is not a usable quantity. The message says what would be right ("must be ...") and does
 * not repeat the text.
 */
export class UnitError extends RangeError {
  override name = "UnitError";
}

/** The smallest and the largest accepted value, both included, in the unit of the result. */
export interface Bounds {
  least?: number;
  most?: number;
}

/** A rate from the command line; `max`: as fast as possible. */
export type Rate = { messagesPerSecond: number } | { bytesPerSecond: number } | "max";

/** No quantity may be larger: above what any machine does, below 2^53, where doubles lose integers. */
const MAX_QUANTITY = 1e15;
/** The longest timeout of setTimeout, 24.8 days; a longer one would fire at once. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

// Bare prefixes of sizes are powers of 1024, because buffers are: `64k` is 65,536 bytes. Those of
// rates are decimal: `1M/s` is a million messages per second. With a unit, sizes and rates follow
// IEC 80000-13: `kB` is 1000 bytes, `KiB` 1024.
const DECIMAL: Record<string, number> = { "": 1, k: 1e3, K: 1e3, M: 1e6, G: 1e9, T: 1e12 };
const BINARY: Record<string, number> = {
  "": 1,
  k: 2 ** 10,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
};
const DURATION: Record<string, number> = {
  us: 1e-3,
  "µs": 1e-3,
  "μs": 1e-3,
  ms: 1,
  "": 1e3,
  s: 1e3,
  m: 60e3,
  min: 60e3,
  h: 3600e3,
};

const NUMBER = String.raw`(\d+(?:\.\d+)?(?:e\d+)?|\.\d+)`;
const SIZE_TEXT = new RegExp(`^${NUMBER} ?([kKMGT]?)(i?B)?$`);
const RATE_TEXT = new RegExp(`^${NUMBER} ?([kKMGT]?)(i?B)?(/s)?$`);
const DURATION_TEXT = new RegExp(`^${NUMBER} ?(us|[µμ]s|ms|s|min|m|h)?$`);

/** A size in whole bytes, by default at least 1: `4096`, `64k`, `1.5MiB`, `100kB`. Throws a UnitError. */
export function parseBytes(text: string, { least = 1, most = MAX_QUANTITY }: Bounds = {}): number {
  const expected = "must be a size such as 4096, 64k or 1M";
  const [, digits, prefix = "", unit] = SIZE_TEXT.exec(text.trim()) ?? [];
  const scale = unit === "B" ? DECIMAL[prefix] : BINARY[prefix];
  if (digits === undefined || scale === undefined || (unit === "iB" && prefix === "")) {
    throw new UnitError(expected);
  }
  return bounded(Math.round(Number(digits) * scale), expected, least, most, formatSize);
}

/**
 * A duration in ms: `250ms`, `10s`, `2m`, `1h`, `50us`. A bare number is in seconds. Default bounds:
 * 1 µs to 24.8 days. Throws a UnitError.
 */
export function parseDuration(
  text: string,
  { least = 1e-3, most = MAX_TIMEOUT_MS }: Bounds = {},
): number {
  const expected = "must be a duration such as 250ms, 10s or 2m";
  const [, digits, unit = ""] = DURATION_TEXT.exec(text.trim()) ?? [];
  if (digits === undefined) throw new UnitError(expected);
  return bounded(
    Number(digits) * DURATION[unit]!,
    expected,
    least,
    most,
    (ms) => formatSeconds(ms / 1e3),
  );
}

/** A size that lasts for a time: `8M:60s`. Throws a UnitError. */
export function parseSustained(text: string): { bytes: number; ms: number } {
  const [size, time, more] = text.split(":");
  try {
    if (time !== undefined && more === undefined) {
      return { bytes: parseBytes(size!), ms: parseDuration(time) };
    }
  } catch (error) {
    if (!(error instanceof UnitError)) throw error;
  }
  throw new UnitError("must be a size and a time such as 8M:60s");
}

/**
 * A rate: `1M/s` or `500` in messages, `20MB/s` or `64KiB/s` in bytes, or `max`. Must be above zero
 * and at most 1e15. Throws a UnitError.
 */
export function parseRate(text: string): Rate {
  if (text.trim() === "max") return "max";
  const expected = "must be a rate such as 1M/s (messages), 20MB/s or max";
  const { rate, inBytes } = rateOf(text, expected);
  return inBytes ? { bytesPerSecond: rate } : { messagesPerSecond: rate };
}

/** A rate in bytes per second; the `B` is required: `20MB/s`, `64KiB/s`. Throws a UnitError. */
export function parseByteRate(text: string): number {
  const expected = "must be bytes per second such as 500kB/s or 20MB/s";
  const { rate, inBytes } = rateOf(text, expected);
  if (!inBytes) throw new UnitError(expected);
  return rate;
}

function rateOf(text: string, expected: string): { rate: number; inBytes: boolean } {
  const [, digits, prefix = "", unit] = RATE_TEXT.exec(text.trim()) ?? [];
  const scale = unit === "iB" ? BINARY[prefix] : DECIMAL[prefix];
  if (digits === undefined || scale === undefined || (unit === "iB" && prefix === "")) {
    throw new UnitError(expected);
  }
  const rate = Number(digits) * scale;
  if (!(rate > 0)) throw new UnitError(`${expected}, above zero`);
  return { rate: bounded(rate, expected, 0, MAX_QUANTITY, String), inBytes: unit !== undefined };
}

/** A whole number, by default at least 1. Throws a UnitError. */
export function parseCount(text: string, { least = 1, most = MAX_QUANTITY }: Bounds = {}): number {
  const expected = "must be a whole number such as 3";
  if (!/^\d+$/.test(text.trim())) throw new UnitError(expected);
  return bounded(Number(text), expected, least, most, String);
}

/** A fraction, by default from 0 to 1, from `1%` or `0.01`. Throws a UnitError. */
export function parseFraction(text: string, { least = 0, most = 1 }: Bounds = {}): number {
  const expected = "must be a share such as 1% or 0.01";
  const [, digits, percent] = new RegExp(`^${NUMBER} ?(%?)$`).exec(text.trim()) ?? [];
  if (digits === undefined) throw new UnitError(expected);
  const show = (fraction: number) => `${fraction * 100}%`;
  return bounded(Number(digits) / (percent === "%" ? 100 : 1), expected, least, most, show);
}

function bounded(
  value: number,
  expected: string,
  least: number,
  most: number,
  show: (value: number) => string,
): number {
  if (value < least) throw new UnitError(`${expected}, and at least ${show(least)}`);
  if (!(value <= most)) {
    throw new UnitError(`${expected}, and at most ${most === MAX_QUANTITY ? "1e15" : show(most)}`);
  }
  return value;
}

/** Host and port; an IPv6 host is without brackets: that of `[::1]:8000` is `::1`. */
export interface HostPort {
  host: string;
  port: number;
}

/** Whether the text can be an address or a host name; an IPv6 address must be without brackets. */
export function isHost(text: string): boolean {
  if (!text.includes(":")) return /^[\w-]+(?:\.[\w-]+)*\.?$/.test(text);
  const [, address, zone = "0"] = /^([^%]*)(?:%(.*))?$/s.exec(text)!;
  return isIPv6(address!) && /^[\w.-]+$/.test(zone);
}

/** `HOST:PORT`, an IPv6 address in brackets. `least` is the lowest port, default 1. Throws a UnitError. */
export function parseHostPort(text: string, { least = 1 }: Bounds = {}): HostPort {
  const expected = "must be HOST:PORT such as 127.0.0.1:8000, localhost:8000 or [::1]:8000";
  const [, bracketed, plain, port] = /^(?:\[([0-9a-fA-F:.]+(?:%[\w.-]+)?)\]|([^\s:[\]/@]+)):(\d+)$/
    .exec(text.trim()) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || bracketed?.includes(":") === false || !isHost(host)) {
    throw new UnitError(expected);
  }
  return { host, port: parsePort(port!, { least }) };
}

/**
 * A TCP port. `least` is the lowest, default 1; callers that listen pass 0, which lets the kernel
 * choose. Throws a UnitError.
 */
export function parsePort(text: string, { least = 1 }: Bounds = {}): number {
  if (/^\d+$/.test(text) && Number(text) >= least && Number(text) <= 65_535) return Number(text);
  throw new UnitError(`must be a port from ${least} to 65535`);
}

/** Host and port in the form that `parseHostPort` accepts. */
export function formatHostPort({ host, port }: HostPort): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

const DIGITS = new Intl.NumberFormat("en", {
  minimumSignificantDigits: 3,
  maximumSignificantDigits: 3,
  useGrouping: false,
});

/** Three significant digits and a decimal prefix; whole numbers below 1000 are not rounded. */
function scaled(value: number): string {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let power = 0;
  // 999.5 and above would round to 1000 with three digits.
  while (Math.abs(value) / 1000 ** power >= 999.5 && power < prefixes.length - 1) power++;
  if (power === 0 && Number.isInteger(value)) return `${value} `;
  return `${DIGITS.format(value / 1000 ** power)} ${prefixes[power]}`;
}

/** Bytes in decimal units: 20,150,000 is `20.2 MB`. */
export function formatBytes(bytes: number): string {
  return `${scaled(bytes)}B`;
}

/** Bytes per second: 20,150,000 is `20.2 MB/s`. */
export function formatByteRate(bytesPerSecond: number): string {
  return `${scaled(bytesPerSecond)}B/s`;
}

/** A count: 1,550,000 is `1.55 M`. */
export function formatCount(count: number): string {
  return scaled(count).trimEnd();
}

/** A time given in seconds: `12.3 s`, `250 ms`, `50.0 µs`; 1000 s and more in whole seconds. */
export function formatSeconds(seconds: number): string {
  if (seconds === 0) return "0 s";
  if (seconds >= 999.5) return `${Math.round(seconds)} s`;
  // 0.9995 s would round to 1000 ms.
  if (seconds >= 0.9995) return `${DIGITS.format(seconds)} s`;
  if (seconds >= 0.9995e-3) return `${DIGITS.format(seconds * 1e3)} ms`;
  return `${DIGITS.format(seconds * 1e6)} µs`;
}

/** A size in the form that `parseBytes` accepts, without rounding: 65,536 is `64k`, 1000 is `1000`. */
export function formatSize(bytes: number): string {
  for (const [prefix, scale] of [["G", 2 ** 30], ["M", 2 ** 20], ["k", 2 ** 10]] as const) {
    if (bytes >= scale && bytes % scale === 0) return `${bytes / scale}${prefix}`;
  }
  return String(bytes);
}
