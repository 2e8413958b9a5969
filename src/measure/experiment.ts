/** The trials of one search, and the look beyond the limit, over the readers that are fed. */
import { setTimeout as sleep } from "node:timers/promises";
import { waitForClear } from "./clearing.ts";
import { CLEAR_ATTACHED_MS, type FedReaders, Interrupted } from "./fed_readers.ts";
import type { LimitEvent, LimitOptions } from "./limit_options.ts";
import type { LimitResult, Trial, TrialPurpose } from "./limit_result.ts";
import { SAMPLE_EVERY_MS } from "./meter.ts";
import { ReaderFailed } from "./reader_process.ts";
import type { SearchPhase, TrialOutcome } from "./search.ts";
import { runTrial, type TrialResult } from "./trial.ts";

/** A command's reader that does not clear this soon is replaced: waiting costs more than starting. */
const CLEAR_MS = 500;
/** Whatever the scale: in less, a reader that takes 512 KiB at once would seem to drain nothing. */
const OVERLOAD_SECONDS = 0.7;
const RECOVERY_LONGEST_SECONDS = 10;

/** A glimpse of the ramp needs no precision: a reader near its limit is looked at again. */
const RAMP_TOLERANCE = 0.02;

/** An unclear bound is looked for elsewhere, not longer. */
const PHASES: Record<
  SearchPhase,
  { minSeconds: number; excursions: number; marginal?: "ends" }
> = {
  ramp: { minSeconds: 0.25, excursions: 8 },
  bound: { minSeconds: 1, excursions: 30, marginal: "ends" },
  confirm: { minSeconds: 2, excursions: 30 },
};

/** Runs the trials of one search over the readers that are fed. */
export class Experiment {
  readonly trials: Trial[] = [];
  firstBehind: number | undefined;
  queueSource = "none";
  readonly #readers: FedReaders;
  readonly #options: LimitOptions;
  readonly #emit: (event: LimitEvent) => void;
  readonly #tolerance: number;
  #needsFresh: string | undefined = "";

  constructor(readers: FedReaders, options: LimitOptions, tolerance: number) {
    this.#readers = readers;
    this.#options = options;
    this.#tolerance = tolerance;
    this.#emit = options.onEvent ?? (() => {});
  }

