/** The speed limit of a reader: searches for it in trials, then looks beyond it. */
import { type Environment, environment } from "./environment.ts";
import {
  CLEAR_ATTACHED_MS,
  FedReaders,
  type FedReadersEvent,
  type FedReadersOptions,
  Interrupted,
} from "./fed_readers.ts";
import { SAMPLE_EVERY_MS } from "./meter.ts";
import { kernelSource, kernelSourceReason } from "./kernel.ts";
import { ReaderFailed } from "./readers.ts";
import { type Effort, searchLimit, type SearchResult, type TrialOutcome } from "./search.ts";
import type { SeriesAround } from "./series.ts";
import { sleep } from "./sleep.ts";
import { runTrial, type TrialResult, waitForClear } from "./trial.ts";
import { DEFAULT_TOLERANCE } from "./verdict.ts";

export interface LimitOptions extends FedReadersOptions {
  /** What to call the reader in the result; default: its command. */
  name?: string;
  /** upper / lower of the result is at most 1 + precision; default 0.01. */
  precision?: number;
  /** Bytes a second; defaults 1000 and Infinity. */
  minRate?: number;
  maxRate?: number;
  /** Where the search begins: well below the limit, or it may collapse. Default 500 kB/s. */
  startRate?: number;
  /** The shortest time of each trial of the search, as a share of the usual one; default 1. */
  trialScale?: number;
  /** The longest that one trial may take to be clear; seconds, default 6. */
  maxTrialSeconds?: number;
  /** A search that takes longer than this pays with precision; seconds, default 30. */
  usualSeconds?: number;
  /** One that takes longer than this ends, with what is known by then; seconds, default no limit. */
  longestSeconds?: number;
  /** Ends the search early: the result tells what is known by then. */
  signal?: AbortSignal;
  onEvent?: (event: LimitEvent) => void;
}

/** What happens while a limit is searched for, in order. */
export type LimitEvent =
  | FedReadersEvent
  | { event: "trial-begins"; rate: number; purpose: Purpose }
  | { event: "trial"; purpose: Purpose; trial: Trial }
  | { event: "fresh-reader"; reason: string };

/** What a trial is for: an effort of the search, or a look beyond the limit. */
export type Purpose = Effort | "overload" | "recovery";

/** One trial in a result. Rates in bytes a second. */
export interface Trial {
  offered: number;
  kept: number;
  drained: number;
  backlogSlope: number;
  /** 0 to 1; null where the kernel does not tell. */
  stalled: number | null;
  seconds: number;
  verdict: "keeps-up" | "falls-behind" | "irregular";
  purpose: Purpose;
  /** How the reader's connection ended, if it did. */
  ended?: string;
}

/** "speedlimit/limit@1". Rates in bytes a second, durations in seconds. */
export interface LimitResult {
  schema: "speedlimit/limit@1";
  /** The command, or `attached`. */
  reader: string;
  readers: number;
  outcome: "found" | "generator-limited" | "irregular" | "reader-failed" | "below-range";
  /** One line: what it means, and what to do about it. */
  message: string;
  limit: { lower: number; upper: number; messagesPerSecond: number } | null;
  overload: { offered: number; drained: number; collapsed: boolean } | null;
  recovery: { recovered: boolean; seconds: number } | null;
  trials: Trial[];
  /** One trial below the limit and one above it, where they were recorded: see series.ts. */
  series?: SeriesAround;
  /** Which of several readers fell behind first, from 0. */
  firstBehind?: number;
  interrupted: boolean;
  /** How the reader's receive queue was seen: its own socket, its window, or not at all. */
  queueSource: string;
  messageSize: number;
  precision: number;
  seconds: number;
  environment: Environment;
}

/** Bytes a second at which the ramp begins; a slower reader is looked for downwards from there. */
const START_RATE = 500_000;
const USUAL_SECONDS = 30;
/** A command's reader that does not clear this soon is replaced: waiting costs more than starting. */
const CLEAR_MS = 500;
/** Whatever the scale: in less, a reader that takes 512 KiB at once would seem to drain nothing. */
const OVERLOAD_SECONDS = 0.7;
const RECOVERY_LONGEST_SECONDS = 10;

/** A glimpse of the ramp needs no precision: a reader near its limit is looked at again. */
const RAMP_TOLERANCE = 0.02;

/** An unclear bound is looked for elsewhere, not longer. */
const EFFORTS: Record<
  Effort,
  { minSeconds: number; excursions: number; marginal?: "ends" }
