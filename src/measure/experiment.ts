/** The lab over real sockets: the trials of one search, all with the readers of one pool. */
import process from "node:process";
import { formatByteRate, formatSeconds } from "../text/units.ts";
import type { Sample } from "./backlog.ts";
import { type Cleared, waitForClear } from "./clearing.ts";
import { awaitWork, type HiddenBacklog, keepSampling } from "./hidden_backlog.ts";
import type { Judged, Lab, Offered, SearchPhase } from "./lab.ts";
import type { LimitEvent, LimitOptions } from "./limit_options.ts";
import type { Trial, TrialPurpose } from "./limit_result.ts";
import { CLEAR_ATTACHED_MS, Interrupted, type ReaderPool } from "./reader_pool.ts";
import { ReaderFailed } from "./reader_process.ts";
import { runTrial, type TrialResult } from "./trial.ts";

/** How long a reader that we started may take to clear its backlog: a restart is then faster. */
const CLEAR_MS = 500;
/** One that leaves so many times as much unread as when it kept up may be stuck. */
const USUAL_REST = 1.5;
/** Pauses at rates down to that part of a rate count for it. */
const NEAR = 4;
/** The sockets were drained if the readers took this share of what was offered. */
const DRAINED = 0.97;
/** With a backlog of so many seconds, and bytes, when its connection ends, the reader fell behind. */
const ENDED_BEHIND = { seconds: 0.05, bytes: 64 << 10 };

/** How long one that we did not start may go on working after a trial; seconds, and half of that more. */
const FINISH_ATTACHED_SECONDS = 20;

const NOTHING = { lost: 0, duplicated: 0, reordered: 0 };

const CONNECTION_ENDED = "its connection ended";
const NOT_CLEARED = "it did not drain its backlog in time";
const STILL_WORKING = "it was still working on what it had taken from its socket";
const SEARCH = "the search needs a reader that was not overloaded before";

/** A trial that has been offered and is not recorded yet. */
export interface Current {
  result: TrialResult;
  purpose: TrialPurpose;
  sinceMs: number;
  /** From the first message to the last one. */
  seconds: number;
  readerCpu: number | null;
  senderCpu: number;
  memoryBytesPerSecond: number;
  stopSampling: () => Promise<void>;
  hidden?: HiddenBacklog;
}

/** Runs trials, records them, and replaces the readers when a trial leaves them unusable. */
export class Experiment implements Lab {
  readonly trials: Trial[] = [];
  readonly readers: number;
  queueSource = "none";
  /** The highest rate at which the readers' sockets were drained, whatever they did with it. */
  intake = 0;
  /** Background activity that hid whether a reader has a hidden backlog, as one clause. */
  background: string | undefined;
  /** How much the readers' memory grew in the trial with the highest rate that they took; bytes a second. */
  memory = { offered: 0, grown: 0 };
  /** Of the output, over all readers so far. */
  duplicated = 0;
  reordered = 0;
  /** Bytes that the readers left unread although nothing more came, the most. */
  rest = 0;
  /** While the limit was measured: how long the reader's threads waited for a core, by elapsed time. */
  waitShare = 0;
  /** The longest time between two samples of a reader, on average; seconds. */
  sampleSeconds = 0;
  readonly #pool: ReaderPool;
  readonly #options: LimitOptions;
  readonly #emit: (event: LimitEvent) => void;
  /** When the first readers had connected. */
  #startMs = performance.now();
  /** Why the readers must be replaced before the next trial; undefined: they can go on. */
  #replaceReason: string | undefined;
  #connected = false;
  #current: Current | undefined;
  /** The longest pause of each trial in which they kept up; seconds. */
  readonly #pauses: { rate: number; pause: number }[] = [];
  /** In the last trial, a connection ended although the reader was not behind. */
  #lost = false;
  /** What was counted so far of the present reader's output. */
  #totals = NOTHING;

  constructor(pool: ReaderPool, options: LimitOptions) {
    this.#pool = pool;
    this.#options = options;
    this.readers = options.readers ?? 1;
    this.#emit = options.onEvent ?? (() => {});
  }