  /** One trial for the search; a reader that does not survive it gets a second chance, fresh. */
  async trial(rate: number, effort: SearchPhase): Promise<TrialOutcome> {
    let result = await this.#run(rate, effort);
    if (result.ended !== undefined) {
      result = await this.#run(rate, effort);
      if (result.ended !== undefined) {
        if (!this.trials.some(({ verdict }) => verdict === "keeps-up")) {
          throw new ReaderFailed(await this.#readers.describeEnd(result.reader, result.ended));
        }
        return { offered: rate, verdict: "falls-behind", generatorLimited: false, capacity: 0 };
      }
    }
    if (result.deadlocked && this.#options.replies === "ignore") {
      throw new ReaderFailed(
        "deadlock, not a speed limit: the reader replies, nobody reads the replies, and it waits " +
          "for room to reply and reads no more; drain them (--replies drain)",
      );
    }
    if (result.verdict === "falls-behind") this.firstBehind = result.reader;
    return {
      offered: rate,
      verdict: result.verdict,
      generatorLimited: result.generatorLimited,
      capacity: Math.max(0, rate - result.backlogSlope),
    };
  }

  async #run(rate: number, purpose: SearchPhase): Promise<TrialResult> {
    const { maxTrialSeconds = 6, trialScale = 1, signal } = this.#options;
    await this.#ready();
    this.#emit({ event: "trial-begins", rate, purpose });
    const { minSeconds, ...effort } = PHASES[purpose];
    const result = await runTrial(this.#readers.feeds, {
      ...effort,
      rate,
      minSeconds: Math.min(minSeconds * trialScale, maxTrialSeconds),
      maxSeconds: maxTrialSeconds,
      tolerance: purpose === "ramp" ? RAMP_TOLERANCE : this.#tolerance,
      ...(signal === undefined ? {} : { signal }),
    });
    if (signal?.aborted) throw new Interrupted();
    await this.#record(result, purpose);
    if (result.ended !== undefined) this.#needsFresh = "the last one ended";
    else if (result.verdict !== "keeps-up") await this.#clear();
    return result;
  }

  async #ready(): Promise<void> {
    if (this.#options.signal?.aborted) throw new Interrupted();
    if (this.#needsFresh === undefined) return;
    if (this.#needsFresh !== "") this.#emit({ event: "fresh-reader", reason: this.#needsFresh });
    await this.#readers.renew();
    this.#needsFresh = undefined;
  }

  async #clear(): Promise<void> {
    const attached = this.#options.command === undefined;
    const cleared = await waitForClear(
      this.#readers.feeds,
      attached ? CLEAR_ATTACHED_MS : CLEAR_MS,
    );
    if (!cleared) this.#needsFresh = "the last one did not clear its backlog";
  }

  async #record(result: TrialResult, purpose: TrialPurpose): Promise<Trial> {
    const trial: Trial = {
      offered: result.offered,
      achieved: result.achieved,
      drained: result.drained,
      backlogSlope: result.backlogSlope,
      ...result.figures,
      seconds: result.seconds,
      verdict: result.ended === undefined ? result.verdict : "falls-behind",
      purpose,
    };
    if (result.ended !== undefined) {
      trial.ended = await this.#readers.describeEnd(result.reader, result.ended);
    }
    this.trials.push(trial);
    this.queueSource = this.#readers.feeds[0]?.meter.queueSource ?? this.queueSource;
    this.#emit({ event: "trial", purpose, trial });
    return trial;
  }

  /** Offered twice its limit: what it still drains, and how long it takes to clear at half of it. */
  async lookBeyond(
    lower: number,
    upper: number,
  ): Promise<Pick<LimitResult, "overload" | "recovery">> {
    const { signal } = this.#options;
    await this.#ready();
    const rate = 2 * upper;
    this.#emit({ event: "trial-begins", rate, purpose: "overload" });
    const result = await runTrial(this.#readers.feeds, {
      rate,
      minSeconds: OVERLOAD_SECONDS,
      maxSeconds: OVERLOAD_SECONDS,
      excursions: PHASES.ramp.excursions,
      full: true,
      ...(signal === undefined ? {} : { signal }),
    });
    if (signal?.aborted) throw new Interrupted();
    await this.#record(result, "overload");
    const drained = result.ended === undefined ? result.drainedLate : result.drained;
    const overload = { offered: result.achieved, drained, collapsed: drained < lower / 2 };
    if (result.ended !== undefined) {
      this.#needsFresh = "the last one ended";
      return { overload, recovery: { recovered: false, seconds: 0 } };
    }
    return { overload, recovery: await this.#recover(lower) };
  }

  async #recover(lower: number): Promise<{ recovered: boolean; seconds: number }> {
    const { feeds } = this.#readers;
    const rate = lower / 2;
    this.#emit({ event: "trial-begins", rate, purpose: "recovery" });
    const startMs = performance.now();
    const backlogs = () =>
      feeds.map(({ flood, meter }) => {
        const reading = meter.read();
        return reading === undefined ? Infinity : flood.offeredAt(reading.nowMs) - reading.drained;
      });
    let ended = false;
    for (const { flood } of feeds) {
      flood.start(rate / flood.message.size, startMs);
      void flood.done.then(() => ended = true);
    }
    // A reader that works at its limit clears at half of it; twice that long is patience enough.
    const before = Math.max(...backlogs());
    const ideal = before / rate;
    const patience = Math.min(RECOVERY_LONGEST_SECONDS, 2 * ideal + 1);
    const small = rate * 0.05 + 4096;
    let seconds = 0;
    while (seconds < patience && !ended && !this.#options.signal?.aborted) {
      seconds = (performance.now() - startMs) / 1000;
      const left = Math.max(...backlogs());
      if (left <= small) return { recovered: true, seconds };
      if (seconds > ideal / 2 && left > before) break;
      await sleep(SAMPLE_EVERY_MS);
    }
    return { recovered: false, seconds };
  }
}
