/**
 * Watches whether a reader works on after the last byte was taken from its socket: what it took may
 * wait in a queue in its own memory (the hidden backlog). If it goes on for A seconds after T seconds
 * at the rate r, it processes r T / (T + A).
 *
 *     const work = await ReaderWork.open({ group: pid });   // connected, nothing sent yet
 *     const since = work.begin();                            // the trial begins
 *     work.sample();                                         // each 10 ms
 *     const { cpuShare } = work.interval(since);
 *     const { seconds, quiet } = await work.untilQuiet({ fromMs, longestSeconds: 10 });
 *     work.close();
 */
import { setTimeout as sleep } from "node:timers/promises";
import {
  type Activity,
  ProcessActivity,
  type ReaderProcesses,
} from "../kernel/process_activity.ts";
import { WorkEnd } from "./work_end.ts";
import { hasSettled, mayBeTimer, type ThreadWork, type WorkWindow } from "./thread_background.ts";

export interface ReaderWorkOptions {
  /** How long the idle baseline is; seconds, default 1. It takes up to three times that to settle. */
  idleSeconds?: number;
  /** Ends it early. */
  signal?: AbortSignal;
}

export interface UntilQuietOptions {
  /** When the socket was empty, in ms of `performance.now()`; default now. */
  fromMs?: number;
  /** How long it is watched at most, from now on; seconds. */
  longestSeconds: number;
  /** The shortest and the longest silence that end the work; defaults 0.25 and 2 seconds. */
  shortestQuietSeconds?: number;
  longestQuietSeconds?: number;
  signal?: AbortSignal;
}

export interface RestOfWork {
  /** From `fromMs` to the last work that was seen; 0 where there was none. Accurate to 20 ms. */
  seconds: number;
  /** False: it went on for longer than it was watched, or the watch was ended. */
  quiet: boolean;
  /** All its processes have ended. */
  ended: boolean;
  /** Steady background activity that hides the answer, as one clause; undefined: none does. */
  background: string | undefined;
}

/** What the reader did from one time to another. */
export interface WorkInterval {
  seconds: number;
  /** CPU time by elapsed time: 1 is one core; more with several threads. */
  cpuShare: number;
  /** The time that threads were runnable and waited for a core, by elapsed time. */
  waitShare: number;
  /** Growth of its resident memory. */
  memoryBytesPerSecond: number;
  /** Resident memory at the end. */
  memoryBytes: number;
}

/** A point in time that an interval begins at. */
export interface WorkMark {
  readonly activity: Activity;
  readonly memoryBytes: number;
}

const WINDOW_MS = 10;
/** A window shorter than this is left to grow: two callers may sample at the same time. */
const SHORTEST_WINDOW_MS = 5;
/** What is remembered of a trial: its last 10 s. */
const BUSY_WINDOWS = 1000;
const IDLE_SECONDS = 1;
/** A reader that has not settled after so many times as long does not. */
const SETTLING = 3;
/** The same for one with threads that did something now and then. */
const TIMERS = 4;

/** One reader's processes, with their idle baseline. */
export class ReaderWork {
  readonly #processes: ProcessActivity;
  readonly #names: string[] = [];
  #idle: WorkWindow[] = [];
  #busy: WorkWindow[] = [];
  /** By thread: at the end of the last window. */
  readonly #seen: { cpuNs: number; switches: number }[] = [];
  #last: Activity;

