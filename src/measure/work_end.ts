/**
 * When a reader's work ended: decided from what its threads did, window by window, and nothing else.
 *
 * A window counts as work where a thread did more in it than ever in idle time. The reader worked on
 * as long as such windows follow each other as closely as they did while it certainly worked. What comes
 * alone after that, as a garbage collection does, is none.
 */
import {
  isHousekeeping,
  type Series,
  seriesByThread,
  ThreadBackground,
  type WorkWindow,
} from "./thread_background.ts";

export interface WorkEndOptions {
  /** Before the first message: connected, and nothing to do. */
  idle: readonly WorkWindow[];
  /** While messages came. */
  busy: readonly WorkWindow[];
  /** The threads' names, by their numbers in the windows. */
  names: readonly string[];
  /** When the watch begins: the last byte has been taken from the socket. */
  fromMs: number;
  /** The shortest silence that ends the work; default 250 ms. */
  shortestQuietMs?: number;
  /** The longest silence that is waited for; default 2000 ms. */
  longestQuietMs?: number;
}

export interface WorkState {
  /** The last work, in ms as in the windows; `fromMs` where there was none. */
  endMs: number;
  /** Silent for long enough. */
  quiet: boolean;
}

/** How many times longer than the gaps in its work a silence is that ends it. */
const QUIET_GAPS = 5;
const SHORTEST_QUIET_MS = 250;
const LONGEST_QUIET_MS = 2000;
/** A gap that separates what may be no work: at least this, and three gaps as they are usual. */
const SPLIT_MS = 50;
const SPLIT_GAPS = 3;
/** The gaps of single threads count for so much at most: workers of a pool take turns. */
const THREAD_GAP_MS = 200;
const FEWEST_MARKS = 5;
/** What comes after a gap is work, where it comes so often or is so long: times, windows. */
const WORK_PIECES = 3;
const WORK_WINDOWS = 10;
/** With fewer windows of work there is nothing to compare with. */
const FEWEST_BUSY = 20;

interface Mark {
  fromMs: number;
  toMs: number;
}

interface Worker {
  background: ThreadBackground;
  /** Windows that are added up, and what is above the background. */
  ceiling: { length: number; cpuNs: number; switches: number };
}

/** Decides as windows come. */
export class WorkEnd {
  /** Steady activity without work that hides whether there is work: one clause. */
  readonly background: string | undefined;
  /** The silence that ends the work. */
  quietMs: number;
  readonly #options: WorkEndOptions;
  readonly #splitMs: number;
  readonly #workers = new Map<number, Worker>();
  /** Threads that do not work on messages, as far as can be seen. */
  readonly #ignored = new Set<number>();
  readonly #idleLength: number;
  readonly #recent: WorkWindow[] = [];
  readonly #longestQuietMs: number;
  readonly #marks: Mark[] = [];
  #nowMs: number;

