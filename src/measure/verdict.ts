/**
 * Does a reader keep up? Decided from its backlog over time, and from nothing else.
 *
 * A full send buffer is a late signal (default buffers swallow megabytes first), and a backlog by
 * itself is none (a reader may work in bursts). What tells is whether the *lower envelope* of the
 * backlog grows: what is owed at the reader's best moments. "No backlog that keeps growing" is the
 * sustainable throughput of Karimov et al., ICDE 2018; the interval around it follows the several
 * trials and irregular results of MLRsearch, RFC 9971.
 */

import { fitLine } from "./statistics.ts";

/** A sample of one reader. */
export interface Sample {
  /** Seconds since the trial began. */
  time: number;
  /** Offered less drained, bytes. */
  backlog: number;
  /** Bytes that the reader's program has taken since the trial began. */
  drained: number;
}

export interface VerdictOptions {
  /** Offered rate in bytes a second. */
  offered: number;
  /** The slope that still counts as none, as a share of the offered rate; default 0.005. */
  tolerance?: number;
  /**
   * How many times longer than the reader's longest excursion from the line a trial must be:
   * default 30. It makes a trial of a reader that pauses 50 ms last 1.5 s.
   */
  excursions?: number;
}

export interface VerdictResult {
  /** Undefined: not clear yet. */
  verdict: "keeps-up" | "falls-behind" | undefined;
  /** Not clear, and the slope is known to half the tolerance: a longer look tells little more. */
  marginal: boolean;
  /** Growth of the backlog's lower envelope, bytes a second. */
  backlogSlope: number;
  /** What the reader took, bytes a second. */
  drained: number;
}

/** The tolerance that DESIGN gives: 0.5 % of the offered rate. */
export const DEFAULT_TOLERANCE = 0.005;

/**
 * Five minima, a line through them: measured on simulated readers (steady, pausing 50 ms of 500,
 * noisy, robbed of the core) this told rates 0.5 % below and 1 % above the limit apart without an
 * error, in 0.3 s for a steady reader and 2 s for the pausing one; more blocks made the pausing one
 * wrong, a line through all samples needed 5 s for it.
 */
const BLOCKS = 5;
/** 1.5 s for a reader that pauses 50 ms; fewer took a stretch between two pauses for the whole. */
export const DEFAULT_EXCURSIONS = 30;

/** The lowest backlog of each of `BLOCKS` equal stretches of time. */
function lowerEnvelope(samples: readonly Sample[]): [number, number][] {
  const first = samples[0]!.time;
  const length = (samples.at(-1)!.time - first) / BLOCKS;
  const lowest: (Sample | undefined)[] = Array.from({ length: BLOCKS });
  for (const sample of samples) {
    const block = Math.min(BLOCKS - 1, Math.floor((sample.time - first) / length));
    const known = lowest[block];
    if (known === undefined || sample.backlog < known.backlog) lowest[block] = sample;
  }
  return lowest.filter((sample) => sample !== undefined).map((
    { time, backlog },
  ) => [time, backlog]);
}

/** Growth that no burst explains, as a share of the offered rate: a reader that collapses midway. */
const COLLAPSE = 0.1;

/** The verdict on what was sampled so far: at least a handful of samples, in order of time. */
export function judge(samples: readonly Sample[], options: VerdictOptions): VerdictResult {
  const whole = judgeStretch(samples, options);
  if (whole.verdict !== undefined || whole.backlogSlope <= 0) return whole;
  // A backlog with a knee in it is on no line: what counts is where it goes since.
  const late = judgeStretch(samples.slice(samples.length >> 1), options);
  const collapsed = late.verdict === "falls-behind" &&
    late.backlogSlope > COLLAPSE * options.offered;
  return collapsed ? late : whole;
}

function judgeStretch(samples: readonly Sample[], options: VerdictOptions): VerdictResult {
  const { offered, tolerance = DEFAULT_TOLERANCE, excursions = DEFAULT_EXCURSIONS } = options;
  if (samples.length < 2 * BLOCKS) {
    return { verdict: undefined, marginal: false, backlogSlope: 0, drained: 0 };
  }
  const { slope, halfWidth } = fitLine(lowerEnvelope(samples));
  const drained = fitLine(samples.map(({ time, drained }) => [time, drained])).slope;
  let low = Infinity;
  let high = -Infinity;
  for (const { time, backlog } of samples) {
    const excursion = backlog - slope * time;
    if (excursion < low) low = excursion;
    if (excursion > high) high = excursion;
  }
  const seconds = samples.at(-1)!.time - samples[0]!.time;
  const result: VerdictResult = {
    verdict: undefined,
    marginal: false,
    backlogSlope: slope,
    drained,
  };
  if (seconds < excursions * (high - low) / offered) return result;
  const bound = tolerance * offered;
  if (slope + halfWidth < bound) result.verdict = "keeps-up";
  else if (slope - halfWidth > bound) result.verdict = "falls-behind";
  else result.marginal = halfWidth < bound / 2;
  return result;
}
