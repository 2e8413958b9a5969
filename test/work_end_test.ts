/** When a reader's work ended, decided from made-up series whose true end is known. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertMatch } from "#std/assert";
import type { WorkWindow } from "../src/measure/thread_background.ts";
import { WorkEnd } from "../src/measure/work_end.ts";

/** Uniform in [0, 1), the same series for a seed (Numerical Recipes' generator). */
function random(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 1664525 + 1013904223) >>> 0) / 2 ** 32;
}

/** When a thread is put on a CPU (ms), and for how long (ns) each time. */
interface Runs {
  name?: string;
  times: number[];
  ns: number;
}

/** From `fromMs` to `toMs`, every so often, give or take a share of it. */
function each(everyMs: number, fromMs: number, toMs: number, next = () => 0.5): number[] {
  const times: number[] = [];
  for (let ms = fromMs; ms < toMs; ms += everyMs * (0.5 + next())) times.push(ms);
  return times;
}

/** Idle for 1 s, then messages until `STOP`, of which the last is taken then. ms. */
const START = 1000;
const STOP = 3000;
const ALL = 12_000;

/** The windows of threads, each some 10 ms long. */
function windowsOf(threads: readonly Runs[], seed: number): WorkWindow[] {
  const next = random(seed);
  const windows: WorkWindow[] = [];
  const at = threads.map(() => 0);
  for (let fromMs = 0; fromMs < ALL;) {
    const toMs = fromMs + 10 + 3 * next() + (next() < 0.01 ? 20 : 0);
    const work = threads.flatMap(({ times, ns }, thread) => {
      let switches = 0;
      for (; times[at[thread]!]! < toMs; at[thread]!++) switches++;
      return switches === 0 ? [] : [{ thread, switches, cpuNs: switches * ns }];
    });
    windows.push({ fromMs, toMs, work });
    fromMs = toMs;
  }
  return windows;
}

/** What would have been said, and when. */
function watch(threads: readonly Runs[], seed: number, longestMs = ALL - STOP) {
  const windows = windowsOf(
    threads.map((runs) => ({ ...runs, times: runs.times.toSorted((a, b) => a - b) })),
    seed,
  );
  const end = new WorkEnd({
    idle: windows.filter(({ toMs }) => toMs <= START),
    busy: windows.filter(({ fromMs, toMs }) => fromMs >= START && toMs <= STOP),
    names: threads.map(({ name = "worker" }) => name),
    fromMs: STOP,
  });
  let saidMs = STOP;
  for (const window of windows.filter(({ toMs }) => toMs > STOP)) {
    if (end.state.quiet || window.toMs > STOP + longestMs) break;
    end.push(window);
    saidMs = window.toMs;
  }
  return {
    seconds: (end.state.endMs - STOP) / 1000,
    quiet: end.state.quiet,
    waited: (saidMs - STOP) / 1000,
    background: end.background,
  };
}

const SEEDS = Array.from({ length: 50 }, (_, i) => 7919 * (i + 1));

interface Kind {
  name: string;
  /** Threads of a reader that works until then. */
  threads(endMs: number, next: () => number): Runs[];
  /** How near its end is told; seconds, default 0.02. */
  within?: number;
}

const reads = (next: () => number): Runs => ({ times: each(1, START, STOP, next), ns: 30_000 });

