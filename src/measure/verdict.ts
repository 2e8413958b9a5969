/**
 * Decides whether a reader keeps up, from its backlog over time and from nothing else.
 *
 * A full send buffer is a late signal: default buffers take megabytes first. A backlog by itself is
 * no signal: a reader may work in bursts. The verdict depends on whether the *lower envelope* of
 * the backlog grows, that is, on its minima over time. "No backlog that keeps growing" is the
 * sustainable throughput of Karimov et al., ICDE 2018. Repeated trials and irregular results come
 * from MLRsearch, RFC 9971.
 */
import { fitLine } from "./statistics.ts";

/** A sample of one reader. */
export interface Sample {
  /** Seconds since the trial began. */
  time: number;
  /** Offered less drained, bytes. */
  backlog: number;
  /** Bytes that the reader's program has read since the trial began. */
  drained: number;
}

export interface VerdictOptions {
  /** Offered rate in bytes a second. */
  offered: number;
  /** The backlog may grow by this share of the offered rate and still keep up; default 0.005. */
  tolerance?: number;
  /**
   * How many times longer than the reader's longest pause a trial must be; default 30. The pause is
   * estimated from how far the backlog leaves the fitted line. With a pause of 50 ms, a trial takes
   * 1.5 s.
   */
  excursions?: number;
}

export interface VerdictResult {
  /** Undefined: not clear from these samples. */
  verdict: "keeps-up" | "falls-behind" | undefined;
  /**
   * Not clear although the slope is already known to within half the tolerance: a longer trial
   * would hardly help.
   */
  marginal: boolean;
  /** Growth of the backlog's lower envelope, bytes a second. */
  backlogSlope: number;
  /** Bytes a second that the reader drained. */
  drained: number;
}

/** 0.5 % of the offered rate. */
export const DEFAULT_TOLERANCE = 0.005;

/**
 * The lower envelope is a line through five minima. With simulated readers (steady, pausing 50 ms
 * of every 500 ms, noisy, interrupted by other processes on the core) this distinguished rates
 * 0.2 % below and 0.75 % above the limit without an error (verdict_test.ts): in 0.3 s for the steady reader and in 2 s for
 * the pausing one. With more blocks the pausing reader was misjudged; a line through all samples
 * needed 5 s for it.
 */
const BLOCKS = 5;
/** With fewer, the time between two pauses was mistaken for the reader's usual behaviour. */
export const DEFAULT_EXCURSIONS = 30;

/** The lowest backlog in each of `BLOCKS` equal periods. */
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

/**
 * Growth of the backlog that no burst explains, as a share of the offered rate: the reader
 * collapsed during the trial.
 */
const COLLAPSE = 0.1;

/** The verdict from the samples so far, in order of time; undefined with fewer than ten of them. */
export function judge(samples: readonly Sample[], options: VerdictOptions): VerdictResult {
  const whole = judgePeriod(samples, options);
  if (whole.verdict !== undefined || whole.backlogSlope <= 0) return whole;
  // Where the backlog begins to grow only in mid-trial, no line fits all of it: judge the second
  // half.
  const secondHalf = judgePeriod(samples.slice(samples.length >> 1), options);
  const collapsed = secondHalf.verdict === "falls-behind" &&
    secondHalf.backlogSlope > COLLAPSE * options.offered;
  return collapsed ? secondHalf : whole;
}

function judgePeriod(samples: readonly Sample[], options: VerdictOptions): VerdictResult {
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
