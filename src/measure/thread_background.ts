/** What a reader's threads do while it has nothing to do, and which of their doings are work. */

/** What one thread did in one window. */
export interface ThreadWork {
  /** Its place in a list of threads. */
  thread: number;
  cpuNs: number;
  /** How often it was put on a CPU. */
  switches: number;
}

/** A stretch of some 10 ms. Threads that did nothing in it are absent. Times in ms. */
export interface WorkWindow {
  fromMs: number;
  toMs: number;
  work: readonly ThreadWork[];
}

/**
 * Threads in which well-known runtimes collect garbage, compile and keep house, by the names that
 * they give them: they go on for a while after the last message has been processed, and process none.
 */
const HOUSEKEEPING = new RegExp(
  "^(" + [
    // HotSpot
    "C[12] Compiler|GC Thread|G1 |VM (Periodic|Thread)|Z(Driver|Worker|Director|Stat|Uncommit)",
    "Shenandoah|Common-Cleaner|Finalizer|Reference Handl|Signal Dispatch|Service Thread",
    "Monitor Deflati|Notification Th|Sweeper|Cleaner-",
    // V8 in Node and Deno; JavaScriptCore in Bun
    "(node-)?V8 ?(Worker|Default)|DelayedTaskSche|HeapHelper|JITWorker|JSC|mi-scavenger",
    // .NET, Erlang
    "\\.NET (Tiered|Finalizer|Sig|Event|BGC|Server GC)|erts_aux",
  ].join("|") + ")",
);

export const isHousekeeping = (name: string) => HOUSEKEEPING.test(name);

/** Idle windows, by share, in which a thread may do more than its usual; a late start, a collection. */
const OUTLIERS = 0.02;
/** Windows that are added up where single ones do not tell work from background. */
const SCALES = [1, 2, 5, 10, 20, 50];
/** Of the sums during work, so many must be above all those of the idle time. */
const TOLD_APART = 0.8;

/** A thread without a background that did something in fewer windows than that may not have worked. */
const FEWEST_WINDOWS = 3;

/** One thread's doings, window by window. */
export interface Series {
  cpuNs: number[];
  switches: number[];
}

/** The windows of one thread. Absent where it did nothing in any of them. */
export function seriesByThread(windows: readonly WorkWindow[]): Map<number, Series> {
  const all = new Map<number, Series>();
  const zeros = () => new Array<number>(windows.length).fill(0);
  windows.forEach(({ work }, i) => {
    for (const { thread, cpuNs, switches } of work) {
      let series = all.get(thread);
      if (series === undefined) all.set(thread, series = { cpuNs: zeros(), switches: zeros() });
      series.cpuNs[i] = cpuNs;
      series.switches[i] = switches;
    }
  });
  return all;
}

const sum = (values: readonly number[]) => values.reduce((all, value) => all + value, 0);

/** Sums of `length` neighbours each. */
function sums(values: readonly number[], length: number): number[] {
  const result: number[] = [];
  let running = 0;
  values.forEach((value, i) => {
    running += value;
    if (i >= length) running -= values[i - length]!;
    if (i >= length - 1) result.push(running);
  });
  return result;
}

/** A background is steady: it shows in more than half of so many equal parts of the idle time. */
const PARTS = 5;

/** Splits evenly; the last part takes what is left over. */
function parts(values: readonly number[]): number[] {
  const length = Math.max(1, Math.floor(values.length / PARTS));
  return Array.from(
    { length: PARTS },
    (_, i) => sum(values.slice(i * length, i === PARTS - 1 ? undefined : (i + 1) * length)),
  );
}

/** How much more than the usual a part of a settled idle time may have: times, ns, switches. */
const SETTLED_TIMES = 3;
const SETTLED_NS = 3e6;
const SETTLED_SWITCHES = 15;

/** Whether these idle windows are alike: a program that has just connected may still be starting. */
export function hasSettled(windows: readonly WorkWindow[]): boolean {
  const isEven = (values: readonly number[], spare: number) => {
    const sorted = parts(values).sort((a, b) => a - b);
    return sorted.at(-1)! <= SETTLED_TIMES * sorted[PARTS >> 1]! + spare;
  };
  const total = (what: "cpuNs" | "switches") =>
    windows.map(({ work }) => sum(work.map((done) => done[what])));
  return isEven(total("cpuNs"), SETTLED_NS) && isEven(total("switches"), SETTLED_SWITCHES);
}

/** Windows without activity that separate two wake-ups of a timer, and how alike those are. */
const TIMER_GAP = 5;
const TIMER_GAPS_ALIKE = 1.5;
const TIMER_WAKES_ALIKE = 4;
const FEWEST_WAKES = 3;

/**
 * The most that a timer does in one window: a thread that wakes up now and then, at even distances, does about
 * the same each time, and sleeps in between. Undefined: it is not a timer.
 */
function timerOf({ cpuNs, switches }: Series): { cpuNs: number; switches: number } | undefined {
  const active = cpuNs.flatMap((ns, i) => ns > 0 || switches[i]! > 0 ? i : []);
  const wakes: { at: number; cpuNs: number }[] = [];
  let last = -Infinity;
  for (const i of active) {
    if (i - last > TIMER_GAP) wakes.push({ at: i, cpuNs: 0 });
    wakes.at(-1)!.cpuNs += cpuNs[i]!;
    last = i;
  }
  if (wakes.length < FEWEST_WAKES) return undefined;
  const gaps = wakes.slice(1).map(({ at }, i) => at - wakes[i]!.at);
  const work = wakes.map((wake) => wake.cpuNs);
  if (!areAlike(gaps, TIMER_GAPS_ALIKE) || !areAlike(work, TIMER_WAKES_ALIKE)) return undefined;
  return { cpuNs: usual(cpuNs.filter((ns) => ns > 0)).at(-1)!, switches: Math.max(...switches) };
}

