/** The trials of one search, then overload and recovery, all with the readers of one pool. */
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { formatByteRate, formatSeconds } from "../text/units.ts";
import { waitForClear } from "./clearing.ts";
import {
  awaitWork,
  HELD_BACK,
  type HiddenBacklog,
  isBehind,
  isConfirmed,
  keepSampling,
} from "./hidden_backlog.ts";
import type { LimitEvent, LimitOptions } from "./limit_options.ts";
import type { LimitResult, Trial, TrialPurpose } from "./limit_result.ts";
import { SAMPLE_EVERY_MS } from "./meter.ts";
import { ABOVE_PROCESSING, measureProcessing } from "./processing.ts";
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

/** How much more than it works on a reader is offered, to see whether it takes it. */
const FILL_BYTES = 1 << 20;
const FILL_SECONDS = 3;
/** With a backlog of so many seconds, and bytes, when its connection ends, the reader fell behind. */
const ENDED_BEHIND = { seconds: 0.05, bytes: 64 << 10 };

const CONNECTION_ENDED = "its connection ended";
const STILL_WORKING = "it was still working on what it had taken from its socket";

/** Thrown by a trial: the reader takes more than it works on, so its socket says nothing of its limit. */
export class Hoards extends Error {
  override name = "Hoards";
  /** An estimate of what it processes, bytes a second. */
  readonly capacity: number;

  constructor(capacity: number) {
    super("the reader takes more than it works on");
    this.capacity = capacity;
  }
}

/** What a reader processes, see `Experiment.measureProcessing`. Bytes a second. */
export interface Processing {
  lower: number;
  upper: number;
  /** It was not behind just below the lower bound. */
  confirmed: boolean;
  /** Null: it takes only little more than it works on. */
  hidden: LimitResult["hidden"];
}

interface Run {
  result: TrialResult;
  /** From the first message to the last one. */
  seconds: number;
  /** Undefined: not looked at. */
  hidden: HiddenBacklog | undefined;
  memoryBytesPerSecond: number;
}

/** Runs trials, records them, and replaces the readers when a trial leaves them unusable. */
export class Experiment {
  readonly trials: Trial[] = [];
  /** Index of the reader that fell behind in the latest trial in which one did. */
  firstBehind: number | undefined;
  queueSource = "none";
  /** The highest rate at which the readers' sockets were drained, whatever they did with it. */
  intake = 0;
  /** Background activity that hid whether a reader has a hidden backlog, as one clause. */
  background: string | undefined;
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
    let { result, ...run } = await this.#run(rate, phase);
    if (result.ended !== undefined) {
      ({ result, ...run } = await this.#run(rate, phase));
      if (result.ended !== undefined) {
        const keptUp = this.trials.some(({ verdict }) => verdict === "keeps-up");
        const behind = Math.max(ENDED_BEHIND.bytes, ENDED_BEHIND.seconds * rate);
        if (!keptUp || result.backlog < behind) await this.#fail(result, keptUp);
        return { offered: rate, verdict: "falls-behind", generatorLimited: false, capacity: 0 };
      }
    }
    if (result.deadlocked && this.#options.replies === "ignore") {
      throw new ReaderFailed(
        "deadlock, not a speed limit: the reader waits for room to send its replies, which nobody " +
          "reads, and has stopped reading; read its replies with --replies drain",
      );
    }
    const first = run.hidden;
    if (first !== undefined && isBehind(first, run.seconds, phase === "ramp")) {
      const again = await this.#run(rate, "work", Math.max(1, 2 * run.seconds));
      if (again.result.ended !== undefined) await this.#fail(again.result, true);
      const second = again.hidden;
      if (again.result.verdict === "falls-behind") result = again.result;
      else if (
        second !== undefined &&
        isConfirmed({ ...run, hidden: first }, { ...again, hidden: second })
      ) {
        throw new Hoards(again.result.accepted / (again.seconds + second.seconds));
      }
    }
    if (result.verdict === "falls-behind") this.firstBehind = result.reader;
    return {
      offered: rate,
      verdict: result.verdict,
      generatorLimited: result.generatorLimited,
      capacity: Math.max(0, rate - result.backlogSlope),
    };
  }

