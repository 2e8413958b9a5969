/** One trial: all readers at one offered rate for one stretch of time. */
import type { Flood } from "./flood.ts";
import { type Meter, SAMPLE_EVERY_MS } from "./meter.ts";
import type { Closed } from "./net.ts";
import { sleep } from "./sleep.ts";
import { DEFAULT_EXCURSIONS, DEFAULT_TOLERANCE, judge, type Sample } from "./verdict.ts";

/** A reader that is connected and fed. */
export interface Feed {
  flood: Flood;
  meter: Meter;
}

export interface TrialOptions {
  /** Bytes a second, to each reader. */
  rate: number;
  /** The verdict waits at least so long; seconds of sampling. */
  minSeconds: number;
  /** No clear verdict by then: irregular. */
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

/** What a trial sees of one reader at one time. */
export interface TrialSample extends Sample {
  /** Bytes that were due since the trial's first sample. */
  offered: number;
  /** What the reader advertised last, in bytes; undefined where the kernel does not tell. */
  window: number | undefined;
}

export interface TrialResult {
  /** Bytes a second, as asked. */
  offered: number;
  /** What the sender really kept of it: what it gave to the kernel or the kernel refused. */
  kept: number;
  /** What the slowest reader drained, bytes a second. */
  drained: number;
  /** In the second half of the trial. */
  drainedLate: number;
  /** Growth of the backlog's lower envelope, bytes a second. */
  backlogSlope: number;
  /** Share of the time in which window or send buffer kept the sender from sending; undefined: not told. */
  stalled: number | undefined;
  /** Of sampling. */
  seconds: number;
  verdict: "keeps-up" | "falls-behind" | "irregular";
  generatorLimited: boolean;
  /** Which reader fell behind, was irregular or ended, from 0. */
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
/** Messages this late in the sender's hand, with room in the kernel, are the sender's fault. */
const LATE_MS = 20;

/** What is known of one reader in one trial. */
class Watch {
  readonly feed: Feed;
  readonly samples: Sample[] = [];
  ended: Closed | undefined;
  #first:
    | { nowMs: number; drained: number; stalledUs: number | undefined; offered: number }
    | undefined;
  #last: { nowMs: number; stalledUs: number | undefined } | undefined;
  #late = 0;
  #owedAtFirst = 0;
  unreadReplies = 0;

  constructor(feed: Feed) {
    this.feed = feed;
    void feed.flood.done.then((closed) => this.ended = closed);
  }

  /** Undefined: the kernel knows the connection no more. */
  sample(rate: number): TrialSample | undefined {
    const { flood, meter } = this.feed;
    const reading = meter.read();
    if (reading === undefined) return undefined;
    const offered = flood.offeredAt(reading.nowMs);
    this.#first ??= { ...reading, offered };
    const owed = offered - flood.accepted;
    if (this.samples.length === 0) this.#owedAtFirst = owed;
    const held = flood.connection.blockedSince !== undefined;
    if (!held && owed - Math.max(0, this.#owedAtFirst) > rate * LATE_MS / 1000) this.#late++;
    const sample: Sample = {
      time: (reading.nowMs - this.#first.nowMs) / 1000,
      backlog: offered - reading.drained,
      drained: reading.drained - this.#first.drained,
    };
    this.samples.push(sample);
    this.#last = reading;
    this.unreadReplies = reading.unreadReplies;
    return { ...sample, offered: offered - this.#first.offered, window: reading.window };
  }

  get seconds(): number {
    return this.samples.at(-1)?.time ?? 0;
  }

  get stalled(): number | undefined {
    const first = this.#first;
    const last = this.#last;
    if (first?.stalledUs === undefined || last?.stalledUs === undefined) return undefined;
    const us = (last.nowMs - first.nowMs) * 1000;
    return us <= 0 ? 0 : Math.min(1, (last.stalledUs - first.stalledUs) / us);
  }

  /** The sender was late in a good part of the samples, though the kernel would have taken more. */
  get generatorLate(): boolean {
    return this.#late > this.samples.length * 0.2;
  }

  /** Bytes a second that the sender stood by: all of its schedule, or what it managed. */
  kept(rate: number, acceptedBefore: number, seconds: number): number {
    if (!this.generatorLate) return rate;
    return Math.min(rate, (this.feed.flood.accepted - acceptedBefore) / seconds);
  }

  get drainedLate(): number {
    const half = this.samples.findIndex(({ time }) => time >= this.seconds / 2);
    const from = this.samples[half];
    const to = this.samples.at(-1);
    if (from === undefined || to === undefined || to.time === from.time) return 0;
    return (to.drained - from.drained) / (to.time - from.time);
  }
}

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
  const watches = feeds.map((feed) => new Watch(feed));
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
    kept: Math.min(
      ...watches.map((w, i) => w.kept(rate, acceptedBefore[i]!, Math.max(seconds, 1e-9))),
    ),
    drained: result.drained ||
      (first && last && last.time > 0 ? last.drained / last.time : 0),
    drainedLate: watch.drainedLate,
    backlogSlope: result.backlogSlope,
    stalled: watch.stalled,
    seconds,
    verdict: generatorLimited ? "irregular" : verdict ?? "irregular",
    generatorLimited,
    reader,
    deadlocked,
  };
  if (watch.ended !== undefined) trial.ended = watch.ended;
  return trial;
}

/**
 * Waits, with the floods stopped and what was owed forgotten, until every reader has drained what
 * the kernels hold. False: not within the time, or a reader has gone.
 */
export async function waitForClear(feeds: readonly Feed[], maxMs: number): Promise<boolean> {
  let gone = false;
  for (const { flood } of feeds) {
    flood.forget();
    void flood.done.then(() => gone = true);
  }
  const endMs = performance.now() + maxMs;
  const cleared = feeds.map((feed) => clearance(feed));
  while (!gone) {
    // Each has to look, whatever the others see.
    if (cleared.map((isClear) => isClear()).every(Boolean)) return true;
    if (performance.now() > endMs) return false;
    await sleep(SAMPLE_EVERY_MS);
  }
  return false;
}

/** A window that stays as it is for so long has no queue behind it that shrinks. */
const STILL_MS = 150;

/** Asks again and again whether a reader has drained all that was sent to it. */
function clearance({ flood, meter }: Feed): () => boolean {
  let stillSince = 0;
  let drainedThen = NaN;
  return () => {
    const reading = meter.read();
    if (reading === undefined) return false;
    if (meter.queueSource === "socket") return flood.offeredAt(reading.nowMs) <= reading.drained;
    // From its window alone: all is acknowledged, and the window has stopped growing.
    if (reading.unacked > 0 || reading.drained !== drainedThen) {
      drainedThen = reading.drained;
      stillSince = reading.nowMs;
      return false;
    }
    if (reading.nowMs - stillSince < STILL_MS) return false;
    meter.assumeEmpty();
    return true;
  };
}