  seconds(): number {
    return (performance.now() - this.#startMs) / 1000;
  }

  async offer(
    { rate, purpose, longest }: { rate: number; purpose: SearchPhase; longest: number },
    add: (samples: readonly Sample[]) => boolean,
  ): Promise<Offered> {
    const { seconds, result } = await this.run(rate, purpose, longest, add);
    let ended: Offered["ended"];
    if (result.ended === undefined) this.#lost = false;
    else {
      const keptUp = this.trials.some(({ verdict }) => verdict === "keeps-up");
      const behind = Math.max(ENDED_BEHIND.bytes, ENDED_BEHIND.seconds * rate);
      ended = keptUp && result.backlog >= behind ? "behind" : "lost";
      if (ended === "lost") {
        if (this.#lost) await this.#fail(result, keptUp);
        this.#lost = true;
      }
    }
    if (result.deadlocked && this.#options.replies === "ignore") {
      throw new ReaderFailed(
        "deadlock, not a speed limit: the reader waits for room to send its replies, which nobody " +
          "reads, and has stopped reading; read its replies with --replies drain",
      );
    }
    return { seconds, bytes: result.accepted, ended };
  }

  async #fail({ offered, seconds, reader, ended }: TrialResult, keptUp: boolean): Promise<never> {
    const why = await this.#pool.explainEnd(reader, ended!);
    await this.settle({ verdict: "falls-behind" }, true);
    throw new ReaderFailed(
      keptUp ? `offered ${formatByteRate(offered)} for ${formatSeconds(seconds)}, ${why}` : why,
    );
  }

  /** One trial, with fresh readers if need be. `settle` has to follow. */
  async run(
    rate: number,
    purpose: TrialPurpose,
    longest: number,
    add: (samples: readonly Sample[]) => boolean,
  ): Promise<Current> {
    const { signal } = this.#options;
    await this.#prepareReaders();
    const { works, connected } = this.#pool;
    this.#emit({ event: "trial-begins", rate, purpose });
    const marks = works.map((work) => work.begin());
    const cpu = process.cpuUsage();
    const stopSampling = keepSampling(works);
    try {
      const watched = signal === undefined ? {} : { signal };
      const result = await runTrial(connected, { rate, longest, add, ...watched });
      if (signal?.aborted) throw new Interrupted();
      const sinceMs = performance.now();
      const seconds = (sinceMs - result.startMs) / 1000;
      const { user, system } = process.cpuUsage(cpu);
      const done = works.map((work, i) => work.interval(marks[i]!));
      const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
      if (purpose === "saturate") this.waitShare = sum(done.map(({ waitShare }) => waitShare));
      this.sampleSeconds = Math.max(this.sampleSeconds, result.sampleSeconds);
      return this.#current = {
        ...{ result, purpose, sinceMs, seconds, stopSampling },
        readerCpu: works.length === 0 ? null : sum(done.map(({ cpuShare }) => cpuShare)),
        senderCpu: (user + system) / 1e6 / seconds,
        memoryBytesPerSecond: sum(done.map((each) => each.memoryBytesPerSecond)),
      };
    } catch (error) {
      await stopSampling();
      throw error;
    }
  }

