/** Samples of a server over time, for bench/soak.ts, and whether anything of it grows. */
import { readdirSync, readFileSync } from "node:fs";
import { median } from "../src/measure/statistics.ts";

export interface Sample {
  /** Since the first one. */
  seconds: number;
  /** Resident memory; bytes. */
  memory: number;
  descriptors: number;
  threads: number;
  /** The queue; bytes on disk. */
  onDisk: number;
  /** Of the messages that came since the sample before: how late after their planned time; ms. */
  lateness: { median: number; most: number } | null;
}

/** What the kernel says of a process. Throws an Error when it has ended. */
export function look(pid: number): Pick<Sample, "memory" | "descriptors" | "threads"> {
  const text = readFileSync(`/proc/${pid}/status`, "latin1");
  const figure = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)![1]);
  return {
    memory: figure("VmRSS") * 1024,
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    threads: figure("Threads"),
  };
}

/** A figure at the start and at the end. */
export interface Growth {
  /** Medians of the first and of the last quarter after the warm-up. */
  first: number;
  last: number;
  /** Of the straight line through all samples after it; per hour. */
  slope: number;
  /** The most that `last` may be. */
  most: number;
  met: boolean;
}

/** What may be added: a share, and an amount. */
export interface Allowed {
  share: number;
  amount: number;
}

/** `figures`: after the warm-up, in order; `seconds`: their times. Needs four at least. */
export function growthOf(
  figures: readonly number[],
  seconds: readonly number[],
  { share, amount }: Allowed,
): Growth {
  const quarter = Math.max(1, Math.floor(figures.length / 4));
  const first = median(figures.slice(0, quarter));
  const last = median(figures.slice(-quarter));
  const most = first * (1 + share) + amount;
  return { first, last, slope: slopeOf(seconds, figures) * 3600, most, met: last <= most };
}

/** Of the straight line with the least squares. */
function slopeOf(xs: readonly number[], ys: readonly number[]): number {
  const mean = (values: readonly number[]) =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const x = mean(xs);
  const y = mean(ys);
  const both = xs.reduce((sum, each, i) => sum + (each - x) * (ys[i]! - y), 0);
  const squares = xs.reduce((sum, each) => sum + (each - x) ** 2, 0);
  return squares === 0 ? 0 : both / squares;
}
