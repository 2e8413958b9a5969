/**
 * Quantities as people write them on a command line, and as the reports print them.
 *
 * Sizes are powers of 1024 (`64k` is 65,536 bytes: a buffer), rates are decimal (`20MB/s` is
 * 20,000,000 bytes a second, `1M/s` a million messages a second). What is unambiguous is taken in
 * either, as IEC 80000-13 has it: `kB` is 1000, `KiB` is 1024.
 */

import { isIPv6 } from "node:net";

/** A quantity that cannot be used. Its message says what would be right, without the text itself. */
export class UnitError extends RangeError {
  override name = "UnitError";
}

/** The least and the most that is taken, both included, in the unit of the result. */
export interface Bounds {
  least?: number;
  most?: number;
}

/** What `--rate` and its like ask for. */
export type Rate = { messagesPerSecond: number } | { bytesPerSecond: number } | "max";

/** No quantity may be above this: far past any machine, far below where doubles lose integers. */
const MOST = 1e15;
/** setTimeout's longest: 24.8 days; a longer one would fire at once. */
const MOST_MS = 2 ** 31 - 1;

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

/** A size in whole bytes: `4096`, `64k`, `1M`, `1.5MiB`, `100kB`. Throws a UnitError. */
export function parseBytes(text: string, { least = 1, most = MOST }: Bounds = {}): number {
  const say = "must be a size such as 4096, 64k or 1M";
  const [, digits, prefix = "", unit] = SIZE_TEXT.exec(text.trim()) ?? [];
  const scale = unit === "B" ? DECIMAL[prefix] : BINARY[prefix];
  if (digits === undefined || scale === undefined || (unit === "iB" && prefix === "")) {
    throw new UnitError(say);
  }
  return bounded(Math.round(Number(digits) * scale), say, least, most, formatSize);
}

/** A duration in ms: `250ms`, `10s`, `2m`, `1h`, `50us`; a bare number is seconds. Throws a UnitError. */
export function parseDuration(text: string, { least = 1e-3, most = MOST_MS }: Bounds = {}): number {
  const say = "must be a duration such as 250ms, 10s or 2m";
  const [, digits, unit = ""] = DURATION_TEXT.exec(text.trim()) ?? [];
  if (digits === undefined) throw new UnitError(say);
  return bounded(
    Number(digits) * DURATION[unit]!,
    say,
    least,
    most,
    (ms) => formatSeconds(ms / 1e3),
  );
}

/**
 * A rate: `1M/s` or `500` in messages, `20MB/s` or `64KiB/s` in bytes, or `max`. Above zero, at most
 * 1e15. Throws a UnitError.
 */
export function parseRate(text: string): Rate {
  if (text.trim() === "max") return "max";
  const say = "must be a rate such as 1M/s (messages), 20MB/s or max";
  const { rate, inBytes } = rateOf(text, say);
  return inBytes ? { bytesPerSecond: rate } : { messagesPerSecond: rate };
}

/** A rate in bytes per second, with its `B`: `20MB/s`, `64KiB/s`. Throws a UnitError. */
export function parseByteRate(text: string): number {
  const say = "must be bytes per second such as 500kB/s or 20MB/s";
  const { rate, inBytes } = rateOf(text, say);
  if (!inBytes) throw new UnitError(say);
  return rate;
}

function rateOf(text: string, say: string): { rate: number; inBytes: boolean } {
  const [, digits, prefix = "", unit] = RATE_TEXT.exec(text.trim()) ?? [];
  const scale = unit === "iB" ? BINARY[prefix] : DECIMAL[prefix];
  if (digits === undefined || scale === undefined || (unit === "iB" && prefix === "")) {
    throw new UnitError(say);
  }
  const rate = Number(digits) * scale;
  if (!(rate > 0)) throw new UnitError(`${say}, above zero`);
  return { rate: bounded(rate, say, 0, MOST, String), inBytes: unit !== undefined };
}

/** A whole number. Throws a UnitError. */
export function parseCount(text: string, { least = 1, most = MOST }: Bounds = {}): number {
  const say = "must be a whole number such as 3";
  if (!/^\d+$/.test(text.trim())) throw new UnitError(say);
  return bounded(Number(text), say, least, most, String);
}