/** In order of size; of four or more without the smallest and the largest, which something else may explain. */
function usual(values: readonly number[]): number[] {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted.length < 4 ? sorted : sorted.slice(1, -1);
}

function areAlike(values: readonly number[], factor: number): boolean {
  const most = usual(values);
  return most.at(-1)! <= factor * most[0]!;
}

/**
 * Whether a thread did something and is not known to be a timer: a longer look may tell. What a program does
 * just after its start does not count.
 */
export function mayBeTimer(windows: readonly WorkWindow[]): boolean {
  const late = seriesByThread(windows.slice(windows.length >> 1));
  return [...seriesByThread(windows)].some(([thread, series]) => {
    if (!late.has(thread)) return false;
    const background = new ThreadBackground(series, windows.length);
    return background.silent && background.timer === undefined;
  });
}

/** The largest of the sums, without outliers where they are of single windows. */
function ceiling(values: readonly number[], length: number): number {
  const sorted = sums(values, length).sort((a, b) => b - a);
  return sorted[length === 1 ? Math.floor(OUTLIERS * sorted.length) : 0] ?? 0;
}

/** The most that one thread does in `length` windows without being at work. */
interface Ceiling {
  length: number;
  cpuNs: number;
  switches: number;
}

/** What one thread does without work. */
export class ThreadBackground {
  /** How much it is busied by nothing: per window, on average. */
  readonly cpuNs: number;
  readonly switches: number;
  /** It did nothing, or nothing steady. */
  readonly silent: boolean;
  /** The most that it does in one window, where it wakes up at even distances and sleeps in between. */
  readonly timer: { cpuNs: number; switches: number } | undefined;
  readonly #idle: Series;
  readonly #windows: number;

  /** `idle`: undefined where it did nothing in `windows` idle windows. */
  constructor(idle: Series | undefined, windows: number) {
    this.#idle = idle ?? { cpuNs: [], switches: [] };
    this.#windows = Math.max(1, windows);
    this.cpuNs = sum(this.#idle.cpuNs) / this.#windows;
    this.switches = sum(this.#idle.switches) / this.#windows;
    const active = parts(this.#idle.cpuNs.map((ns, i) => ns + this.#idle.switches[i]!));
    this.timer = timerOf(this.#idle);
    this.silent = this.timer !== undefined ||
      active.filter((part) => part > 0).length <= PARTS / 2;
  }

  ceiling(length: number): Ceiling {
    if (this.timer !== undefined) {
      return { length, cpuNs: 2 * this.timer.cpuNs + 1e5, switches: this.timer.switches + 1 };
    }
    if (this.silent) return { length, cpuNs: 0, switches: 0 };
    const switches = ceiling(this.#idle.switches, length);
    return {
      length,
      switches: switches + Math.max(1, Math.ceil(0.15 * switches)),
      cpuNs: 1.5 * ceiling(this.#idle.cpuNs, length) + 1e5 * Math.sqrt(length),
    };
  }

  /**
   * The shortest length at which its work shows against its background. Undefined: at none.
   * `worked`: false where it did no more than in idle time, and so perhaps no work at all.
   */
  tellApart(busy: Series): { ceiling: Ceiling | undefined; worked: boolean } {
    if (this.silent) {
      const most = this.ceiling(1);
      const windows = busy.switches.filter((switches, i) =>
        switches > most.switches || busy.cpuNs[i]! > most.cpuNs
      );
      return { ceiling: most, worked: windows.length >= FEWEST_WINDOWS };
    }
    const windows = Math.max(1, busy.switches.length);
    const worked = sum(busy.switches) / windows > 1.25 * this.switches + 0.03 ||
      sum(busy.cpuNs) / windows > 1.5 * this.cpuNs + 1e4;
    for (const length of SCALES) {
      if (2 * length > this.#windows || 2 * length > windows) break;
      const most = this.ceiling(length);
      const cpuNs = sums(busy.cpuNs, length);
      const above = sums(busy.switches, length).filter((switches, i) =>
        switches > most.switches || cpuNs[i]! > most.cpuNs
      );
      if (above.length >= TOLD_APART * cpuNs.length) return { ceiling: most, worked };
    }
    return { ceiling: undefined, worked };
  }

  /** Whether so much in so many windows is more than in idle time. */
  exceeds(cpuNs: number, switches: number, windows: number): boolean {
    const length = Math.max(1, Math.min(windows, Math.floor(this.#windows / 2)));
    const scale = windows / length;
    return switches > 1.2 * scale * ceiling(this.#idle.switches, length) + 3 ||
      cpuNs > 2 * scale * ceiling(this.#idle.cpuNs, length) + 2e6;
  }

  /** For people: `wakes up 100 times a second`, or `uses 30 % of a core`. */
  describe(windowMs: number): string {
    const share = this.cpuNs / (windowMs * 1e6);
    if (share > 0.1) return `uses ${Math.round(100 * share)} % of a core`;
    return `wakes up ${Math.round(this.switches * 1000 / windowMs)} times a second`;
  }
}