  constructor(options: WorkEndOptions) {
    const { idle, busy, names, shortestQuietMs = SHORTEST_QUIET_MS } = options;
    this.#options = options;
    this.#idleLength = idle.length;
    this.#nowMs = options.fromMs;
    this.#longestQuietMs = options.longestQuietMs ?? LONGEST_QUIET_MS;
    const idleSeries = seriesByThread(idle);
    const busySeries = seriesByThread(busy);
    this.background = this.#learn(idleSeries, busySeries);
    // A list of its own: the windows of the time of work are looked at with what was just learned.
    const marks = busy.flatMap((_, i) => this.#mark(busy, i) ?? []);
    const usual = quantile(gapsOf(marks), 0.95);
    const longest = quantile(gapsOf(marks), 1);
    let thread = 0;
    for (const [number, series] of busySeries) {
      if (isHousekeeping(names[number] ?? "")) continue;
      const own = busy.filter((_, i) => series.switches[i]! > 0 || series.cpuNs[i]! > 0);
      if (own.length < FEWEST_MARKS) continue;
      thread = Math.max(thread, Math.min(THREAD_GAP_MS, quantile(gapsOf(own), 0.9)));
    }
    const quiet = QUIET_GAPS * Math.max(longest, thread);
    this.quietMs = Math.min(this.#longestQuietMs, Math.max(shortestQuietMs, quiet));
    const split = Math.max(SPLIT_MS, SPLIT_GAPS * Math.max(usual, thread));
    this.#splitMs = Math.min(this.quietMs, split);
  }

  /** The next window, which begins where the last one ended. */
  push(window: WorkWindow): void {
    this.#recent.push(window);
    this.#nowMs = window.toMs;
    const mark = this.#mark(this.#recent, this.#recent.length - 1);
    if (mark !== undefined && mark.toMs > this.#options.fromMs) this.#marks.push(mark);
  }

  get state(): WorkState {
    const { fromMs } = this.#options;
    let endMs = fromMs;
    let lastMs = fromMs;
    let pieces = 0;
    let windows = 0;
    let widest = 0;
    for (const mark of this.#marks) {
      const gap = mark.fromMs - lastMs;
      if (gap >= this.#splitMs) pieces++;
      if (pieces > 0) {
        windows++;
        widest = Math.max(widest, gap);
      }
      lastMs = Math.max(lastMs, mark.toMs);
      const isWork = pieces === 0 || pieces >= WORK_PIECES || windows >= WORK_WINDOWS;
      if (isWork) endMs = (mark.fromMs + mark.toMs) / 2;
    }
    const resumed = pieces >= WORK_PIECES || windows >= WORK_WINDOWS;
    const quietMs = resumed
      ? Math.min(this.#longestQuietMs, Math.max(this.quietMs, QUIET_GAPS * widest))
      : this.quietMs;
    const quiet = this.#nowMs - lastMs >= quietMs && !this.#lingers(quietMs);
    return { endMs: Math.max(endMs, fromMs), quiet };
  }

  /** Learns which threads work, and how their work shows; the background where one's does not. */
  #learn(idle: Map<number, Series>, busy: Map<number, Series>): string | undefined {
    const { names, busy: windows } = this.#options;
    let hides: { thread: number; background: ThreadBackground } | undefined;
    let works = false;
    for (const thread of new Set([...idle.keys(), ...busy.keys()])) {
      if (isHousekeeping(names[thread] ?? "")) continue;
      const background = new ThreadBackground(idle.get(thread), this.#idleLength);
      const series = busy.get(thread) ?? { cpuNs: [], switches: [] };
      const { ceiling, worked } = background.tellApart(series);
      works ||= worked;
      if (ceiling !== undefined) this.#workers.set(thread, { background, ceiling });
      else {
        this.#ignored.add(thread);
        const more = background.switches > (hides?.background.switches ?? 0);
        if (worked && (hides === undefined || more)) hides = { thread, background };
      }
    }
    if (windows.length < FEWEST_BUSY) return undefined;
    if (hides !== undefined) {
      const { fromMs, toMs } = this.#options.idle[0]!;
      const name = JSON.stringify(names[hides.thread] ?? "");
      return `a thread, ${name}, ${hides.background.describe(toMs - fromMs)} without work`;
    }
    return works ? undefined : "its processes did nothing more while it read than before";
  }

  /** The mark that a window sets; undefined: no thread did more in it than it does without work. */
  #mark(windows: readonly WorkWindow[], at: number): Mark | undefined {
    const { fromMs, toMs, work } = windows[at]!;
    let found: Mark | undefined;
    for (const { thread, cpuNs, switches } of work) {
      if (this.#ignored.has(thread) || isHousekeeping(this.#options.names[thread] ?? "")) continue;
      const { length, ...most } = this.#workers.get(thread)?.ceiling ??
        { length: 1, cpuNs: 0, switches: 0 };
      if (length === 1) {
        // A window that was taken late holds more of the background as well.
        const late = Math.max(1, (toMs - fromMs) / this.#windowMs);
        if (switches > late * most.switches || cpuNs > late * most.cpuNs) return { fromMs, toMs };
        continue;
      }
      const first = Math.max(0, at - length + 1);
      const all = addUp(windows.slice(first, at + 1), thread);
      if (all.switches <= most.switches && all.cpuNs <= most.cpuNs) continue;
      const middle = windows[(first + at) >> 1]!;
      found = { fromMs: middle.fromMs, toMs: middle.toMs };
    }
    return found;
  }

  get #windowMs(): number {
    const { idle } = this.#options;
    if (idle.length === 0) return 10;
    return Math.max(1, (idle.at(-1)!.toMs - idle[0]!.fromMs) / idle.length);
  }

  /** Whether a thread with a background did more in the silence, all in all, than in idle time. */
  #lingers(quietMs: number): boolean {
    const silence = this.#recent.filter(({ fromMs }) => fromMs >= this.#nowMs - quietMs);
    for (const [thread, { background }] of this.#workers) {
      if (background.silent) continue;
      const { cpuNs, switches } = addUp(silence, thread);
      const length = Math.round(quietMs / this.#windowMs);
      if (background.exceeds(cpuNs, switches, Math.max(length, silence.length))) return true;
    }
    return false;
  }
}

function addUp(windows: readonly WorkWindow[], thread: number) {
  const all = { cpuNs: 0, switches: 0 };
  for (const { work } of windows) {
    for (const done of work) {
      if (done.thread !== thread) continue;
      all.cpuNs += done.cpuNs;
      all.switches += done.switches;
    }
  }
  return all;
}

/** Silences between windows in order of time; ms. */
function gapsOf(windows: readonly Mark[]): number[] {
  return windows.slice(1).map(({ fromMs }, i) => Math.max(0, fromMs - windows[i]!.toMs));
}

/** 0 without values. */
function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}
