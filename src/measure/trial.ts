/** One trial: offers one rate to all readers for some time, and samples what they drain. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Closed } from "../net/net.ts";
import type { Sample } from "./backlog.ts";
import { Sampler } from "./sampler.ts";
import type { TrialFigures } from "./trial_figures.ts";
import { type MeasuredReader, type TrialSample, TrialWatch } from "./trial_watch.ts";

export interface TrialOptions {
  /** Bytes a second, to each reader. */
  rate: number;
  /** The longest time of sampling; seconds. */
  longest: number;
  /**
   * Called with the samples of all readers, each time in the same array; true ends the trial. Default:
   * it takes as long as it may.
   */
  add?: (samples: readonly Sample[]) => boolean;
  /** Called with each sample of each reader (from 0). */
  onSample?: (sample: TrialSample, reader: number) => void;
  signal?: AbortSignal;
}

/** Of several readers, the one that drained the least. Rates in bytes a second. */
export interface TrialResult {
  /** The rate that was to be offered. */
  offered: number;
  /** The rate that the sender really offered: bytes that the kernel took or had no room for. */
  achieved: number;
  drained: number;
  /** What it took from its socket, where it is measured by its output; else the same as `drained`. */
  taken: number;
  /** The same as `drained` in the second half of the trial's longest time. */
  drainedInSecondHalf: number;
  figures: TrialFigures;
  /** The time of sampling, and the mean time between two samples; seconds. */
  seconds: number;
  sampleSeconds: number;
  /** The longest time in which a reader read nothing although it could; seconds. */
  longestPause: number;
  /** The reader whose figures these are, or whose connection ended; from 0. */
  reader: number;
  /** How a reader's connection ended, where it ended during the trial. */
  ended?: Closed;
  /** Offered less drained at its end, bytes. */
  backlog: number;
  /** Bytes that the kernel took for each reader during the trial, the fewest. */
  accepted: number;
  /** When it began: ms of `performance.now()`. */
  startMs: number;
  /** It stopped reading, because its unread replies have filled our receive queue. */
  deadlocked: boolean;
}

/** Time before the first sample, in which the windows open and the new rate takes effect. */
const SETTLE_MS = 60;

/**
 * Offers `rate` to each reader. When it resolves, the floods still run at that rate, and backlogs
 * remain: the caller decides what to do with them.
 */
export async function runTrial(
  readers: readonly MeasuredReader[],
  options: TrialOptions,
): Promise<TrialResult> {
  const { rate, longest, add = () => false, onSample, signal } = options;
  const acceptedAtStart = readers.map(({ flood }) => flood.accepted);
  const startMs = performance.now();
  for (const { flood } of readers) flood.startBytes(rate, startMs);
  const watches = readers.map((reader) =>
    new TrialWatch(reader, rate, longest, onSample !== undefined)
  );
  await sleep(SETTLE_MS);
  const sampler = new Sampler(readers.map(({ meter }) => meter));
  const samples: Sample[] = [];
  let ended: number;
  while (true) {
    for (let i = 0; i < watches.length; i++) {
      const sample = watches[i]!.sample();
      if (sample === undefined) continue;
      samples[i] = sample;
      onSample?.(sample, i);
    }
    ended = watches.findIndex((watch) => watch.ended !== undefined);
    if (ended >= 0) break;
    const complete = watches.every((_, i) => samples[i] !== undefined);
    if (complete && add(samples)) break;
    if (signal?.aborted || performance.now() - startMs >= 1000 * longest) break;
    await sampler.next();
  }
  const read = ({ last }: TrialWatch) => last?.drained ?? 0;
  const slowest = watches.reduce(
    (least, watch, i) => read(watch) < read(watches[least]!) ? i : least,
    0,
  );
  const reader = ended >= 0 ? ended : slowest;
  const watch = watches[reader]!;
  const { seconds, last } = watch;
  const figures = watch.figures();
  const trial: TrialResult = {
    offered: rate,
    achieved: Math.min(...watches.map(({ achieved }) => achieved)),
    drained: last === undefined || seconds === 0 ? 0 : last.drained / seconds,
    taken: watch.taken,
    drainedInSecondHalf: watch.drainedInSecondHalf,
    figures,
    seconds,
    sampleSeconds: sampler.sampleSeconds,
    longestPause: Math.max(...watches.map((w) => Math.max(w.longestPause, w.silence))),
    reader,
    backlog: last?.backlog ?? 0,
    accepted: Math.min(...readers.map(({ flood }, i) => flood.accepted - acceptedAtStart[i]!)),
    startMs,
    deadlocked: watch.unreadReplies > 0 && seconds > 0 && watch.silence > seconds / 2,
  };
  if (watch.ended !== undefined) trial.ended = watch.ended;
  return trial;
}