> = {
  ramp: { minSeconds: 0.25, excursions: 8 },
  bound: { minSeconds: 1, excursions: 30, marginal: "ends" },
  confirm: { minSeconds: 2, excursions: 30 },
};

/** Runs the trials of one search over the readers that are fed. */
class Experiment {
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
  async trial(rate: number, effort: Effort): Promise<TrialOutcome> {
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

  async #run(rate: number, purpose: Effort): Promise<TrialResult> {
    const { maxTrialSeconds = 6, trialScale = 1, signal } = this.#options;
    await this.#ready();
    this.#emit({ event: "trial-begins", rate, purpose });
    const { minSeconds, ...effort } = EFFORTS[purpose];
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

  async #record(result: TrialResult, purpose: Purpose): Promise<Trial> {
    const trial: Trial = {
      offered: result.offered,
      kept: result.kept,
      drained: result.drained,
      backlogSlope: result.backlogSlope,
      stalled: result.stalled ?? null,
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
      excursions: EFFORTS.ramp.excursions,
      full: true,
      ...(signal === undefined ? {} : { signal }),
    });
    if (signal?.aborted) throw new Interrupted();
    await this.#record(result, "overload");
    const drained = result.ended === undefined ? result.drainedLate : result.drained;
    const overload = { offered: result.kept, drained, collapsed: drained < lower / 2 };
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

/**
 * Finds the rate at which a reader falls behind, what it drains past it, and whether it comes back.
 *
 * Never rejects for what the reader does: that is an outcome, with a message. Rejects with a
 * NetError when it cannot listen, and with an Error where the kernel tells nothing of connections.
 */
export async function findLimit(options: LimitOptions): Promise<LimitResult> {
  if (kernelSource === "none") {
    throw new Error(
      `cannot measure a reader here: ${
        kernelSourceReason ?? "no kernel figures"
      }, and there is no ` +
        `/proc/net/tcp either`,
    );
  }
  const { precision = 0.01, minRate = 1000, maxRate = Infinity, message } = options;
  const { startRate = START_RATE, usualSeconds = USUAL_SECONDS } = options;
  const { longestSeconds = Infinity } = options;
  const tolerance = Math.min(DEFAULT_TOLERANCE, precision / 4);
  const startMs = performance.now();
  const readers = new FedReaders(options);
  const experiment = new Experiment(readers, options, tolerance);
  const result: LimitResult = {
    schema: "speedlimit/limit@1",
    reader: options.name ?? options.command?.join(" ") ?? "attached",
    readers: options.readers ?? 1,
    outcome: "irregular",
    message: "",
    limit: null,
    overload: null,
    recovery: null,
    trials: experiment.trials,
    interrupted: false,
    queueSource: "none",
    messageSize: message.size,
    precision,
    seconds: 0,
    environment: environment(),
  };
  await readers.open();
  try {
    const search = await searchLimit((rate, effort) => experiment.trial(rate, effort), {
      startRate,
      minRate,
      maxRate,
      precision,
      tolerance,
      hurry: () => performance.now() - startMs > usualSeconds * 1000,
      over: () => performance.now() - startMs > longestSeconds * 1000,
    });
    conclude(result, search, message.size);
    // Also where only a wide interval is known: what lies beyond it is all the more worth knowing.
    if (result.limit !== null) {
      if (experiment.firstBehind !== undefined && result.readers > 1) {
        result.firstBehind = experiment.firstBehind;
      }
      Object.assign(result, await experiment.lookBeyond(search.lower, search.upper));
    }
  } catch (error) {
    if (error instanceof Interrupted) {
      result.interrupted = true;
      result.message ||= "interrupted before it was found";
    } else if (error instanceof ReaderFailed) {
      result.outcome = "reader-failed";
      result.message = error.message;
    } else {
      throw error;
    }
  } finally {
    await readers.close();
    result.queueSource = experiment.queueSource;
    result.seconds = (performance.now() - startMs) / 1000;
  }
  return result;
}

function conclude(result: LimitResult, search: SearchResult, messageSize: number): void {
  const { outcome, lower, upper, reason } = search;
  result.outcome = outcome;
  result.message = reason ?? "found and confirmed";
  // An irregular search still knows an interval, a wide one; the others know no limit at all.
  if (outcome === "found" || (outcome === "irregular" && lower > 0 && upper < Infinity)) {
    result.limit = { lower, upper, messagesPerSecond: lower / messageSize };
  }
}