  async #fail({ offered, seconds, reader, ended }: TrialResult, keptUp: boolean): Promise<never> {
    const why = await this.#pool.explainEnd(reader, ended!);
    throw new ReaderFailed(
      keptUp ? `offered ${formatByteRate(offered)} for ${formatSeconds(seconds)}, ${why}` : why,
    );
  }

  /** One trial; `work`: of this length, and then a look at how long the readers go on working. */
  async #run(rate: number, purpose: SearchPhase): Promise<Run>;
  async #run(rate: number, purpose: "work", seconds: number, look?: boolean): Promise<Run>;
  async #run(
    rate: number,
    purpose: SearchPhase | "work",
    length = 0,
    look = true,
  ): Promise<Run> {
    const { maxTrialSeconds = 6, trialScale = 1, signal } = this.#options;
    await this.#prepareReaders();
    const { works } = this.#pool;
    this.#emit({ event: "trial-begins", rate, purpose });
    const { minSeconds, ...effort } = PHASES[purpose === "work" ? "confirm" : purpose];
    const marks = works.map((work) => work.begin());
    const cpu = process.cpuUsage();
    const stopSampling = keepSampling(works);
    try {
      const result = await runTrial(this.#pool.connected, {
        ...effort,
        rate,
        minSeconds: length || Math.min(minSeconds * trialScale, maxTrialSeconds),
        maxSeconds: length || maxTrialSeconds,
        fullLength: purpose === "work",
        tolerance: purpose === "ramp" ? RAMP_TOLERANCE : this.#tolerance,
        ...(signal === undefined ? {} : { signal }),
      });
      if (signal?.aborted) throw new Interrupted();
      const sinceMs = performance.now();
      const seconds = (sinceMs - result.startMs) / 1000;
      const { user, system } = process.cpuUsage(cpu);
      const done = works.map((work, i) => work.interval(marks[i]!));
      const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
      const readerCpu = works.length === 0 ? null : sum(done.map(({ cpuShare }) => cpuShare));
      const memoryBytesPerSecond = sum(done.map((each) => each.memoryBytesPerSecond));
      let hidden: HiddenBacklog | undefined;
      if (result.ended !== undefined) this.#replaceReason = CONNECTION_ENDED;
      else if (result.verdict === "keeps-up" || purpose === "work") {
        if (result.verdict === "keeps-up") this.intake = Math.max(this.intake, rate);
        if (works.length > 0 && look) {
          hidden = await this.#look(result.accepted, sinceMs, seconds, stopSampling);
        }
      } else await this.#clear();
      const senderCpu = (user + system) / 1e6 / seconds;
      await this.#record(result, purpose, { hidden, readerCpu, senderCpu, seconds });
      return { result, seconds, hidden, memoryBytesPerSecond };
    } finally {
      await stopSampling();
    }
  }

  /**
   * How long the readers go on working after a trial of `seconds` that ended at `sinceMs`, in which
   * the kernel took `accepted` bytes for each.
   */
  async #look(
    accepted: number,
    sinceMs: number,
    seconds: number,
    stopSampling: () => Promise<void>,
  ): Promise<HiddenBacklog> {
    const { signal, message } = this.#options;
    // What is still in the socket is work as well.
    const cleared = await waitForClear(this.#pool.connected, CLEAR_MS + 2000 * seconds);
    await stopSampling();
    const hidden = await awaitWork(this.#pool.works, {
      sinceMs,
      trialSeconds: seconds,
      messageSeconds: message.size * seconds / Math.max(accepted, message.size),
      ...(signal === undefined ? {} : { signal }),
    });
    if (signal?.aborted) throw new Interrupted();
    this.background = hidden.background;
    if (!hidden.quiet || !cleared) this.#replaceReason = STILL_WORKING;
    return hidden;
  }

  /**
   * What a reader processes that takes more than it works on: it is offered more for a while, several
   * times, and the time that it then works on is counted. `capacity`: an estimate, bytes a second.
   */
  async measureProcessing(capacity: number): Promise<Processing> {
    const { message, confidence = 0.95 } = this.#options;
    const options = { messageSize: message.size, confidence };
    const found = await measureProcessing(capacity, options, async (rate, length, below) => {
      const { result, seconds, hidden } = await this.#run(rate, "work", length);
      if (result.ended !== undefined && !below) await this.#fail(result, true);
      return hidden && { bytes: result.accepted, seconds, hidden };
    });
    if (found === undefined) {
      throw new ReaderFailed(
        "the reader takes more than it works on, but how fast it works could not be measured: " +
          (this.background ?? "the end of its work was not seen"),
      );
    }
    const { lower, upper, confirmed } = found;
    const hidden = await this.#fillReader((lower + upper) / 2);
    return { lower, upper, confirmed, hidden: hidden.bytes > HELD_BACK ? hidden : null };
  }

  /** How far a reader that processes `rate` takes more than that; it is of no use afterwards. */
  async #fillReader(rate: number): Promise<NonNullable<LimitResult["hidden"]>> {
    const seconds = FILL_SECONDS;
    const offered = Math.max(ABOVE_PROCESSING * rate, rate + FILL_BYTES / seconds);
    const run = await this.#run(offered, "work", seconds, false);
    this.#replaceReason ??= STILL_WORKING;
    const { memoryBytesPerSecond, result: { backlog } } = run;
    const bytes = (offered - rate) * run.seconds - backlog;
    return { offered, seconds: bytes / rate, bytes, memoryBytesPerSecond };
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

  async #record(
    result: TrialResult,
    purpose: TrialPurpose,
    { hidden, readerCpu, senderCpu, seconds }: {
      hidden: HiddenBacklog | undefined;
      readerCpu: number | null;
      senderCpu: number;
      seconds: number;
    },
  ): Promise<Trial> {
    const behind = hidden !== undefined && isBehind(hidden, seconds, purpose === "ramp");
    const trial: Trial = {
      offered: result.offered,
      achieved: result.achieved,
      drained: result.drained,
      backlogSlope: result.backlogSlope,
      ...result.figures,
      seconds: result.seconds,
      verdict: result.ended !== undefined || behind ? "falls-behind" : result.verdict,
      purpose,
      workedOn: hidden?.seconds ?? null,
      ...{ readerCpu, senderCpu },
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
    const cpu = process.cpuUsage();
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
    const { user, system } = process.cpuUsage(cpu);
    await this.#record(result, "overload", {
      hidden: undefined,
      readerCpu: null,
      senderCpu: (user + system) / 1e6 / (result.seconds || 1),
      seconds: result.seconds,
    });
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