  /**
   * Finds the reader's processes and takes the idle baseline: the reader must be connected, and must
   * have nothing to do. Undefined: its processes cannot be seen from here.
   */
  static async open(
    reader: ReaderProcesses,
    options: ReaderWorkOptions = {},
  ): Promise<ReaderWork | undefined> {
    const processes = ProcessActivity.find(reader);
    if (processes === undefined) return undefined;
    const work = new ReaderWork(processes);
    const { idleSeconds = IDLE_SECONDS, signal } = options;
    const startMs = performance.now();
    while (!signal?.aborted) {
      await sleep(WINDOW_MS);
      work.sample();
      const seconds = (performance.now() - startMs) / 1000;
      if (seconds < idleSeconds) continue;
      const fromMs = performance.now() - idleSeconds * 1000;
      work.#idle = work.#busy.filter((window) => window.fromMs >= fromMs);
      // Whether a thread wakes up at even distances shows only after a while.
      const timers = mayBeTimer(work.#busy);
      if (timers) work.#idle = work.#busy;
      if (timers && seconds < TIMERS * idleSeconds) continue;
      if (seconds >= SETTLING * idleSeconds || hasSettled(work.#idle)) break;
    }
    work.#busy = [];
    return work;
  }

  private constructor(processes: ProcessActivity) {
    this.#processes = processes;
    this.#last = processes.read();
  }

  /** A trial begins: forgets the last one's windows. */
  begin(): WorkMark {
    this.sample();
    this.#busy = [];
    return { activity: this.#last, memoryBytes: this.#processes.residentBytes() };
  }

  /** Takes a window: what the threads did since the last one. Call it each 10 ms during a trial. */
  sample(): void {
    const window = this.#window();
    if (window === undefined) return;
    this.#busy.push(window);
    if (this.#busy.length >= 2 * BUSY_WINDOWS) this.#busy = this.#busy.slice(-BUSY_WINDOWS);
  }

  /** What the reader did since then. */
  interval({ activity, memoryBytes }: WorkMark): WorkInterval {
    const now = this.#processes.read();
    const elapsedMs = Math.max(1e-3, now.nowMs - activity.nowMs);
    const memoryNow = this.#processes.residentBytes();
    return {
      seconds: elapsedMs / 1000,
      cpuShare: (now.cpuNs - activity.cpuNs) / 1e6 / elapsedMs,
      waitShare: (now.waitNs - activity.waitNs) / 1e6 / elapsedMs,
      memoryBytesPerSecond: (memoryNow - memoryBytes) / elapsedMs * 1000,
      memoryBytes: memoryNow,
    };
  }

  /** Watches until the reader's work has ended, at most for `longestSeconds`. */
  async untilQuiet(options: UntilQuietOptions): Promise<RestOfWork> {
    const { signal, longestSeconds, shortestQuietSeconds, longestQuietSeconds } = options;
    this.sample();
    const startMs = performance.now();
    const fromMs = options.fromMs ?? startMs;
    const busy = this.#busy.filter(({ toMs }) => toMs <= fromMs);
    const end = new WorkEnd({
      idle: this.#idle,
      busy,
      names: this.#names,
      fromMs,
      ...(shortestQuietSeconds === undefined
        ? {}
        : { shortestQuietMs: shortestQuietSeconds * 1000 }),
      ...(longestQuietSeconds === undefined ? {} : { longestQuietMs: longestQuietSeconds * 1000 }),
    });
    for (const window of this.#busy.slice(busy.length)) end.push(window);
    const result = ({ endMs, quiet }: { endMs: number; quiet: boolean }, ended = false) => ({
      seconds: (endMs - fromMs) / 1000,
      quiet: quiet || ended,
      ended,
      background: end.background,
    });
    while (true) {
      const { state } = end;
      if (state.quiet) return result(state);
      if (this.#last.processes === 0) return result(state, true);
      if (signal?.aborted || performance.now() - startMs > longestSeconds * 1000) {
        return result(state);
      }
      await sleep(WINDOW_MS);
      const window = this.#window();
      if (window !== undefined) end.push(window);
    }
  }

  close(): void {
    this.#processes.close();
  }

  #window(): WorkWindow | undefined {
    if (performance.now() - this.#last.nowMs < SHORTEST_WINDOW_MS) return undefined;
    const fromMs = this.#last.nowMs;
    this.#last = this.#processes.read();
    const work: ThreadWork[] = [];
    this.#processes.threads.forEach(({ cpuNs, switches, name }, thread) => {
      const seen = this.#seen[thread] ??= { cpuNs: 0, switches: 0 };
      if (switches !== seen.switches || cpuNs !== seen.cpuNs) {
        work.push({ thread, cpuNs: cpuNs - seen.cpuNs, switches: switches - seen.switches });
        seen.cpuNs = cpuNs;
        seen.switches = switches;
      }
      this.#names[thread] = name;
    });
    return { fromMs, toMs: this.#last.nowMs, work };
  }
}
