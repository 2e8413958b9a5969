/**
 * How late numbered messages come: the time from the planned send of each to its read.
 *
 * It is measured from the plan and not from the send, so that a sender which was kept waiting, by a
 * reader that stood still, does not hide the wait (coordinated omission, see wrk2).
 *
 * Sender and reader take their time from `performance.timeOrigin + performance.now()`, which was
 * within 1 us of CLOCK_REALTIME on Deno and Bun and within 6 us on Node, in every process that was
 * started, idle or loaded (24 each; Linux 6.18). On one host the figures are right to that; over two
 * hosts they are as right as their clocks.
 */
import { createHistogram } from "node:perf_hooks";
import { checkNumberedSize } from "../message/numbered.ts";
import { formatCount, formatSeconds } from "../text/units.ts";

/** What of a message is looked at: its number and its planned time. */
const HEADER_BYTES = 16;
const PLANNED_AT = 8;
const TWO_32 = 2 ** 32;
/** A plan that is further off than a day is none. ns */
const MOST_NS = 86_400e9;
/** Significant digits of a percentile: right to 0.1 %. */
const FIGURES = 3;

/** Of times, in seconds. */
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
  /** For coordinated omission, by measuring from there. */
  corrected: "planned send time";
  /** Messages that were measured. */
  count: number;
  /**
   * Messages whose planned time is more than a day off, and which are in no percentile: they are
   * damaged, or of another size. Absent when there are none.
   */
  implausible?: number;
}

export interface LatencyOptions {
  /** Bytes of a message: at least 20. */
  size: number;
  /** Messages planned within so many ms of the first read are not measured; default 0. */
  settleMs?: number | undefined;
}

/**
 * Measures a stream of numbered messages, in chunks that need not end where messages end. A message
 * is read when its last byte is; all that are whole by the end of a chunk share the time of that
 * chunk, so the resolution is the chunk. Costs some 30 ns a message.
 */
export class LatencyMeter {
  readonly #size: number;
  readonly #settleMs: number;
  readonly #histogram = createHistogram({ lowest: 1, highest: MOST_NS, figures: FIGURES });
  /** The beginning of the message that the last chunk left unfinished. */
  readonly #header = new Uint8Array(HEADER_BYTES);
  readonly #headerView = new DataView(this.#header.buffer);
  #begunBytes = 0;
  /** ns since 1970. */
  #fromNs: number | undefined;
  #maxNs = 0;
  #implausible = 0;

  /** Throws a RangeError when the size cannot be. */
  constructor({ size, settleMs = 0 }: LatencyOptions) {
    checkNumberedSize(size);
    this.#size = size;
    this.#settleMs = settleMs;
  }

  /** The next bytes of the stream, and when they were read: ms since 1970, default now. */
  push(chunk: Uint8Array, readMs?: number): void {
    const size = this.#size;
    let at = 0;
    const begun = this.#begunBytes;
    let readNs = NaN;
    // A reader that takes 10 bytes a read is not to ask the clock each time.
    if (begun + chunk.length >= size || this.#fromNs === undefined) {
      // Past 2^53, so to the next 256 ns: less than what the clock is off.
      readNs = (readMs ?? performance.timeOrigin + performance.now()) * 1e6;
      this.#fromNs ??= this.#settleMs > 0 ? readNs + this.#settleMs * 1e6 : 0;
    }
    if (begun > 0) {
      at = Math.min(size - begun, chunk.length);
      if (begun < HEADER_BYTES) {
        this.#header.set(chunk.subarray(0, Math.min(HEADER_BYTES - begun, at)), begun);
      }
      this.#begunBytes = begun + at;
      if (this.#begunBytes < size) return;
      this.#measure(this.#headerView, 0, readNs);
    }
    if (at + size <= chunk.length) {
      const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.length);
      for (; at + size <= chunk.length; at += size) this.#measure(view, at, readNs);
    }
    this.#begunBytes = chunk.length - at;
    if (this.#begunBytes > 0) {
      this.#header.set(chunk.subarray(at, Math.min(at + HEADER_BYTES, chunk.length)));
    }
  }

  /** What was measured so far; undefined: nothing. */
  result(): Latency | undefined {
    const histogram = this.#histogram;
    const { count } = histogram;
    const implausible = this.#implausible;
    if (count === 0) return undefined;
    // A percentile is the upper end of its bucket, which may be above all that was seen.
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
    if (ns >= MOST_NS || ns <= -MOST_NS) {
      this.#implausible++;
      return;
    }
    if (plannedNs < this.#fromNs!) return;
    if (ns > this.#maxNs) this.#maxNs = ns;
    // What comes before its time does so by what the clocks are off.
    this.#histogram.record(ns < 1 ? 1 : Math.round(ns));
  }
}

/** The percentiles' names in a table. */
export const LATENCY_HEAD: readonly string[] = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];

/** A line of that table. Times in seconds. */
export function formatPercentiles(
  { p50, p90, p99, p999, p9999, max }: Percentiles,
): string[] {
  return [p50, p90, p99, p999, p9999, max].map(formatSeconds);
}

/** What the percentiles are of: one line. */
export function describeLatency({ count, implausible = 0 }: Latency): string {
  return `from the planned send to the read, of ${formatCount(count)} messages; corrected for ` +
    "coordinated omission" +
    (implausible === 0 ? "" : `; ${implausible} more have no plausible time: is --size theirs?`);
}