const kinds: Kind[] = [
  {
    name: "one thread, a sleep of a millisecond a message",
    threads: (end, next) => [{ times: each(1, START, end, next), ns: 20_000 }],
  },
  {
    name: "a worker that sleeps 20 ms at a time",
    threads: (end, next) => [reads(next), { times: each(20, START, end, next), ns: 20_000 }],
    within: 0.03,
  },
  {
    name: "a worker that computes",
    threads: (end, next) => [reads(next), { times: each(4, START, end, next), ns: 4_000_000 }],
  },
  {
    name: "10 messages a second",
    threads: (end) => [{ times: each(100, START, end), ns: 50_000 }],
    within: 0.11,
  },
  {
    name: "a pool that takes turns",
    threads: (end, next) =>
      Array.from({ length: 8 }, () => ({ times: each(160, START, end, next), ns: 50_000 })),
    within: 0.1,
  },
  {
    name: "a timer of 100 Hz in the same thread",
    threads: (end, next) => [{
      times: [...each(10, 0, ALL), ...each(1, START, end, next)],
      ns: 20_000,
    }],
  },
  {
    name: "a timer of 100 Hz, and work of 100 Hz, in the same thread",
    threads: (end) => [{ times: [...each(10, 0, ALL), ...each(10.1, START, end)], ns: 20_000 }],
    within: 0.15,
  },
  {
    name: "a heart that beats four times a second",
    threads: (end, next) => [
      { times: each(2, START, end, next), ns: 20_000 },
      { times: each(250, 3, ALL), ns: 20_000 },
    ],
  },
  {
    name: "a runtime that collects and compiles for a second more",
    threads: (end, next) => [
      { times: each(2, START, end, next), ns: 20_000 },
      { name: "C2 CompilerThre", times: each(3, START, end + 1000, next), ns: 2_000_000 },
      { name: "G1 Conc#0", times: each(5, START, end + 700, next), ns: 2_000_000 },
      { name: "VM Periodic Tas", times: each(50, 0, ALL), ns: 20_000 },
    ],
  },
  {
    name: "two collections after the end",
    threads: (end, next) => [{
      times: [
        ...each(2, START, end, next),
        ...each(5, end + 100, end + 130),
        ...each(5, end + 200, end + 220),
      ],
      ns: 2_000_000,
    }],
  },
  {
    name: "a thread of the runtime's that ticks on for three seconds",
    threads: (end, next) => [
      { times: each(2, START, end, next), ns: 20_000 },
      { times: each(100, START, end + 3000, next), ns: 50_000 },
    ],
    within: 0.25,
  },
  {
    name: "a thread that reads, and one that works 16 times a second",
    threads: (end) => [
      { times: each(5, START, STOP), ns: 20_000 },
      { times: each(62, START, end), ns: 20_000 },
    ],
    within: 0.08,
  },
  {
    name: "a timer of 100 Hz in the same thread, and less to do without reading",
    threads: (end, next) => [{
      times: [...each(10, 0, ALL), ...each(2, START, STOP, next), ...each(12, START, end, next)],
      ns: 20_000,
    }],
    within: 0.3,
  },
  {
    name: "a worker that others keep from the core for up to 150 ms",
    threads: (end, next) => {
      const waits = (ms: number) => {
        const at = ms % 1000;
        return at < 130 ? ms - at + 130 : at > 400 && at < 550 ? ms - at + 550 : ms;
      };
      return [
        { ...reads(next), times: reads(next).times.map(waits) },
        { times: each(20, START, end, next).map(waits), ns: 20_000 },
      ];
    },
    within: 0.16,
  },
  {
    name: "pauses of 200 ms each half second",
    threads: (end, next) => [{
      times: each(1, START, end, next).filter((ms) => (end - ms) % 500 < 300),
      ns: 20_000,
    }],
  },
];

describe("the end of a reader's work", () => {
  for (const { name, threads, within = 0.02 } of kinds) {
    for (const hidden of [0, 0.3, 1.5, 6]) {
      test(`${name}: ${hidden} s of hidden backlog`, () => {
        for (const seed of SEEDS) {
          const next = random(seed);
          const result = watch(threads(STOP + 1000 * hidden, next), seed);
          const what = `seed ${seed}: ${JSON.stringify(result)}`;
          assert(result.quiet, what);
          assertEquals(result.background, undefined, what);
          assertAlmostEquals(result.seconds, hidden, within, what);
          assert(result.waited < hidden + 2.2, what);
        }
      });
    }
  }

  test("a reader that holds back is told after a quarter of a second", () => {
    for (const seed of SEEDS) {
      const { waited } = watch(kinds[0]!.threads(STOP, random(seed)), seed);
      assert(waited < 0.3, `${waited} s`);
    }
  });

  test("work without an end is not quiet", () => {
    const { quiet, seconds } = watch([{ times: each(2, START, ALL), ns: 20_000 }], 1, 4000);
    assertEquals(quiet, false);
    assertAlmostEquals(seconds, 4, 0.05);
  });

  test("a background that hides work is named", () => {
    // Now and then it does twice as much: a third more by messages is not told from that.
    const often = each(5, 0, ALL).filter((ms) => ms % 400 < 200);
    const few = {
      name: "ticker",
      times: [...each(10, 0, ALL), ...often, ...each(12, START, STOP)],
      ns: 20_000,
    };
    const { background } = watch([few], 1);
    assertMatch(background!, /^a thread, "ticker", wakes up \d\d\d times a second without work$/);
    const more = { ...few, ns: 3_000_000 };
    assertMatch(watch([more], 1).background!, /uses \d\d % of a core/);
  });

  test("a reader that does the same with messages and without cannot be seen", () => {
    const timer = { times: each(10, 0, ALL), ns: 20_000 };
    assertMatch(watch([timer], 1).background!, /wakes up \d+ times a second/);
    const polls = { times: each(1, 0, ALL), ns: 1_000_000 };
    assertMatch(watch([timer, polls], 1).background!, /uses 100 % of a core/);
    assertMatch(watch([], 1).background!, /did nothing more while it read/);
  });

  test("slower readers are waited for longer", () => {
    const slow = { times: each(300, START, STOP), ns: 20_000 };
    assertGreater(watch([slow], 1).waited, 1);
  });
});
