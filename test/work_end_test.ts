/** When a reader's work ended, decided from made-up series whose true end is known. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertMatch } from "#std/assert";
import type { ThreadWork, WorkWindow } from "../src/measure/thread_background.ts";
import { WorkEnd, type WorkEndOptions } from "../src/measure/work_end.ts";

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

/** Windows of exactly 10 ms, with no work before `START`; the thread's number counts from 0. */
describe("the end of a reader's work, exactly", () => {
  type Does = (ms: number) => ThreadWork[];
  const grid = (fromMs: number, toMs: number, does: Does): WorkWindow[] =>
    Array.from({ length: (toMs - fromMs) / 10 }, (_, i) => {
      const ms = fromMs + 10 * i;
      return { fromMs: ms, toMs: ms + 10, work: does(ms).filter((w) => w.switches + w.cpuNs > 0) };
    });
  const switched = (switches: number, thread = 0): ThreadWork => ({ thread, switches, cpuNs: 0 });
  const computed = (cpuNs: number, thread = 0): ThreadWork => ({ thread, switches: 0, cpuNs });
  /** Each so many windows. */
  const eachTime = (ms: number, every: number, work: ThreadWork) => ms % every === 0 ? [work] : [];

  interface Exact {
    busy?: Does;
    idle?: Does;
    names?: string[];
    options?: Partial<WorkEndOptions>;
  }

  const usual: Does = () => [switched(10)];
  const endOf = ({ busy = usual, idle = () => [], names = ["a", "b"], options }: Exact = {}) =>
    new WorkEnd({
      idle: grid(0, START, idle),
      busy: grid(START, STOP, busy),
      ...{ names, fromMs: STOP, ...options },
    });

  /** When the work ended, and when that was known. */
  function ended(after: Does, exact: Exact = {}, untilMs = 10_000) {
    const end = endOf(exact);
    for (const window of grid(STOP, untilMs, after)) {
      end.push(window);
      if (end.state.quiet) return [end.state.endMs, window.toMs];
    }
    return [end.state.endMs, Infinity];
  }

  /** It works on for half a second, and then in some windows: so many switches in each. */
  const then = (switches: number, ...at: number[]): Does => (ms) =>
    ms < 3500 ? [switched(10)] : at.includes(ms) ? [switched(switches)] : [];
  const windows = (count: number, fromMs: number) =>
    Array.from({ length: count }, (_, i) => fromMs + 10 * i);

  test("a silence is five times as long as the gaps at work, and a quarter of a second", () => {
    const quiet = (busy: Does, options?: Partial<WorkEndOptions>) =>
      endOf(options === undefined ? { busy } : { busy, options }).quietMs;
    const seldom = (every: number): Does => (ms) => eachTime(ms, every, switched(10));
    assertEquals([quiet(usual), quiet(seldom(100)), quiet(seldom(500))], [250, 450, 2000]);
    assertEquals(quiet(usual, { shortestQuietMs: 300 }), 300);
    assertEquals(quiet(seldom(500), { longestQuietMs: 700 }), 700);
    assertEquals(quiet(usual, { longestQuietMs: 100 }), 100);
  });

  test("a thread's own gaps count, if it does some of the work, up to 200 ms", () => {
    /** One works all the time, with 970 switches in all; the other each so often. */
    const both = (every: number, work: ThreadWork) =>
      endOf({
        busy: (ms) => [
          ...[switched(ms < 1970 ? 10 : 0)],
          ...eachTime(ms, every, work),
        ],
      }).quietMs;
    // After the first one has ended, the gaps of all together are those of the other one.
    const hides = (work: ThreadWork, every = 100, names = ["a", "b"]) =>
      endOf({
        names,
        busy: (ms) => [{ ...switched(5), cpuNs: 1e6 }, ...eachTime(ms, every, work)],
      }).quietMs;
    assertEquals(both(100, switched(10, 1)), 450);
    // 1000 switches of the first one, and 20 times as many: 3 % of all are 31.
    assertEquals([hides(switched(2, 1)), hides(switched(1, 1))], [450, 250]);
    assertEquals(hides(switched(30, 1), 400), 1000);
    // One that computes has no gaps to speak of.
    assertEquals(hides(computed(1e8, 1)), 250);
    assertEquals(hides(switched(2, 1), 100, ["a", "GC Thread#0"]), 250);
  });

  test("it ends in the middle of the last window with work", () => {
    assertEquals(ended(() => []), [STOP, STOP + 250]);
    assertEquals(ended(then(0)), [3495, 3750]);
    assertEquals(ended((ms) => ms < 3500 ? [computed(1)] : []), [3495, 3750]);
  });

  test("what comes alone after 50 ms is no work, but the silence begins anew", () => {
    assertEquals(ended(then(10, 3540)), [3545, 3800]);
    assertEquals(ended(then(10, 3550)), [3495, 3810]);
    assertEquals(ended(then(10, 3550, 3620)), [3495, 3880]);
    // With three gaps as they are usual, if those are longer.
    const seldom: Exact = { busy: (ms) => eachTime(ms, 50, switched(10)) };
    assertEquals(ended((ms) => ms === STOP || ms === STOP + 120 ? [switched(10)] : [], seldom), [
      ...[STOP + 125, STOP + 380],
    ]);
    assertEquals(ended((ms) => ms === STOP || ms === STOP + 130 ? [switched(10)] : [], seldom), [
      ...[STOP + 5, STOP + 390],
    ]);
  });

  test("what comes three times is work, if it is a fifth of what it was", () => {
    // A switch each ms: 40 in 200 ms. The silence before them was 50 ms: five of those end the work.
    assertEquals(ended(then(14, 3550, 3620, 3690)), [3695, 3950]);
    assertEquals(ended(then(13, 3550, 3620, 3690)), [3495, 3750]);
    const nanoseconds = (each: number): Does => (ms) =>
      ms < 3500 ? [computed(1e6)] : [3550, 3620, 3690].includes(ms) ? [computed(each)] : [];
    const busy: Exact = { busy: () => [computed(1e6)] };
    assertEquals(ended(nanoseconds(1.4e6), busy)[0], 3695);
    assertEquals(ended(nanoseconds(1.3e6), busy)[0], 3495);
  });

  test("so is what fills ten windows", () => {
    assertEquals(ended(then(4, ...windows(10, 3600))), [3695, 4200]);
    assertEquals(ended(then(3, ...windows(10, 3600)))[0], 3495);
    assertEquals(ended(then(4, ...windows(9, 3600)))[0], 3495);
  });

  test("and five, if they are half as full as at work", () => {
    assertEquals(ended(then(5, ...windows(5, 3600))), [3645, 4150]);
    assertEquals(ended(then(4, ...windows(5, 3600))), [3495, 3900]);
    assertEquals(ended(then(5, ...windows(4, 3600))), [3495, 3890]);
    // Not of CPU time, as a collection has.
    const collects: Does = (ms) =>
      ms < 3500 || ms >= 3600 && ms < 3650 ? [{ thread: 0, switches: 0, cpuNs: 1e6 }] : [];
    assertEquals(ended(collects, { busy: () => [computed(1e6)] })[0], 3495);
  });

  test("a thread that housekeeps does no work", () => {
    const names = ["a", "G1 Conc#0"];
    const collects: Does = (ms) => [...then(0)(ms), switched(20, 1)];
    assertEquals(ended(collects, { names }), [3495, 3750]);
  });

  test("a background is no work, and twice as much in a window of twice the length neither", () => {
    const ticks: Does = () => [switched(2)];
    const more: Exact = { idle: ticks, busy: () => [switched(12)] };
    const after = (switches: number): Does => (ms) => [switched(ms < 3500 ? 12 : switches)];
    assertEquals(ended(after(2), more)[0], 3495);
    // One more is no work in a single window, but it is in the long run.
    assertEquals(ended(after(3), more, 5000), [4875, Infinity]);
    const end = endOf(more);
    end.push({ fromMs: STOP, toMs: STOP + 20, work: [switched(6)] });
    assertEquals(end.state.endMs, STOP);
    end.push({ fromMs: STOP + 20, toMs: STOP + 40, work: [switched(7)] });
    assertEquals(end.state.endMs, STOP + 30);
  });

  test("with too little work to compare with, all counts", () => {
    const short: Exact = { options: { busy: grid(START, START + 190, usual) } };
    assertEquals(endOf(short).background, undefined);
    assertEquals(ended(then(10), short), [3495, 3750]);
    const same: Does = () => [switched(2)];
    const background = (windows: number) =>
      endOf({ idle: same, options: { busy: grid(START, START + 10 * windows, same) } }).background;
    assertEquals([background(19) === undefined, background(20) === undefined], [true, false]);
  });
});
