/** One trial: offers one rate to all readers for some time, and judges whether they keep up. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Closed } from "../net/net.ts";
import { SAMPLE_EVERY_MS } from "./meter.ts";
import type { TrialFigures } from "./trial_figures.ts";
import { type MeasuredReader, type TrialSample, TrialWatch } from "./trial_watch.ts";
import { DEFAULT_EXCURSIONS, DEFAULT_TOLERANCE, judge } from "./verdict.ts";

export interface TrialOptions {
  /** Bytes a second, to each reader. */
  rate: number;
  /** The shortest time of sampling before a verdict; seconds. */
  minSeconds: number;
  /** Without a clear verdict after this time, the trial is inconclusive; seconds of sampling. */
  maxSeconds: number;
  /** See `VerdictOptions`. */
  excursions?: number;
  tolerance?: number;
  /** Ends the trial early when it is `marginal` (see `VerdictResult`); default false. */
  endWhenMarginal?: boolean;
  /** Runs for all of `maxSeconds`, whatever the verdict; default false. */
  fullLength?: boolean;
  /** Called with each sample of each reader (from 0). */
  onSample?: (sample: TrialSample, reader: number) => void;
  signal?: AbortSignal;
}

export interface TrialResult {
  /** The rate that was to be offered, bytes a second. */
  offered: number;
  /** The rate that the sender really offered: bytes that the kernel took or had no room for. */
  achieved: number;
  /** What the slowest reader drained, bytes a second. */
  drained: number;
  /** The same in the second half of the trial. */
  drainedInSecondHalf: number;
  /** Growth of the backlog's lower envelope, bytes a second. */
  backlogSlope: number;
  figures: TrialFigures;
  /** The time of sampling. */
  seconds: number;
  verdict: "keeps-up" | "falls-behind" | "inconclusive";
  /** Inconclusive because the sender did not keep its schedule. */
  generatorLimited: boolean;
  /** The reader that fell behind, was inconclusive or ended its connection, from 0. */
  reader: number;
  /** How its connection ended, where it ended during the trial. */
  ended?: Closed;
  /** Offered less drained at its end, bytes. */
  backlog: number;
  /** Bytes that the kernel took for each reader during the trial, the fewest. */
  accepted: number;
  /** When it began: ms of `performance.now()`. */
  startMs: number;
  /** It stopped reading because its unread replies have filled our receive queue. */
  deadlocked: boolean;
}

/** Time before the first sample, in which the windows open and the new rate takes effect. */
const SETTLE_MS = 60;
/** Time between two judgements. */
const JUDGE_EVERY_MS = 50;

/**
 * Offers `rate` to each reader until the verdict is clear. When it resolves, the floods still run
 * at that rate, and backlogs remain: the caller decides what to do with them.
 */
export async function runTrial(
  readers: readonly MeasuredReader[],
  options: TrialOptions,
): Promise<TrialResult> {
  const { rate, minSeconds, maxSeconds, fullLength = false } = options;
  const { tolerance = DEFAULT_TOLERANCE, excursions = DEFAULT_EXCURSIONS } = options;
  const acceptedAtStart = readers.map(({ flood }) => flood.accepted);
  const startMs = performance.now();
  for (const { flood } of readers) flood.start(rate / flood.message.size, startMs);
  const watches = readers.map((reader) => new TrialWatch(reader));
  await sleep(SETTLE_MS);
  const acceptedBefore = readers.map(({ flood }) => flood.accepted);
  const judged = watches.map(() => judge([], { offered: rate }));
  let verdict: TrialResult["verdict"] | undefined;
  let index = 0;
  let judgeAt = minSeconds;
  while (true) {
    watches.forEach((watch, i) => {
      const sample = watch.sample(rate);
      if (sample !== undefined) options.onSample?.(sample, i);
    });
    const ended = watches.findIndex(({ ended }) => ended !== undefined);
    if (ended >= 0) {
      index = ended;
      break;
    }
    const seconds = Math.min(...watches.map((watch) => watch.seconds));
    const timeUp = seconds >= maxSeconds || performance.now() - startMs > 1000 * maxSeconds + 1000;
    if (seconds >= judgeAt || timeUp) {
      judgeAt = seconds + JUDGE_EVERY_MS / 1000;
      const verdictOptions = {
        offered: rate,
        tolerance,
        // There is no more time: a less certain verdict is better than none.
        excursions: timeUp ? excursions / 3 : excursions,
      };
      watches.forEach((watch, i) => judged[i] = judge(watch.samples, verdictOptions));
      const behind = judged.findIndex((result) => result.verdict === "falls-behind");
      if (behind >= 0) {
        verdict = "falls-behind";
        index = behind;
      } else if (judged.every((result) => result.verdict === "keeps-up")) {
        verdict = "keeps-up";
      } else {
        verdict = undefined;
        index = judged.findIndex((result) => result.verdict === undefined);
      }
      if (verdict !== undefined && !fullLength) break;
      if (options.endWhenMarginal && judged[index]!.marginal) break;
    }
    if (timeUp || options.signal?.aborted) break;
    await sleep(SAMPLE_EVERY_MS);
  }
  const watch = watches[index]!;
  const result = judged[index]!;
  const { seconds } = watch;
  // A backlog that grew because the sender was late says nothing about the reader.
  const generatorLimited = verdict !== "keeps-up" && watch.ended === undefined &&
    watch.senderWasLate;
  const first = watch.samples[0];
  const last = watch.samples.at(-1);
  const deadlocked = verdict === "falls-behind" && watch.unreadReplies > 0 &&
    watch.drainedInSecondHalf === 0;
  const trial: TrialResult = {
    offered: rate,
    achieved: Math.min(
      ...watches.map((w, i) => w.achieved(rate, acceptedBefore[i]!, Math.max(seconds, 1e-9))),
    ),
    drained: result.drained ||
      (first && last && last.time > 0 ? last.drained / last.time : 0),
    drainedInSecondHalf: watch.drainedInSecondHalf,
    backlogSlope: result.backlogSlope,
    figures: watch.figures,
    seconds,
    verdict: generatorLimited ? "inconclusive" : verdict ?? "inconclusive",
    generatorLimited,
    reader: index,
    backlog: last?.backlog ?? 0,
    accepted: Math.min(...readers.map(({ flood }, i) => flood.accepted - acceptedAtStart[i]!)),
    startMs,
    deadlocked,
  };
  if (watch.ended !== undefined) trial.ended = watch.ended;
  return trial;
}