/** A percentage `1%` or a bare fraction `0.01`, as a fraction. Throws a UnitError. */
export function parseFraction(text: string, { least = 0, most = 1 }: Bounds = {}): number {
  const say = "must be a share such as 1% or 0.01";
  const [, digits, percent] = new RegExp(`^${NUMBER} ?(%?)$`).exec(text.trim()) ?? [];
  if (digits === undefined) throw new UnitError(say);
  const show = (fraction: number) => `${fraction * 100}%`;
  return bounded(Number(digits) / (percent === "%" ? 100 : 1), say, least, most, show);
}

function bounded(
  value: number,
  say: string,
  least: number,
  most: number,
  show: (value: number) => string,
): number {
  if (value < least) throw new UnitError(`${say}, and at least ${show(least)}`);
  if (!(value <= most)) {
    throw new UnitError(`${say}, and at most ${most === MOST ? "1e15" : show(most)}`);
  }
  return value;
}

/** Host and port; the host of `[::1]:8000` is `::1`. */
export interface HostPort {
  host: string;
  port: number;
}

/** Whether this can be an address or a host name; an IPv6 address is without brackets. */
export function isHost(text: string): boolean {
  if (!text.includes(":")) return /^[\w-]+(?:\.[\w-]+)*\.?$/.test(text);
  const [, address, zone = "0"] = /^([^%]*)(?:%(.*))?$/s.exec(text)!;
  return isIPv6(address!) && /^[\w.-]+$/.test(zone);
}

/** `HOST:PORT`, an IPv6 address in brackets. `least` is the lowest port, 1. Throws a UnitError. */
export function parseHostPort(text: string, { least = 1 }: Bounds = {}): HostPort {
  const say = "must be HOST:PORT such as 127.0.0.1:8000, localhost:8000 or [::1]:8000";
  const [, bracketed, plain, port] = /^(?:\[([0-9a-fA-F:.]+(?:%\w+)?)\]|([^\s:[\]/@]+)):(\d+)$/
    .exec(text.trim()) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || bracketed?.includes(":") === false || !isHost(host)) {
    throw new UnitError(say);
  }
  return { host, port: parsePort(port!, { least }) };
}

/** A TCP port. `least` is the lowest, 1; 0 lets the kernel choose. Throws a UnitError. */
export function parsePort(text: string, { least = 1 }: Bounds = {}): number {
  if (/^\d+$/.test(text) && Number(text) >= least && Number(text) <= 65_535) return Number(text);
  throw new UnitError(`must be a port from ${least} to 65535`);
}

/** Host and port as `parseHostPort` reads them. */
export function formatHostPort({ host, port }: HostPort): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

const DIGITS = new Intl.NumberFormat("en", {
  minimumSignificantDigits: 3,
  maximumSignificantDigits: 3,
  useGrouping: false,
});

/** Three significant digits and a decimal prefix; whole numbers below 1000 as they are. */
function scaled(value: number): string {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let power = 0;
  // From 999.5 on, three digits would round to 1000.
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

/** A number of things: 1,550,000 is `1.55 M`. */
export function formatCount(count: number): string {
  return scaled(count).trimEnd();
}

/** A time given in seconds: `12.3 s`, `250 ms`, `50.0 µs`; from 1000 s on in whole seconds. */
export function formatSeconds(seconds: number): string {
  if (seconds === 0) return "0 s";
  if (seconds >= 999.5) return `${Math.round(seconds)} s`;
  // 0.9995 s would round to 1000 ms.
  if (seconds >= 0.9995) return `${DIGITS.format(seconds)} s`;
  if (seconds >= 0.9995e-3) return `${DIGITS.format(seconds * 1e3)} ms`;
  return `${DIGITS.format(seconds * 1e6)} µs`;
}

/** A size as `parseBytes` reads it back: 65,536 is `64k`, 1000 is `1000`. */
export function formatSize(bytes: number): string {
  for (const [prefix, scale] of [["G", 2 ** 30], ["M", 2 ** 20], ["k", 2 ** 10]] as const) {
    if (bytes >= scale && bytes % scale === 0) return `${bytes / scale}${prefix}`;
  }
  return String(bytes);
}
