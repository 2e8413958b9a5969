/**
 * The results of the cross-runtime benchmark: `speedlimit/bench@2`.
 *
 * While it runs, it writes JSON lines: one `BenchHeader`, then one `BenchRun` for each run that has
 * ended, and a `BenchEnd`. A file without its end is one that was interrupted, and can be resumed.
 * At the end the same is written once more as one JSON object, `BenchResult`: what a report reads.
 *
 * Rates are in bytes a second, durations in seconds, sizes in bytes, times within a series in seconds
 * from its start.
 */
import type { Percentiles } from "../read/latency.ts";
import type { KernelSource } from "../kernel/kernel.ts";
import type { LimitResult, Trial } from "../measure/limit_result.ts";
import type { SeriesAround } from "../measure/series.ts";
import type { Machine } from "./machine.ts";

export const BENCH_SCHEMA = "speedlimit/bench@2";

/** What is measured: one cell of the table. */
export type BenchCell =
  /** The speed limit of a reader that is fed messages of a size. */
  | { kind: "reader"; who: string; mode: "naive" | "drain"; size: number }
  /** How fast a flood of messages of a size goes into a C drain. */
  | { kind: "sender"; who: string; size: number }
  /** A C flood into a C drain: what this machine did at that time. */
  | { kind: "control"; who: "c"; size: number }
  /** iperf3's own sender and reader, for those who know its figures. */
  | { kind: "iperf3"; who: "iperf3"; size: number };

export interface BenchHeader {
  type: "header";
  schema: typeof BENCH_SCHEMA;
  /** Which run of the benchmark this is: random, so that two files can be told apart. */
  id: string;
  machine: Machine;
  /** What searched the limits: it is the sender that every reader was fed by. */
  generator: { runtime: string; kernelSource: KernelSource };
  /** Versions of what else was measured, or compiled it. */
  programs: Partial<Record<"python" | "c" | "iperf3", string>>;
  /** The command that repeats it. */
  command: string;
  quick: boolean;
  /** How narrow the interval of a reader's limit had to be, as a share. */
  precision: number;
  /** Runs of each reader that count; all other cells have twice as many. */
  runs: number;
  /** Runs before them that do not; a reader has none, since each search begins with a ramp. */
  warmUps: number;
  cells: BenchCell[];
  /** Cells that cannot be measured here, and why: `no python3`. */
  skipped: { cell: BenchCell; why: string }[];
}

/** Of a reader: the figures of its search. */
export interface ReaderFigures
  extends Pick<LimitResult, "outcome" | "message" | "limit" | "overload" | "recovery"> {
  trials: Trial[];
  /** The highest rate at which it kept up, in a trial of any length; 0: none. */
  keepsUpAt: number;
  /** Who kept it from going faster. */
  limitedBy: "reader" | "generator" | "unknown";
  /** One trial below the limit and one above it; only in the first run that counts. */
  series?: SeriesAround;
  /** Of our own client only, by rate; in the first run that counts, with one size of messages. */
  latency?: BenchLatency[];
}

/**
 * From the planned send to the read (so corrected for coordinated omission): seconds at one offered
 * rate.
 */
export interface BenchLatency extends Percentiles {
  rate: number;
  messages: number;
}

/** Of a sender, the control and iperf3. */
export interface SenderFigures {
  bytesPerSecond: number;
  /** Shares of the time that each process was on a core; null where it is not told (iperf3). */
  senderBusy: number | null;
  readerBusy: number | null;
  /** The one that never waited, if the other did; else unknown: with two cores it may be both. */
  limitedBy: "sender" | "reader" | "unknown";
}

export interface BenchRun {
  type: "run";
  /** Place in `cells`. */
  cell: number;
  /** From 0; the first `warmUps` do not count. */
  round: number;
  /** When it began: ISO 8601, UTC. */
  date: string;
  seconds: number;
  figures: ReaderFigures | SenderFigures | { failed: string };
}

export interface BenchEnd {
  type: "end";
  date: string;
  /** Altogether, without the time in which it was interrupted. */
  seconds: number;
}

/** The whole, as one object: the header, and the runs of each cell that count. */
export interface BenchResult extends Omit<BenchHeader, "type"> {
  complete: boolean;
  seconds: number;
  rows: BenchRow[];
}

/** One cell, with what its runs gave. */
export interface BenchRow {
  cell: BenchCell;
  runs: BenchRun["figures"][];
  /**
   * Of a sender: the middle, the least and the most of its runs. Of a reader: the middle of its
   * limits' middles, the least lower bound and the most upper one: what is known of its limit,
   * whichever run is right. `atLeast`: the generator was the limit in some run, which stands here
   * with the rate that was kept, so the limit may be higher.
   */
  rate: { median: number; min: number; max: number; atLeast?: boolean } | null;
  /** Of a reader: the medians. */
  overload?: { offered: number; drained: number; collapsed: boolean } | null;
  recovery?: { recovered: boolean; seconds: number } | null;
}
