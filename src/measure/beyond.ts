/** What a reader does beyond its limit: offered twice that, and then half of it. */
import { CLOCK, type Clock } from "./clock.ts";
import type { Experiment } from "./experiment.ts";
import { HELD_BACK } from "./hidden_backlog.ts";
import type { LimitResult } from "./limit_result.ts";
import { SAMPLE_EVERY_MS } from "./meter.ts";
import { ABOVE_PROCESSING } from "./processing.ts";
import type { SearchResult } from "./search_result.ts";
import type { MeasuredReader } from "./trial_watch.ts";

/** The overload lasts so long, and so many of the reader's longest pauses; at most a little. */
const OVERLOAD = { seconds: 1, pauses: 6, longest: 10 };
/** Another pause of this part of it would be too much. */
const SEVERAL = 3;
/**
 * Recovery: at most so many seconds, and so many of the reader's pauses more than it needs. A backlog that
 * grows for less than `unseen` seconds may be a pause that was not seen before.
 */
const RECOVERY = { longest: 10, pauses: 4, unseen: 3 };
/**
 * A reader that drains so many times `upper`, and so many times the fastest that it drained for as long
 * before, refutes `upper`. A smaller difference may come from the times of the samples.
 */
const REFUTES = 1.02;
/** How much more than it works on a reader is offered, to see whether it takes it. */
const FILL = { bytes: 1 << 20, seconds: 2 };
/** What it works on is known to within a few per cent: less of what it was offered above that is no queue. */
const QUEUED = 0.2;

interface BeyondOptions extends Pick<SearchResult, "pause" | "largestRead" | "fastest"> {
  readers: () => readonly MeasuredReader[];
  /** It does not read any more once it is behind: that is no pause. */
  stops: boolean;
  signal?: AbortSignal;
  /** Of the recovery. */
  clock?: Clock;
}

export interface Beyond extends Pick<LimitResult, "overload" | "recovery"> {
  /** What it drained, where that is certainly more than `upper`; bytes a second. */
  refutes: number | undefined;
}

/**
 * Offers twice the limit and measures what the reader still drains, then offers half of the limit and
 * measures how long the backlog takes to clear.
 */
export async function measureBeyond(
  experiment: Experiment,
  { lower, upper }: { lower: number; upper: number },
  options: BeyondOptions,
): Promise<Beyond> {
  const { readers, largestRead, fastest, stops, signal, clock = CLOCK } = options;
  let { pause } = options;
  let seconds = Math.min(OVERLOAD.longest, Math.max(OVERLOAD.seconds, OVERLOAD.pauses * pause));
  let { result } = await experiment.run(2 * upper, "overload", seconds, () => false);
  if (result.ended === undefined && !stops && SEVERAL * result.longestPause > seconds) {
    // A pause that was not seen before fills too much of it.
    pause = result.longestPause;
    await experiment.settle({ verdict: "inconclusive" }, false);
    seconds = Math.min(OVERLOAD.longest, OVERLOAD.pauses * pause);
    ({ result } = await experiment.run(2 * upper, "overload", seconds, () => false));
  }
  const drained = result.ended === undefined ? result.drainedInSecondHalf : result.drained;
  const most = Math.max(upper, fastest(seconds / 2));
  const beyond: Beyond = {
    overload: { offered: result.achieved, drained, collapsed: drained < lower / 2 },
    recovery: null,
    // Two reads more or less are chance.
    refutes: (drained - REFUTES * most) * seconds / 2 > 2 * largestRead ? drained : undefined,
  };
  if (result.ended === undefined) {
    beyond.recovery = await measureRecovery(lower, readers(), { pause, signal, clock });
  } else beyond.recovery = { recovered: false, seconds: 0 };
  const behind = result.drained < 0.9 * result.achieved;
  await experiment.settle({ verdict: behind ? "falls-behind" : "inconclusive" }, false);
  return beyond;
}

async function measureRecovery(
  lower: number,
  readers: readonly MeasuredReader[],
  { pause, signal, clock }: { pause: number; signal: AbortSignal | undefined; clock: Clock },
): Promise<{ recovered: boolean; seconds: number }> {
  const rate = lower / 2;
  const startMs = clock.now();
  const backlogs = () =>
    readers.map(({ flood, meter }) => {
      const reading = meter.read();
      return reading === undefined ? Infinity : flood.offeredAt(reading.nowMs) - reading.drained;
    });
  let ended = false;
  for (const { flood } of readers) {
    flood.startBytes(rate, startMs);
    void flood.done.then(() => ended = true);
  }
  // Offered half of its limit, a reader that works at its limit clears its backlog in `ideal`
  // seconds. It gets twice that time and a second more.
  const before = Math.max(...backlogs());
  const ideal = before / rate;
  const longest = Math.min(RECOVERY.longest, 2 * ideal + 1) + RECOVERY.pauses * pause;
  const small = rate * 0.05 + 4096;
  const shortest = ideal / 2 + RECOVERY.pauses * pause;
  let seconds = 0;
  // Time in which it cleared nothing: a pause that was not seen before may be as long as all of this.
  let lowest = before;
  let lowestAt = 0;
  while (!ended && !signal?.aborted) {
    seconds = (clock.now() - startMs) / 1000;
    const left = Math.max(...backlogs());
    if (left <= small) return { recovered: true, seconds };
    if (left < lowest) {
      lowest = left;
      lowestAt = seconds;
    }
    const waits = seconds - lowestAt > RECOVERY.unseen;
    // The backlog is growing: it will not clear.
    if (waits && seconds > shortest && left > before) break;
    if (seconds > longest + (waits ? RECOVERY.unseen : 0)) break;
    await clock.sleep(SAMPLE_EVERY_MS);
  }
  return { recovered: false, seconds };
}

/**
 * How far a reader that processes `rate` takes more than that, and queues it; undefined: hardly. It is of no
 * use afterwards.
 */
export async function measureHidden(
  experiment: Experiment,
  rate: number,
): Promise<LimitResult["hidden"]> {
  const offered = Math.max(ABOVE_PROCESSING * rate, rate + FILL.bytes / FILL.seconds);
  const run = await experiment.run(offered, "work", FILL.seconds, () => false);
  await experiment.settle({ verdict: "falls-behind" }, true);
  const { memoryBytesPerSecond, result: { backlog } } = run;
  const bytes = (offered - rate) * run.seconds - backlog;
  return bytes <= Math.max(HELD_BACK, QUEUED * (offered - rate) * run.seconds)
    ? null
    : { offered, seconds: bytes / rate, bytes, memoryBytesPerSecond };
}
