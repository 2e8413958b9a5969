/**
 * The results of the cross-runtime benchmark: `speedlimit/bench@2`.
 *
 * While the benchmark runs, it writes JSON lines: one `BenchHeader`, one `BenchRun` for each run
 * that has ended, and a `BenchEnd`. A file without a `BenchEnd` was interrupted, and can be
 * resumed. At the end, the same content is written as one JSON object, `BenchResult`, which reports
 * read.
 *
 * Rates are in bytes a second, durations in seconds, sizes in bytes, times within a series in
 * seconds since its start.
 */
import type { KernelSource } from "../kernel/kernel.ts";
import type { Percentiles } from "../read/latency.ts";
import type { LimitResult, Trial } from "../measure/limit_result.ts";
import type { SeriesAround } from "../measure/series.ts";
import type { Machine } from "./machine.ts";

export const BENCH_SCHEMA = "speedlimit/bench@2";

/** One measurement of the table. */
export type BenchCell =
  /** The speed limit of a reader with messages of one size. */
  | { kind: "reader"; who: string; mode: "naive" | "drain"; size: number }
  /** The rate at which a runtime's flood of messages of one size goes into a C drain. */
  | { kind: "sender"; who: string; size: number }
  /** A C flood into a C drain: shows how fast the machine was at that time. */
  | { kind: "control"; who: "c"; size: number }
  /** iperf3's own sender and reader, as a figure that many know. */
  | { kind: "iperf3"; who: "iperf3"; size: number };

export interface BenchHeader {
  type: "header";
  schema: typeof BENCH_SCHEMA;
  /** A random identifier of this run of the benchmark. */
  id: string;
  machine: Machine;
  /** The program that searched the limits: it is also the sender for every reader. */
  generator: { runtime: string; kernelSource: KernelSource };
  /** Versions of the other programs that were measured, and of the C compiler. */
  programs: Partial<Record<"python" | "c" | "iperf3", string>>;
  /** The command that repeats the benchmark. */
  command: string;
  quick: boolean;
  /** The requested precision of a reader's limit: upper / lower - 1. */
  precision: number;
  /** Counted runs of each reader; all other cells have twice as many. */
  runs: number;
  /** Runs before them that are not counted. Readers have none: each search begins with a ramp. */
  warmUps: number;
  cells: BenchCell[];
  /** Cells that cannot be measured here, and why: `no python3`. */
  skipped: { cell: BenchCell; why: string }[];
}

/** The figures of a reader's search. */
export interface ReaderFigures
  extends Pick<LimitResult, "outcome" | "message" | "limit" | "overload" | "recovery"> {
  trials: Trial[];
  /** The highest rate at which it kept up, in a trial of any length; 0: none. */
  keepsUpAt: number;
  /** Which side limited the rate. */
  limitedBy: "reader" | "generator" | "unknown";
  /** One trial below the limit and one above it; only in the first counted run. */
  series?: SeriesAround;
  /** By rate; only for our own client, in the first counted run, with one message size. */
  latency?: BenchLatency[];
}

/**
 * Latency at one offered rate, from the planned send to the read (which corrects for coordinated
 * omission); seconds.
 */
export interface BenchLatency extends Percentiles {
  rate: number;
  messages: number;
}

/** The figures of a sender, of the control and of iperf3. */
export interface SenderFigures {
  bytesPerSecond: number;
  /** Share of the time in which each process was on a core; null where it is unknown (iperf3). */
  senderBusy: number | null;
  readerBusy: number | null;
  /** The process that never waited while the other one did; else unknown, as it may be both. */
  limitedBy: "sender" | "reader" | "unknown";
}

export interface BenchRun {
  type: "run";
  /** Index into `cells`. */
  cell: number;
  /** From 0; the first `warmUps` rounds are not counted. */
  round: number;
  /** When the run began: ISO 8601, UTC. */
  date: string;
  seconds: number;
  figures: ReaderFigures | SenderFigures | { failed: string };
}

export interface BenchEnd {
  type: "end";
  date: string;
  /** Total duration, without the time in which the benchmark was interrupted. */
  seconds: number;
}

/** The whole result as one object: the header, and the counted runs of each cell. */
export interface BenchResult extends Omit<BenchHeader, "type"> {
  complete: boolean;
  seconds: number;
  rows: BenchRow[];
}

/** One cell with the figures of its runs. */
export interface BenchRow {
  cell: BenchCell;
  runs: BenchRun["figures"][];
  /**
   * Of a sender: median, minimum and maximum of its runs. Of a reader: the median of the middles of
   * its limits, the lowest lower bound and the highest upper bound. `atLeast`: in some run the
   * sender was the limit, and the highest rate at which the reader kept up is used instead; the
   * limit may be higher.
   */
  rate: { median: number; min: number; max: number; atLeast?: boolean } | null;
  /** Of a reader: medians over its runs. */
  overload?: { offered: number; drained: number; collapsed: boolean } | null;
  recovery?: { recovered: boolean; seconds: number } | null;
}
