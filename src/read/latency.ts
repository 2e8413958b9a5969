/**
 * The latency of numbered messages: the time from the planned send of a message to its read.
 *
 * It starts at the planned time, not at the actual send: when a slow reader makes the sender wait,
 * that wait is part of the latency (coordinated omission, see wrk2).
 *
 * Sender and reader use the clock `performance.timeOrigin + performance.now()`. It was within 1 µs of
 * CLOCK_REALTIME on Deno and Bun and within 6 µs on Node, in 24 processes each, idle and loaded (Linux
 * 6.18). That is the accuracy on one host; between two hosts it is that of their clocks.
 */
import { createHistogram } from "node:perf_hooks";
import { checkNumberedSize } from "../message/numbered.ts";
import { formatCount, formatSeconds } from "../text/units.ts";

/** The bytes of a message that are examined: its number and its planned time. */
const HEADER_BYTES = 16;
const PLANNED_AT = 8;
const TWO_32 = 2 ** 32;
/** A planned time that is further away than this, one day, is implausible. */
const MAX_NS = 86_400e9;
/** Significant digits of the percentiles: accurate to 0.1 %. */
const FIGURES = 3;

/** Percentiles of times, in seconds. */
export interface Percentiles {
  p50: number;
  p90: number;
  p99: number;
  p999: number;
  p9999: number;
  max: number;
}

/** Percentiles of the time from the planned send to the read. */
export interface Latency extends Percentiles {
  unit: "seconds";
  /** How coordinated omission is corrected: by measuring from this time. */
  corrected: "planned send time";
  /** Messages that were measured. */
  count: number;
  /**
   * Messages whose planned time is more than a day away, because they are damaged or of another size.
   * They are not in the percentiles. Absent when there are none.
   */
  implausible?: number;
}

export interface LatencyOptions {
  /** Size of a message: bytes, at least 20. */
  size: number;
  /** Messages that were planned within this time of the first read are not measured: ms, default 0. */
  settleMs?: number | undefined;
}

/**
 * Measures a stream of numbered messages. Chunks may end anywhere. A message counts as read when its
 * last byte is. All messages that end in the same chunk have the same read time, so a chunk is the
 * resolution. Costs some 30 ns per message.
 */
export class LatencyMeter {
  readonly #size: number;
  readonly #settleMs: number;
  readonly #histogram = createHistogram({ lowest: 1, highest: MAX_NS, figures: FIGURES });
  /** The start of the incomplete message at the end of the last chunk. */
  readonly #header = new Uint8Array(HEADER_BYTES);
  readonly #headerView = new DataView(this.#header.buffer);
  #partialBytes = 0;
  /** Messages planned before this time are not measured: ns since 1970. */
  #fromNs: number | undefined;
  #maxNs = 0;
  #implausible = 0;

  /** Throws a RangeError when the size is invalid. */
  constructor({ size, settleMs = 0 }: LatencyOptions) {
    checkNumberedSize(size);
    this.#size = size;
    this.#settleMs = settleMs;
  }

  /** Measures the next bytes of the stream. `readMs`: when they were read, ms since 1970; default now. */
  push(chunk: Uint8Array, readMs?: number): void {
    const size = this.#size;
    let at = 0;
    const partial = this.#partialBytes;
    let readNs = NaN;
    // With reads of 10 bytes, reading the clock each time would be costly: only if a message ends.
    if (partial + chunk.length >= size || this.#fromNs === undefined) {
      // Above 2^53, so rounded to 256 ns: less than the error of the clock.
      readNs = (readMs ?? performance.timeOrigin + performance.now()) * 1e6;
      this.#fromNs ??= this.#settleMs > 0 ? readNs + this.#settleMs * 1e6 : 0;
    }
    if (partial > 0) {
      at = Math.min(size - partial, chunk.length);
      if (partial < HEADER_BYTES) {
        this.#header.set(chunk.subarray(0, Math.min(HEADER_BYTES - partial, at)), partial);
      }
      this.#partialBytes = partial + at;
      if (this.#partialBytes < size) return;
      this.#measure(this.#headerView, 0, readNs);
    }
    if (at + size <= chunk.length) {
      const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.length);
      for (; at + size <= chunk.length; at += size) this.#measure(view, at, readNs);
    }
    this.#partialBytes = chunk.length - at;
    if (this.#partialBytes > 0) {
      this.#header.set(chunk.subarray(at, Math.min(at + HEADER_BYTES, chunk.length)));
    }
  }

  /** The result so far; undefined if no message was measured. */
  result(): Latency | undefined {
    const histogram = this.#histogram;
    const { count } = histogram;
    const implausible = this.#implausible;
    if (count === 0) return undefined;
    // A percentile is the upper end of a histogram bucket, which may be above the maximum.
    const seconds = (percentile: number) =>
      Math.min(histogram.percentile(percentile), this.#maxNs) / 1e9;
    return {
      unit: "seconds",
      corrected: "planned send time",
      count,
      p50: seconds(50),
      p90: seconds(90),
      p99: seconds(99),
      p999: seconds(99.9),
      p9999: seconds(99.99),
      max: this.#maxNs / 1e9,
      ...(implausible === 0 ? {} : { implausible }),
    };
  }

  #measure(view: DataView, at: number, readNs: number): void {
    const plannedNs = view.getUint32(at + PLANNED_AT) * TWO_32 +
      view.getUint32(at + PLANNED_AT + 4);
    const ns = readNs - plannedNs;
    if (ns >= MAX_NS || ns <= -MAX_NS) {
      this.#implausible++;
      return;
    }
    if (plannedNs < this.#fromNs!) return;
    if (ns > this.#maxNs) this.#maxNs = ns;
    // A negative latency is the difference of the two clocks.
    this.#histogram.record(ns < 1 ? 1 : Math.round(ns));
  }
}

/** The header of a table of percentiles. */
export const LATENCY_HEAD: readonly string[] = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];

/** A row of that table. */
export function formatPercentiles(
  { p50, p90, p99, p999, p9999, max }: Percentiles,
): string[] {
  return [p50, p90, p99, p999, p9999, max].map(formatSeconds);
}

/** One line that says what the percentiles measure. */
export function describeLatency({ count, implausible = 0 }: Latency): string {
  return `from the planned send to the read, of ${formatCount(count)} messages; corrected for ` +
    "coordinated omission" +
    (implausible === 0
      ? ""
      : `; ${implausible} more without a plausible time: is --size the size of the messages?`);
}
