/** The speed limit of a reader: listens, starts or awaits readers, searches, then looks beyond. */
import { type Environment, environment } from "./environment.ts";
import { Flood, type Replies } from "./flood.ts";
import { Meter, SAMPLE_EVERY_MS } from "./meter.ts";
import { kernelSource, kernelSourceReason } from "./kernel.ts";
import type { Message } from "./message.ts";
import { type Adapter, type Closed, type Connection, type Listener, loadAdapter } from "./net.ts";
import { Ticker } from "./pacer.ts";
import { describeExit, fillCommand, ReaderFailed, ReaderProcess } from "./readers.ts";
import { type Effort, searchLimit, type SearchResult, type TrialOutcome } from "./search.ts";
import { sleep } from "./sleep.ts";
import { type Feed, runTrial, type TrialResult, waitForClear } from "./trial.ts";
import { DEFAULT_TOLERANCE } from "./verdict.ts";

export interface LimitOptions {
  /** The reader's program and arguments, `{host}` and `{port}` replaced; without it readers attach. */
  command?: readonly string[];
  /** What to call the reader in the result; default: its command. */
  name?: string;
  message: Message;
  /** Where to listen; default 127.0.0.1 and any free port. */
  host?: string;
  port?: number;
  /** Readers at once, each with a flood of its own; default 1. */
  readers?: number;
  /** upper / lower of the result is at most 1 + precision; default 0.01. */
  precision?: number;
  /** Bytes a second; defaults 1000 and Infinity. */
  minRate?: number;
  maxRate?: number;
  /** The longest that one trial may take to be clear; seconds, default 6. */
  maxTrialSeconds?: number;
  /** What becomes of the reader's replies; default drain. */
  replies?: Replies;
  /** How long to wait for a reader to connect; seconds, default 10 for a command, else no limit. */
  connectSeconds?: number;
  adapter?: Adapter;
  /** Ends the search early: the result tells what is known by then. */
  signal?: AbortSignal;
  onEvent?: (event: LimitEvent) => void;
}

/** What happens while a limit is searched for, in order. */
export type LimitEvent =
  | { event: "listening"; host: string; port: number }
  | { event: "connected"; readers: number }
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
const CONNECT_SECONDS = 10;
/** A search that takes longer pays with precision. */
const USUAL_SECONDS = 30;
/** An attached reader that has gone is expected back; the first one may take as long as it likes. */
const RETURN_SECONDS = 60;
/** A command's reader that does not clear this soon is replaced: waiting costs more than starting. */
const CLEAR_MS = 500;
/** An attached one cannot be: it gets its time. */
const CLEAR_ATTACHED_MS = 30_000;
/** Bytes a second that any reader can take while it warms up. */
const TRICKLE_RATE = 10_000;
const OVERLOAD_SECONDS = 0.7;
const RECOVERY_LONGEST_SECONDS = 10;

/** A glimpse of the ramp needs no precision: a reader near its limit is looked at again. */
const RAMP_TOLERANCE = 0.02;

const EFFORTS: Record<Effort, { minSeconds: number; excursions: number }> = {
  ramp: { minSeconds: 0.25, excursions: 8 },
  bound: { minSeconds: 1, excursions: 30 },
  confirm: { minSeconds: 2, excursions: 30 },
};

/** Readers that come and go, and the feeds of those that are there. */
class Bench {
  feeds: Feed[] = [];
  readonly #options: LimitOptions;
  readonly #count: number;
  readonly #ticker = new Ticker();
  readonly #emit: (event: LimitEvent) => void;
  #listener: Listener | undefined;
  #processes: ReaderProcess[] = [];
  #waiting: Connection[] = [];
  #arrived: (() => void) | undefined;
  #served = false;

  constructor(options: LimitOptions) {
    this.#options = options;
    this.#count = options.readers ?? 1;
    this.#emit = options.onEvent ?? (() => {});
  }

