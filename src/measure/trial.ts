/** One trial: all readers at one offered rate for one stretch of time. */
import { SAMPLE_EVERY_MS } from "./meter.ts";
import type { TrialFigures } from "./trial_figures.ts";
import { type Feed, type TrialSample, TrialWatch } from "./trial_watch.ts";
import type { Closed } from "../net/net.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { DEFAULT_EXCURSIONS, DEFAULT_TOLERANCE, judge } from "./verdict.ts";

export interface TrialOptions {
  /** Bytes a second, to each reader. */
  rate: number;
  /** The verdict waits at least so long; seconds of sampling. */
  minSeconds: number;
  /** No clear verdict by then: inconclusive. */
  maxSeconds: number;
  /** See `VerdictOptions`. */
  excursions?: number;
  tolerance?: number;
  /** What becomes of a trial whose slope is `marginal` (see `VerdictResult`); default: it goes on. */
  marginal?: "ends";
  /** Goes on for `maxSeconds` whatever the verdict. */
  full?: boolean;
  /** Gets what is sampled, of each reader (from 0), as the trial goes on. */
  onSample?: (sample: TrialSample, reader: number) => void;
  signal?: AbortSignal;
}

export interface TrialResult {
  /** Bytes a second, as asked. */
  offered: number;
  /** What the sender really kept of it: what it gave to the kernel or the kernel refused. */
  achieved: number;
  /** What the slowest reader drained, bytes a second. */
  drained: number;
  /** In the second half of the trial. */
  drainedLate: number;
  /** Growth of the backlog's lower envelope, bytes a second. */
  backlogSlope: number;
  figures: TrialFigures;
  /** Of sampling. */
  seconds: number;
  verdict: "keeps-up" | "falls-behind" | "inconclusive";
  generatorLimited: boolean;
  /** Which reader fell behind, was inconclusive or ended, from 0. */
  reader: number;
  /** Its connection ended in the trial. */
  ended?: Closed;
  /** Its replies filled our receive queue, and it stopped reading: the deadlock. */
  deadlocked: boolean;
}

/** Time for windows to open and for a schedule to take hold, before the first sample. */
const SETTLE_MS = 60;
/** How often the verdict is asked for. */
const JUDGE_EVERY_MS = 50;

/**
 * Offers `rate` to each reader until the verdict is clear. The floods run on at that rate when it
 * returns: what becomes of them and of the backlog is the caller's decision.
 */
export async function runTrial(
  feeds: readonly Feed[],
  options: TrialOptions,
): Promise<TrialResult> {
  const { rate, minSeconds, maxSeconds, full = false } = options;
  const { tolerance = DEFAULT_TOLERANCE, excursions = DEFAULT_EXCURSIONS } = options;
  const startMs = performance.now();
  for (const { flood } of feeds) flood.start(rate / flood.message.size, startMs);
  const watches = feeds.map((feed) => new TrialWatch(feed));
  await sleep(SETTLE_MS);
  const acceptedBefore = feeds.map(({ flood }) => flood.accepted);
  const judged = watches.map(() => judge([], { offered: rate }));
  let verdict: TrialResult["verdict"] | undefined;
  let reader = 0;
  let judgeAt = minSeconds;
  while (true) {
    watches.forEach((watch, i) => {
      const sample = watch.sample(rate);
      if (sample !== undefined) options.onSample?.(sample, i);
    });
    const gone = watches.findIndex(({ ended }) => ended !== undefined);
    if (gone >= 0) {
      reader = gone;
      break;
    }
    const seconds = Math.min(...watches.map((watch) => watch.seconds));
    const over = seconds >= maxSeconds || performance.now() - startMs > 1000 * maxSeconds + 1000;
    if (seconds >= judgeAt || over) {
      judgeAt = seconds + JUDGE_EVERY_MS / 1000;
      const verdictOptions = {
        offered: rate,
        tolerance,
        // At the last moment, what a trial of this length can tell has to do.
        excursions: over ? excursions / 3 : excursions,
      };
      watches.forEach((watch, i) => judged[i] = judge(watch.samples, verdictOptions));
      const behind = judged.findIndex((result) => result.verdict === "falls-behind");
      if (behind >= 0) {
        verdict = "falls-behind";
        reader = behind;
      } else if (judged.every((result) => result.verdict === "keeps-up")) {
        verdict = "keeps-up";
      } else {
        verdict = undefined;
        reader = judged.findIndex((result) => result.verdict === undefined);
      }
      if (verdict !== undefined && !full) break;
      if (options.marginal === "ends" && judged[reader]!.marginal) break;
    }
    if (over || options.signal?.aborted) break;
    await sleep(SAMPLE_EVERY_MS);
  }
  const watch = watches[reader]!;
  const result = judged[reader]!;
  const { seconds } = watch;
  // Behind, but by the sender's own lateness: no verdict on the reader.
  const generatorLimited = verdict !== "keeps-up" && watch.ended === undefined &&
    watch.generatorLate;
  const first = watch.samples[0];
  const last = watch.samples.at(-1);
  const deadlocked = verdict === "falls-behind" && watch.unreadReplies > 0 &&
    watch.drainedLate === 0;
  const trial: TrialResult = {
    offered: rate,
    achieved: Math.min(
      ...watches.map((w, i) => w.achieved(rate, acceptedBefore[i]!, Math.max(seconds, 1e-9))),
    ),
    drained: result.drained ||
      (first && last && last.time > 0 ? last.drained / last.time : 0),
    drainedLate: watch.drainedLate,
    backlogSlope: result.backlogSlope,
    figures: watch.figures,
    seconds,
    verdict: generatorLimited ? "inconclusive" : verdict ?? "inconclusive",
    generatorLimited,
    reader,
    deadlocked,
  };
  if (watch.ended !== undefined) trial.ended = watch.ended;
  return trial;
}
