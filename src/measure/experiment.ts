/** The trials of one search, then overload and recovery, all with the readers of one pool. */
import { setTimeout as sleep } from "node:timers/promises";
import { waitForClear } from "./clearing.ts";
import type { LimitEvent, LimitOptions } from "./limit_options.ts";
import type { LimitResult, Trial, TrialPurpose } from "./limit_result.ts";
import { SAMPLE_EVERY_MS } from "./meter.ts";
import { CLEAR_ATTACHED_MS, Interrupted, type ReaderPool } from "./reader_pool.ts";
import { ReaderFailed } from "./reader_process.ts";
import type { SearchPhase, TrialOutcome } from "./search.ts";
import { runTrial, type TrialResult } from "./trial.ts";

/** How long a reader that we started may take to clear its backlog: a restart is then faster. */
const CLEAR_MS = 500;
/**
 * Not shortened by `trialScale`: in a shorter trial, a reader that takes 512 KiB at once would seem
 * to drain nothing.
 */
const OVERLOAD_SECONDS = 0.7;
const RECOVERY_LONGEST_SECONDS = 10;

/** The ramp needs no precision: longer trials follow at rates near the limit. */
const RAMP_TOLERANCE = 0.02;

/** A `bound` trial that is marginal ends early: the search tries another rate instead. */
const PHASES: Record<
  SearchPhase,
  { minSeconds: number; excursions: number; endWhenMarginal?: boolean }
> = {
  ramp: { minSeconds: 0.25, excursions: 8 },
  bound: { minSeconds: 1, excursions: 30, endWhenMarginal: true },
  confirm: { minSeconds: 2, excursions: 30 },
};

const CONNECTION_ENDED = "its connection ended";

/** Runs trials, records them, and replaces the readers when a trial leaves them unusable. */
export class Experiment {
  readonly trials: Trial[] = [];
  /** Index of the reader that fell behind in the latest trial in which one did. */
  firstBehind: number | undefined;
  queueSource = "none";
  readonly #pool: ReaderPool;
  readonly #options: LimitOptions;
  readonly #emit: (event: LimitEvent) => void;
  readonly #tolerance: number;
  #connected = false;
  /** Why the readers must be replaced before the next trial; undefined: they can go on. */
  #replaceReason: string | undefined;

  constructor(pool: ReaderPool, options: LimitOptions, tolerance: number) {
    this.#pool = pool;
    this.#options = options;
    this.#tolerance = tolerance;
    this.#emit = options.onEvent ?? (() => {});
  }