  async open(): Promise<void> {
    const net = this.#options.adapter ?? await loadAdapter();
    this.#listener = await net.listen({
      host: this.#options.host ?? "127.0.0.1",
      port: this.#options.port ?? 0,
      onConnection: (connection) => {
        this.#waiting.push(connection);
        this.#arrived?.();
      },
    });
    this.#emit({ event: "listening", ...this.#listener.address });
  }

  /** Ends the readers that are there, and gets new ones. */
  async renew(): Promise<void> {
    await this.end();
    const { command } = this.#options;
    if (command !== undefined) {
      const words = fillCommand(command, this.#listener!.address);
      this.#processes = Array.from({ length: this.#count }, () => new ReaderProcess(words));
    }
    const connections = await this.#gather();
    this.#served = true;
    this.feeds = connections.map((connection) => {
      const { message, replies = "drain" } = this.#options;
      const flood = new Flood({ connection, message, ticker: this.#ticker, replies });
      return { flood, meter: new Meter(flood) };
    });
    this.#emit({ event: "connected", readers: connections.length });
  }

  async #gather(): Promise<Connection[]> {
    const { command, signal } = this.#options;
    const seconds = this.#options.connectSeconds ??
      (command !== undefined ? CONNECT_SECONDS : this.#served ? RETURN_SECONDS : Infinity);
    const endMs = performance.now() + seconds * 1000;
    while (this.#waiting.length < this.#count) {
      if (signal?.aborted) throw new Interrupted();
      for (const reader of this.#processes) {
        if (reader.startError !== undefined) {
          throw new ReaderFailed(
            `cannot start the reader ${command![0]}: ${startProblem(reader.startError)}`,
          );
        }
        if (reader.exit !== undefined && this.#waiting.length < this.#count) {
          throw new ReaderFailed(
            `the reader ${describeExit(reader.exit)} before it connected${said(reader)}`,
          );
        }
      }
      if (performance.now() > endMs) {
        const { host, port } = this.#listener!.address;
        throw new ReaderFailed(
          command === undefined
            ? `the reader did not come back to ${host}:${port} within ${seconds} s`
            : `the reader did not connect to ${host}:${port} within ${seconds} s: ` +
              `does its command use {host} and {port}?`,
        );
      }
      await Promise.race([
        new Promise<void>((resolve) => this.#arrived = resolve),
        sleep(50),
        ...this.#processes.filter((p) => p.exit === undefined).map((p) => p.exited),
      ]);
    }
    return this.#waiting.splice(0, this.#count);
  }

  /** Why a reader's connection ended, in words, once its process has had a moment to end as well. */
  async describeEnd(reader: number, closed: { reason: string; errno?: string }): Promise<string> {
    await sleep(100);
    const process = this.#processes.find(({ exit }) => exit !== undefined) ??
      this.#processes[reader];
    const how = closed.reason === "reset" ? "reset its connection" : "closed its connection";
    if (process?.exit === undefined) return `the reader ${how}`;
    return `the reader ${describeExit(process.exit)}${said(process)}`;
  }

  /** Ends the readers that are there. */
  async end(): Promise<void> {
    for (const { flood } of this.feeds) flood.connection.close();
    this.feeds = [];
    await Promise.all(this.#processes.map((reader) => reader.kill()));
    // A command's leftover connection is not one of the next readers.
    if (this.#processes.length > 0) { for (const each of this.#waiting.splice(0)) each.close(); }
    this.#processes = [];
  }

  async close(): Promise<void> {
    await this.end();
    for (const each of this.#waiting.splice(0)) each.close();
    await this.#listener?.close();
  }
}

class Interrupted extends Error {
  override name = "Interrupted";
}

const said = (reader: ReaderProcess) => reader.lastWords === "" ? "" : `: ${reader.lastWords}`;

function startProblem(error: Error): string {
  const { code } = error as Error & { code?: string };
  if (code === "ENOENT" || /No such file|not found/i.test(error.message)) return "no such program";
  if (code === "EACCES") return "not permitted to run it";
  return error.message;
}

/** Runs the trials of one search over the readers of a bench. */
class Experiment {
  readonly trials: Trial[] = [];
  firstBehind: number | undefined;
  queueSource = "none";
  readonly #bench: Bench;
  readonly #options: LimitOptions;
  readonly #emit: (event: LimitEvent) => void;
  readonly #tolerance: number;
  #needsFresh: string | undefined = "";

  constructor(bench: Bench, options: LimitOptions, tolerance: number) {
    this.#bench = bench;
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
          throw new ReaderFailed(await this.#bench.describeEnd(result.reader, result.ended));
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
    const { maxTrialSeconds = 6, signal } = this.#options;
    await this.#ready();
    this.#emit({ event: "trial-begins", rate, purpose });
    const { minSeconds, excursions } = EFFORTS[purpose];
    const result = await runTrial(this.#bench.feeds, {
      rate,
      minSeconds: Math.min(minSeconds, maxTrialSeconds),
      maxSeconds: maxTrialSeconds,
      excursions,
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
    await this.#bench.renew();
    await this.#awaitFirstRead();
    this.#needsFresh = undefined;
  }

  /** A reader that warms up after it has connected is no slow reader: a trickle, until it reads. */
  async #awaitFirstRead(): Promise<void> {
    const { feeds } = this.#bench;
    const { connectSeconds = CONNECT_SECONDS, signal } = this.#options;
    let ended: { reader: number; closed: Closed } | undefined;
    feeds.forEach(({ flood }, reader) => {
      flood.start(TRICKLE_RATE / flood.message.size);
      void flood.done.then((closed) => ended ??= { reader, closed });
    });
    const endMs = performance.now() + connectSeconds * 1000;
    while (!feeds.every(({ meter }) => (meter.read()?.drained ?? 0) > 0)) {
      if (signal?.aborted) throw new Interrupted();
      if (ended !== undefined) {
        throw new ReaderFailed(await this.#bench.describeEnd(ended.reader, ended.closed));
      }
      if (performance.now() > endMs) {
        throw new ReaderFailed(
          `the reader connected, and read nothing within ${connectSeconds} s`,
        );
      }
      await sleep(SAMPLE_EVERY_MS);
    }
    if (!await waitForClear(feeds, CLEAR_ATTACHED_MS)) {
      if (ended !== undefined) {
        throw new ReaderFailed(await this.#bench.describeEnd(ended.reader, ended.closed));
      }
    }
  }

  async #clear(): Promise<void> {
    const attached = this.#options.command === undefined;
    const cleared = await waitForClear(this.#bench.feeds, attached ? CLEAR_ATTACHED_MS : CLEAR_MS);
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
      trial.ended = await this.#bench.describeEnd(result.reader, result.ended);
    }
    this.trials.push(trial);
    this.queueSource = this.#bench.feeds[0]?.meter.queueSource ?? this.queueSource;
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
    const result = await runTrial(this.#bench.feeds, {
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
    const { feeds } = this.#bench;
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
  const tolerance = Math.min(DEFAULT_TOLERANCE, precision / 4);
  const startMs = performance.now();
  const bench = new Bench(options);
  const experiment = new Experiment(bench, options, tolerance);
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
  await bench.open();
  try {
    const search = await searchLimit((rate, effort) => experiment.trial(rate, effort), {
      startRate: START_RATE,
      minRate,
      maxRate,
      precision,
      tolerance,
      hurry: () => performance.now() - startMs > USUAL_SECONDS * 1000,
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
    await bench.close();
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
