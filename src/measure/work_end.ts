/**
 * When a reader's work ended: decided from what its threads did, window by window, and nothing else.
 *
 * A window counts as work where a thread did more in it than ever in idle time. The reader worked on
 * as long as such windows follow each other as closely as they did while it certainly worked. What comes
 * alone after that, as a garbage collection does, is not work.
 */
import {
  isHousekeeping,
  type Series,
  seriesByThread,
  ThreadBackground,
  type ThreadWork,
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
/**
 * Threads with such a share of the switches, or such a share of the CPU time, do the reader's work. Their
 * own gaps count beside those of all together: one that reads hides those of one that works. Up to
 * this, because workers of a pool take turns.
 */
const THREAD_SWITCHES = 0.03;
const THREAD_CPU = 0.1;
const THREAD_GAP_MS = 200;
/**
 * What comes after such a gap is work if it comes so often or is so long (times, windows), and one of
 * those threads has at least such a share of what it had in the same time while messages came.
 */
const WORK_PIECES = 3;
const WORK_WINDOWS = 10;
const WORK_SHARE = 0.2;
/** Or after fewer windows, if they are as full of switches as at work. */
const DENSE_WINDOWS = 5;
const DENSE_SHARE = 0.5;
/** With fewer windows of work there is nothing to compare with. */
const FEWEST_BUSY = 20;

/** A window in which a thread worked, with all that was done in it. */
interface Mark {
  fromMs: number;
  toMs: number;
  work: readonly ThreadWork[];
}

/** The end of the work so far. */
interface End {
  endMs: number;
  /** The end of the last window with work. */
  lastMs: number;
  /** Since when there is nothing that may be work. */
  silentMs: number;
  /** The widest gap in what came after a silence. */
  widest: number;
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
  /** What each thread that does the reader's work did while messages came: each ms, on average. */
  readonly #busyRates = new Map<number, { cpuNs: number; switches: number }>();
  readonly #workers = new Map<number, Worker>();
  /** Threads that do not work on messages, as far as can be seen. */
  readonly #ignored = new Set<number>();
  readonly #idleLength: number;
  readonly #recent: WorkWindow[] = [];
  readonly #longestQuietMs: number;
  readonly #marks: Mark[] = [];
  #nowMs: number;
  #end: End;
  /** When threads with a background last had done more than in idle time, without a mark. */
  #lingeredMs = 0;

  constructor(options: WorkEndOptions) {
    const { idle, busy, shortestQuietMs = SHORTEST_QUIET_MS } = options;
    this.#options = options;
    this.#idleLength = idle.length;
    this.#nowMs = options.fromMs;
    this.#end = {
      endMs: options.fromMs,
      lastMs: options.fromMs,
      silentMs: options.fromMs,
      widest: 0,
    };
    this.#longestQuietMs = options.longestQuietMs ?? LONGEST_QUIET_MS;
    const idleSeries = seriesByThread(idle);
    const busySeries = seriesByThread(busy);
    this.background = this.#learn(idleSeries, busySeries);
    // A list of its own: the windows of the time of work are looked at with what was just learned.
    const marks = busy.flatMap((_, i) => this.#mark(busy, i) ?? []);
    const busyMs = (busy.at(-1)?.toMs ?? 0) - (busy[0]?.fromMs ?? 0);
    const all = addUp(marks.flatMap(({ work }) => work.filter((d) => !this.#isIgnored(d.thread))));
    let thread = 0;
    for (const [number, series] of busySeries) {
      if (this.#isIgnored(number)) continue;
      const switches = sum(series.switches);
      const cpuNs = sum(series.cpuNs);
      const switchesOften = switches >= THREAD_SWITCHES * all.switches;
      if (!switchesOften && cpuNs < THREAD_CPU * all.cpuNs) continue;
      this.#busyRates.set(number, { cpuNs: cpuNs / busyMs, switches: switches / busyMs });
      // One that computes has no gaps to speak of, or is a runtime's.
      if (!switchesOften) continue;
      const own = busy.filter((_, i) => series.switches[i]! > 0 || series.cpuNs[i]! > 0);
      thread = Math.max(thread, Math.min(THREAD_GAP_MS, quantile(gapsOf(own), 0.9)));
    }
    const quiet = QUIET_GAPS * Math.max(quantile(gapsOf(marks), 1), thread);
    this.quietMs = Math.min(this.#longestQuietMs, Math.max(shortestQuietMs, quiet));
    const split = SPLIT_GAPS * Math.max(quantile(gapsOf(marks), 0.95), thread);
    this.#splitMs = Math.min(this.quietMs, Math.max(SPLIT_MS, split));
  }

  /** The next window, which begins where the last one ended. */
  push(window: WorkWindow): void {
    this.#recent.push(window);
    this.#nowMs = window.toMs;
    const mark = this.#mark(this.#recent, this.#recent.length - 1);
    if (mark !== undefined && mark.toMs > this.#options.fromMs) this.#marks.push(mark);
    this.#end = this.#findEnd();
    if (this.#nowMs < this.#end.lastMs + this.quietMs) return;
    // Where work shows only in the long run, it ended somewhere in that time.
    if (this.#isBusier(this.quietMs)) this.#lingeredMs = window.toMs - this.quietMs / 2;
  }

  get state(): WorkState {
    const { endMs, silentMs, widest } = this.#end;
    const quietMs = Math.max(this.quietMs, Math.min(this.#longestQuietMs, QUIET_GAPS * widest));
    const quiet = this.#nowMs >= Math.max(silentMs + quietMs, this.#lingeredMs + this.quietMs);
    return { endMs: Math.max(endMs, this.#lingeredMs), quiet };
  }

  #findEnd(): End {
    const { fromMs } = this.#options;
    const end: End = { endMs: fromMs, lastMs: fromMs, silentMs: fromMs, widest: 0 };
    const marks = this.#marks;
    for (let at = 0; at < marks.length; at++) {
      const mark = marks[at]!;
      const gap = mark.fromMs - end.lastMs;
      if (gap >= this.#splitMs) {
        const until = this.#resumes(at, end.lastMs);
        if (until === undefined) {
          // Too little to tell yet: the silence begins anew.
          const pieces = this.#marks.slice(at);
          if (pieces.length < WORK_WINDOWS && this.#countPieces(pieces, end.lastMs) < WORK_PIECES) {
            end.silentMs = pieces.at(-1)!.toMs;
          }
          return end;
        }
        at = until;
        end.widest = Math.max(end.widest, gap);
      }
      end.endMs = Math.max(fromMs, (marks[at]!.fromMs + marks[at]!.toMs) / 2);
      end.lastMs = Math.max(end.lastMs, marks[at]!.toMs);
      end.silentMs = end.lastMs;
    }
    return end;
  }

  /** How many times a silence comes before one of the marks. */
  #countPieces(marks: readonly Mark[], fromMs: number): number {
    return marks.filter(({ fromMs: nextMs }, i) =>
      nextMs - (marks[i - 1]?.toMs ?? fromMs) >= this.#splitMs
    ).length;
  }

  /**
   * The mark with which those from `at` on, after a silence since `fromMs`, turn out to be work;
   * undefined: they do not, so far.
   */
  #resumes(at: number, fromMs: number): number | undefined {
    const sums = new Map<number, { cpuNs: number; switches: number }>();
    let lastMs = fromMs;
    let pieces = 0;
    for (let i = at; i < this.#marks.length; i++) {
      const mark = this.#marks[i]!;
      if (mark.fromMs - lastMs >= this.#splitMs) pieces++;
      lastMs = mark.toMs;
      for (const done of mark.work) {
        sums.set(done.thread, addUp([done, sums.get(done.thread) ?? { cpuNs: 0, switches: 0 }]));
      }
      const windows = i - at + 1;
      const often = pieces >= WORK_PIECES || windows >= WORK_WINDOWS;
      if (!often && windows < DENSE_WINDOWS) continue;
      if (this.#busyRates.size === 0) return i;
      const denseMs = DENSE_SHARE * (lastMs - this.#marks[at]!.fromMs);
      const oftenMs = WORK_SHARE * (lastMs - fromMs);
      for (const [thread, rate] of this.#busyRates) {
        const done = sums.get(thread);
        if (done === undefined) continue;
        // Short as it is: as dense as work, which a collection is in CPU time only.
        const silent = this.#workers.get(thread)?.background.silent ?? true;
        if (silent && rate.switches > 0 && done.switches >= denseMs * rate.switches) return i;
        if (!often) continue;
        if (rate.switches > 0 && done.switches >= oftenMs * rate.switches) return i;
        if (rate.cpuNs > 0 && done.cpuNs >= oftenMs * rate.cpuNs) return i;
      }
    }
    return undefined;
  }

  /** Learns which threads work, and how their work shows; the background where one's does not. */
  #learn(idle: Map<number, Series>, busy: Map<number, Series>): string | undefined {
    const { names, busy: windows } = this.#options;
    /** Threads whose background may hide work, the busiest first. */
    const hiding: { thread: number; background: ThreadBackground; worked: boolean }[] = [];
    let works = false;
    for (const thread of new Set([...idle.keys(), ...busy.keys()])) {
      if (this.#isIgnored(thread)) continue;
      const background = new ThreadBackground(idle.get(thread), this.#idleLength);
      const series = busy.get(thread) ?? { cpuNs: [], switches: [] };
      const { ceiling, worked } = background.tellApart(series);
      works ||= worked;
      if (ceiling !== undefined || windows.length < FEWEST_BUSY) {
        this.#workers.set(thread, { background, ceiling: ceiling ?? background.ceiling(1) });
      } else {
        this.#ignored.add(thread);
        hiding.push({ thread, background, worked });
      }
    }
    if (windows.length < FEWEST_BUSY) return undefined;
    hiding.sort(({ background: a }, { background: b }) =>
      b.cpuNs - a.cpuNs || b.switches - a.switches
    );
    // A thread that does the same with messages and without works on none, if others do.
    const worst = hiding.find(({ worked }) => worked || !works);
    if (worst !== undefined) {
      const name = JSON.stringify(names[worst.thread] ?? "");
      return `a thread, ${name}, ${worst.background.describe(this.#windowMs)} without work`;
    }
    return works ? undefined : "its processes did nothing more while it read than before";
  }

  #isIgnored(thread: number): boolean {
    return this.#ignored.has(thread) || isHousekeeping(this.#options.names[thread] ?? "");
  }

  /** The mark that a window sets; undefined: no thread did more in it than it does without work. */
  #mark(windows: readonly WorkWindow[], at: number): Mark | undefined {
    const { fromMs, toMs, work } = windows[at]!;
    // A window that was taken late holds more of the background as well.
    const late = Math.max(1, (toMs - fromMs) / this.#windowMs);
    let marked: { fromMs: number; toMs: number } | undefined;
    for (const { thread, cpuNs, switches } of work) {
      if (this.#isIgnored(thread)) continue;
      const { length, ...most } = this.#workers.get(thread)?.ceiling ??
        { length: 1, cpuNs: 0, switches: 0 };
      if (length === 1) {
        if (switches > late * most.switches || cpuNs > late * most.cpuNs) marked = { fromMs, toMs };
        continue;
      }
      const first = Math.max(0, at - length + 1);
      const sums = addUpThread(windows.slice(first, at + 1), thread);
      if (sums.switches > most.switches || sums.cpuNs > most.cpuNs) {
        marked ??= windows[(first + at) >> 1]!;
      }
    }
    return marked && { fromMs: marked.fromMs, toMs: marked.toMs, work };
  }

  get #windowMs(): number {
    const { idle } = this.#options;
    if (idle.length === 0) return 10;
    return Math.max(1, (idle.at(-1)!.toMs - idle[0]!.fromMs) / idle.length);
  }

  /** Whether a thread with a background did more in that time, all in all, than in idle time. */
  #isBusier(quietMs: number): boolean {
    const silence = this.#recent.filter(({ fromMs }) => fromMs >= this.#nowMs - quietMs);
    for (const [thread, { background }] of this.#workers) {
      if (background.silent) continue;
      const { cpuNs, switches } = addUpThread(silence, thread);
      const length = Math.round(quietMs / this.#windowMs);
      if (background.exceeds(cpuNs, switches, Math.max(length, silence.length))) return true;
    }
    return false;
  }
}

const sum = (values: readonly number[]) => values.reduce((all, value) => all + value, 0);

function addUp(done: readonly { cpuNs: number; switches: number }[]) {
  return {
    cpuNs: sum(done.map(({ cpuNs }) => cpuNs)),
    switches: sum(done.map(({ switches }) => switches)),
  };
}

const addUpThread = (windows: readonly WorkWindow[], thread: number) =>
  addUp(windows.flatMap(({ work }) => work.filter((done) => done.thread === thread)));

/** Silences between windows in order of time; ms. */
function gapsOf(windows: readonly { fromMs: number; toMs: number }[]): number[] {
  return windows.slice(1).map(({ fromMs }, i) => Math.max(0, fromMs - windows[i]!.toMs));
}

/** 0 without values. */
function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}