  async look(): Promise<HiddenBacklog | undefined> {
    const { works } = this.#pool;
    const current = this.#current!;
    if (works.length === 0) return undefined;
    const { signal, message } = this.#options;
    const { sinceMs, seconds, stopSampling, result: { accepted, offered, longestPause } } = current;
    this.#pauses.push({ rate: offered, pause: longestPause });
    // What is still in the socket is work as well.
    const { clear, rest } = await this.#clear(CLEAR_MS + 2000 * seconds, offered);
    await stopSampling();
    const messageSeconds = message.size * seconds / Math.max(accepted, message.size);
    const watched = { messageSeconds, ...(signal === undefined ? {} : { signal }) };
    const hidden = await awaitWork(works, { ...watched, sinceMs, trialSeconds: seconds });
    let { quiet } = hidden;
    if (!quiet && clear && this.#options.command === undefined) {
      // We cannot start it again: it gets the time to finish.
      ({ quiet } = await awaitWork(works, {
        ...{ ...watched, sinceMs: performance.now(), trialSeconds: FINISH_ATTACHED_SECONDS },
      }));
    }
    if (signal?.aborted) throw new Interrupted();
    this.background = hidden.background;
    if (!quiet || !clear) this.#replaceReason = STILL_WORKING;
    // It has nothing more to do, and something is unread all the same.
    if (rest > 0 && hidden.quiet) this.rest = Math.max(this.rest, this.#unread());
    return current.hidden = hidden;
  }

  async settle(judged: Judged, fresh: boolean): Promise<void> {
    const current = this.#current;
    this.#current = undefined;
    if (current !== undefined) {
      const { result, hidden, stopSampling } = current;
      await stopSampling();
      if (result.ended !== undefined) this.#replaceReason = CONNECTION_ENDED;
      if (result.taken > DRAINED * result.offered && result.offered > this.intake) {
        this.intake = result.offered;
        this.memory = { offered: result.offered, grown: current.memoryBytesPerSecond };
      }
      await this.#record(current, judged);
      const attached = this.#options.command === undefined;
      const replaced = fresh && !attached;
      if (result.ended === undefined && hidden === undefined && !replaced) {
        const most = attached ? CLEAR_ATTACHED_MS : CLEAR_MS;
        const { clear, rest } = await this.#clear(most, result.offered);
        if (judged.verdict === "keeps-up" && this.#pool.outputTotals !== undefined) {
          // What is held back in a buffer until more comes.
          this.rest = Math.max(this.rest, rest);
        }
        await this.#pool.outputSettled();
        this.#countMissing(this.trials.at(-1)!);
        // One that was behind and leaves a rest may be stuck.
        const stuck = judged.verdict !== "keeps-up" && rest > USUAL_REST * this.rest;
        if (!clear || stuck) this.#replaceReason = NOT_CLEARED;
      }
    }
    // Of a reader that attaches there is no other one.
    if (fresh && this.#options.command !== undefined) this.#replaceReason ??= SEARCH;
  }

  /** At much lower rates, a reader that waits for a certain number of bytes pauses longer. */
  #clear(maxMs: number, rate: number): Promise<Cleared> {
    const near = this.#pauses.filter((each) => each.rate >= rate / NEAR);
    const pause = Math.max(0, ...near.map((each) => each.pause));
    return waitForClear(this.#pool.connected, maxMs, pause);
  }

  /** What the readers have left in their sockets; bytes, the most. */
  #unread(): number {
    const { connected } = this.#pool;
    return Math.max(0, ...connected.map(({ meter }) => meter.read()?.receiveQueue ?? 0));
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
    this.#totals = NOTHING;
    // Waiting for a reader that is started separately is not part of the search.
    if (!this.#connected && this.#options.command === undefined) this.#startMs = performance.now();
    this.#connected = true;
    this.#replaceReason = undefined;
  }

  /** Adds to a trial what was lost since this was called last. */
  #countMissing(trial: Trial): void {
    const totals = this.#pool.outputTotals;
    if (totals === undefined) return;
    const more = totals.lost - this.#totals.lost;
    this.duplicated += totals.duplicated - this.#totals.duplicated;
    this.reordered += totals.reordered - this.#totals.reordered;
    const { lost, duplicated, reordered } = totals;
    this.#totals = { lost, duplicated, reordered };
    if (more !== 0) trial.lost = (trial.lost ?? 0) + more;
  }

  async #record(
    { result, purpose, readerCpu, senderCpu, hidden }: Current,
    { verdict, slope = result.achieved - result.drained }: Judged,
  ): Promise<void> {
    const trial: Trial = {
      offered: result.offered,
      achieved: result.achieved,
      // At first the buffers fill: those of an overload are no small part of it.
      drained: purpose === "overload" ? result.drainedInSecondHalf : result.drained,
      backlogSlope: slope,
      ...result.figures,
      seconds: result.seconds,
      verdict,
      purpose,
      workedOn: hidden?.seconds ?? null,
      ...{ readerCpu, senderCpu },
    };
    if (result.ended !== undefined) {
      trial.ended = await this.#pool.explainEnd(result.reader, result.ended);
    }
    this.#countMissing(trial);
    this.trials.push(trial);
    this.queueSource = this.#pool.connected[0]?.meter.queueSource ?? this.queueSource;
    this.#emit({ event: "trial", purpose, trial });
  }
}