  /** One trial for the search; where the connection ends, it is repeated once with a new reader. */
  async trial(rate: number, phase: SearchPhase): Promise<TrialOutcome> {
    let result = await this.#run(rate, phase);
    if (result.ended !== undefined) {
      result = await this.#run(rate, phase);
      if (result.ended !== undefined) {
        if (!this.trials.some(({ verdict }) => verdict === "keeps-up")) {
          throw new ReaderFailed(await this.#pool.explainEnd(result.reader, result.ended));
        }
        return { offered: rate, verdict: "falls-behind", generatorLimited: false, capacity: 0 };
      }
    }
    if (result.deadlocked && this.#options.replies === "ignore") {
      throw new ReaderFailed(
        "deadlock, not a speed limit: the reader waits for room to send its replies, which nobody " +
          "reads, and has stopped reading; read its replies with --replies drain",
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

  async #run(rate: number, phase: SearchPhase): Promise<TrialResult> {
    const { maxTrialSeconds = 6, trialScale = 1, signal } = this.#options;
    await this.#prepareReaders();
    this.#emit({ event: "trial-begins", rate, purpose: phase });
    const { minSeconds, ...effort } = PHASES[phase];
    const result = await runTrial(this.#pool.connected, {
      ...effort,
      rate,
      minSeconds: Math.min(minSeconds * trialScale, maxTrialSeconds),
      maxSeconds: maxTrialSeconds,
      tolerance: phase === "ramp" ? RAMP_TOLERANCE : this.#tolerance,
      ...(signal === undefined ? {} : { signal }),
    });
    if (signal?.aborted) throw new Interrupted();
    await this.#record(result, phase);
    if (result.ended !== undefined) this.#replaceReason = CONNECTION_ENDED;
    else if (result.verdict !== "keeps-up") await this.#clear();
    return result;
  }

  /**
   * Connects the readers before the first trial, and replaces them where the last one requires it.
   */
  async #prepareReaders(): Promise<void> {
    if (this.#options.signal?.aborted) throw new Interrupted();
    if (this.#connected && this.#replaceReason === undefined) return;
    if (this.#replaceReason !== undefined) {
      this.#emit({ event: "fresh-reader", reason: this.#replaceReason });
    }
    await this.#pool.replace();
    this.#connected = true;
    this.#replaceReason = undefined;
  }

  async #clear(): Promise<void> {
    const attached = this.#options.command === undefined;
    const cleared = await waitForClear(
      this.#pool.connected,
      attached ? CLEAR_ATTACHED_MS : CLEAR_MS,
    );
    if (!cleared) this.#replaceReason = "it did not drain its backlog in time";
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
      trial.ended = await this.#pool.explainEnd(result.reader, result.ended);
    }
    this.trials.push(trial);
    this.queueSource = this.#pool.connected[0]?.meter.queueSource ?? this.queueSource;
    this.#emit({ event: "trial", purpose, trial });
    return trial;
  }

  /**
   * Offers twice the limit and measures what the reader still drains, then offers half of the limit
   * and measures how long the backlog takes to clear.
   */
  async measureOverload(
    lower: number,
    upper: number,
  ): Promise<Pick<LimitResult, "overload" | "recovery">> {
    const { signal } = this.#options;
    await this.#prepareReaders();
    const rate = 2 * upper;
    this.#emit({ event: "trial-begins", rate, purpose: "overload" });
    const result = await runTrial(this.#pool.connected, {
      rate,
      minSeconds: OVERLOAD_SECONDS,
      maxSeconds: OVERLOAD_SECONDS,
      excursions: PHASES.ramp.excursions,
      fullLength: true,
      ...(signal === undefined ? {} : { signal }),
    });
    if (signal?.aborted) throw new Interrupted();
    await this.#record(result, "overload");
    const drained = result.ended === undefined ? result.drainedInSecondHalf : result.drained;
    const overload = { offered: result.achieved, drained, collapsed: drained < lower / 2 };
    if (result.ended !== undefined) {
      this.#replaceReason = CONNECTION_ENDED;
      return { overload, recovery: { recovered: false, seconds: 0 } };
    }
    return { overload, recovery: await this.#measureRecovery(lower) };
  }

  async #measureRecovery(lower: number): Promise<{ recovered: boolean; seconds: number }> {
    const readers = this.#pool.connected;
    const rate = lower / 2;
    this.#emit({ event: "trial-begins", rate, purpose: "recovery" });
    const startMs = performance.now();
    const backlogs = () =>
      readers.map(({ flood, meter }) => {
        const reading = meter.read();
        return reading === undefined ? Infinity : flood.offeredAt(reading.nowMs) - reading.drained;
      });
    let ended = false;
    for (const { flood } of readers) {
      flood.start(rate / flood.message.size, startMs);
      void flood.done.then(() => ended = true);
    }
    // Offered half of its limit, a reader that works at its limit clears its backlog in `ideal`
    // seconds. It gets twice that time and a second more.
    const before = Math.max(...backlogs());
    const ideal = before / rate;
    const longest = Math.min(RECOVERY_LONGEST_SECONDS, 2 * ideal + 1);
    const small = rate * 0.05 + 4096;
    let seconds = 0;
    while (seconds < longest && !ended && !this.#options.signal?.aborted) {
      seconds = (performance.now() - startMs) / 1000;
      const left = Math.max(...backlogs());
      if (left <= small) return { recovered: true, seconds };
      // The backlog is growing: it will not clear.
      if (seconds > ideal / 2 && left > before) break;
      await sleep(SAMPLE_EVERY_MS);
    }
    return { recovered: false, seconds };
  }
}
