/** What a thread does without work, from windows that are made up. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals } from "#std/assert";
import {
  hasSettled,
  isHousekeeping,
  mayBeTimer,
  type Series,
  seriesByThread,
  ThreadBackground,
  type WorkWindow,
} from "../src/measure/thread_background.ts";

/** Windows of one thread, of which some are not empty. */
function seriesOf(length: number, done: Record<number, [cpuNs: number, switches: number]>): Series {
  const at = (i: number, what: 0 | 1) => done[i]?.[what] ?? 0;
  return {
    cpuNs: Array.from({ length }, (_, i) => at(i, 0)),
    switches: Array.from({ length }, (_, i) => at(i, 1)),
  };
}

const windowsOf = (series: readonly Series[]): WorkWindow[] =>
  series[0]!.cpuNs.map((_, i) => ({
    ...{ fromMs: 10 * i, toMs: 10 * i + 10 },
    work: series.flatMap(({ cpuNs, switches }, thread) =>
      cpuNs[i] === 0 && switches[i] === 0
        ? []
        : { thread, cpuNs: cpuNs[i]!, switches: switches[i]! }
    ),
  }));

/** The same in each window. */
const steady = (length: number, cpuNs: number, switches: number): Series =>
  seriesOf(length, Object.fromEntries(Array.from({ length }, (_, i) => [i, [cpuNs, switches]])));

/** It wakes up in those windows. */
const wakes = (length: number, at: readonly number[], cpuNs = at.map(() => 100)) =>
  seriesOf(length, Object.fromEntries(at.map((i, n) => [i, [cpuNs[n]!, 1]])));

const background = (series: Series) => new ThreadBackground(series, series.cpuNs.length);

test("windows are listed by thread", () => {
  const series = [seriesOf(3, { 1: [5, 1] }), seriesOf(3, { 0: [7, 0], 2: [0, 2] })];
  assertEquals(seriesByThread(windowsOf(series)).get(0), series[0]);
  assertEquals(seriesByThread(windowsOf(series)).get(1), series[1]);
  assertEquals(seriesByThread(windowsOf([seriesOf(3, {})])).size, 0);
});

test("the threads in which a runtime keeps house are known by their names", () => {
  for (const name of ["C2 CompilerThre", "G1 Conc#0", "JITWorker", "DelayedTaskSche", "erts_aux"]) {
    assert(isHousekeeping(name), name);
  }
  for (const name of ["worker", "main", "my G1 thread", ""]) assert(!isHousekeeping(name), name);
});

describe("idle windows have settled", () => {
  const settled = (done: Record<number, [number, number]>, length = 50) => {
    const usual = steady(length, 1e6, 10);
    for (const [i, [cpuNs, switches]] of Object.entries(done)) {
      usual.cpuNs[Number(i)]! += cpuNs;
      usual.switches[Number(i)]! += switches;
    }
    return hasSettled(windowsOf([usual]));
  };

  test("if no fifth of them has three times the usual, and some more", () => {
    // 10 ms in each fifth: 30 ms and 3 ms more.
    assertEquals([settled({ 15: [23e6, 0] }), settled({ 15: [23e6 + 1, 0] })], [true, false]);
    // 100 switches: 300, and 15 more.
    assertEquals([settled({ 15: [0, 215] }), settled({ 15: [0, 216] })], [true, false]);
    // Two fifths.
    assertEquals(settled({ 9: [23e6, 0], 10: [23e6, 0] }), true);
    assertEquals(settled({ 8: [12e6, 0], 9: [12e6, 0] }), false);
  });

  test("the last one with what is left over; all threads together", () => {
    // 12 ms without, and 30 and 3 more.
    assertEquals([settled({ 40: [21e6, 0] }, 52), settled({ 51: [21e6 + 1, 0] }, 52)], [
      true,
      false,
    ]);
    const two = windowsOf([seriesOf(50, { 3: [2e6, 0] }), seriesOf(50, { 4: [1.1e6, 0] })]);
    assertEquals(hasSettled(two), false);
    assertEquals(hasSettled(two.slice(0, 4)), true);
    assertEquals(hasSettled([]), true);
    const three = (ns: number) =>
      hasSettled(windowsOf([seriesOf(3, { 0: [ns, 0], 1: [4e6, 0], 2: [1e6, 0] })]));
    assertEquals([three(6e6), three(6e6 + 1)], [true, false]);
  });
});

describe("a timer", () => {
  const timer = (series: Series) => background(series).timer;

  test("wakes up at even distances, three times at least, and sleeps in between", () => {
    assertEquals(timer(wakes(60, [0, 10, 20, 30, 40])), { cpuNs: 100, switches: 1 });
    assertEquals(timer(wakes(60, [0, 6, 12])), { cpuNs: 100, switches: 1 });
    assertEquals(timer(wakes(60, [0, 5, 10, 15, 20])), undefined);
    assertEquals(timer(wakes(60, [0, 10])), undefined);
    assertEquals(timer(wakes(60, [3, 13, 28]))?.cpuNs, 100);
    assertEquals(timer(wakes(60, [3, 13, 29])), undefined);
    // Of four gaps or more, the shortest and the longest do not count.
    assertEquals(timer(wakes(60, [0, 10, 20, 30, 56]))?.cpuNs, 100);
    assertEquals(timer(wakes(60, [0, 10, 20, 46])), undefined);
  });

  test("does about the same each time", () => {
    assertEquals(timer(wakes(60, [0, 10, 20], [100, 400, 100]))?.cpuNs, 400);
    assertEquals(timer(wakes(60, [0, 10, 20], [100, 401, 100])), undefined);
    // In all windows of one time.
    const twice = [0, 1, 10, 11, 20, 21];
    assertEquals(timer(wakes(60, twice, [50, 50, 200, 200, 50, 50]))?.cpuNs, 200);
    assertEquals(timer(wakes(60, twice, [50, 50, 200, 201, 50, 50])), undefined);
    // The longest of four or more is left out.
    assertEquals(timer(wakes(60, [0, 10, 20, 30], [100, 110, 900, 120]))?.cpuNs, 120);
    const most = seriesOf(60, { 0: [100, 1], 10: [100, 3], 20: [100, 2] });
    assertEquals(timer(most)!.switches, 3);
    assertEquals(background(most).ceiling(1), { length: 1, cpuNs: 100_200, switches: 4 });
  });

  test("may be one, if it did something in the later half and is not known to be one", () => {
    const may = (at: readonly number[]) => mayBeTimer(windowsOf([wakes(60, at)]));
    assertEquals([may([30]), may([29]), may([10, 40])], [true, false, true]);
    assertEquals([may([20, 40, 59]), may([0, 10, 20, 30, 40, 50])], [false, false]);
    assertEquals(mayBeTimer(windowsOf([steady(60, 100, 1)])), false);
    assertEquals(mayBeTimer(windowsOf([steady(60, 100, 1), wakes(60, [50])])), true);
  });
});

describe("a background", () => {
  test("is silent if it shows in no more than two fifths of the time", () => {
    assertEquals(background(wakes(50, [0, 1, 2, 12, 13])).silent, true);
    assertEquals(background(wakes(50, [0, 1, 2, 12, 13, 44])).silent, false);
    // Without CPU time, too.
    const switches = seriesOf(50, { 0: [0, 1], 1: [0, 1], 12: [0, 1], 13: [0, 1], 44: [0, 1] });
    assertEquals(background(switches).silent, false);
    const none = new ThreadBackground(undefined, 0);
    assertEquals([none.silent, none.cpuNs, none.switches, none.timer], [true, 0, 0, undefined]);
    assertEquals(none.ceiling(5), { length: 5, cpuNs: 0, switches: 0 });
    const { cpuNs, switches: often } = background(seriesOf(50, { 0: [100, 4], 1: [50, 1] }));
    assertEquals([cpuNs, often], [3, 0.1]);
  });

  test("has a ceiling: the most, some more, and without the outliers of single windows", () => {
    const idle = steady(100, 1e6, 20);
    [9e6, 8e6, 7e6].forEach((ns, i) => idle.cpuNs[10 * i] = ns);
    [90, 80, 40].forEach((switches, i) => idle.switches[50 + 10 * i] = switches);
    const most = background(idle);
    assertEquals(most.ceiling(1), { length: 1, cpuNs: 1.5 * 7e6 + 1e5, switches: 46 });
    // The largest sum of four neighbours: 9 + 3 ms, and 90 + 60 switches.
    const four = { length: 4, cpuNs: 1.5 * 12e6 + 2e5, switches: 150 + 23 };
    assertEquals(most.ceiling(4), four);
    assertEquals(background(steady(100, 0, 1)).ceiling(1).switches, 2);
    // More neighbours than there are.
    assertEquals(most.ceiling(101), { length: 101, cpuNs: 1e5 * Math.sqrt(101), switches: 1 });
  });

  test("of none is told from work by three windows", () => {
    const none = new ThreadBackground(undefined, 100);
    const ceiling = { length: 1, cpuNs: 0, switches: 0 };
    assertEquals(none.tellApart(wakes(50, [1, 2])), { ceiling, worked: false });
    assertEquals(none.tellApart(wakes(50, [1, 2, 40])), { ceiling, worked: true });
    const both = seriesOf(50, { 1: [5, 0], 2: [0, 1], 3: [5, 0] });
    assertEquals(none.tellApart(both), { ceiling, worked: true });
    const timer = background(wakes(60, [0, 10, 20, 30]));
    const same = seriesOf(50, { 1: [100_200, 2], 2: [100_200, 2], 3: [100_200, 2] });
    assertEquals(timer.tellApart(same).worked, false);
    const more = seriesOf(50, { 1: [100_201, 2], 2: [0, 3], 3: [100_201, 2] });
    assertEquals(timer.tellApart(more).worked, true);
  });

  test("is told from work by sums of as few windows as it takes", () => {
    // Up to 2 ms and 20 switches in a window, which is 3.1 ms and 23 switches.
    const idle = background(steady(100, 2e6, 20));
    const scale = (busy: Series) => idle.tellApart(busy).ceiling?.length;
    const mixed = (above: number, [cpuNs, switches]: [number, number], length = 100) => {
      const busy = steady(length, 0, 0);
      for (let i = 0; i < above; i++) [busy.cpuNs[i], busy.switches[i]] = [cpuNs, switches];
      return busy;
    };
    assertEquals([scale(mixed(80, [0, 24])), scale(mixed(80, [3.1e6 + 1, 0]))], [1, 1]);
    assert(scale(mixed(79, [0, 24])) !== 1 && scale(mixed(100, [3.1e6, 23])) !== 1);
    // Each other window: two of them have 80 switches, ten at least 400.
    const other = steady(100, 0, 0);
    for (let i = 0; i < 100; i += 2) other.switches[i] = 50;
    assertEquals(scale(other), 2);
    // Each fiftieth.
    const seldom = steady(100, 0, 0);
    seldom.switches[49] = seldom.switches[99] = 1200;
    assertEquals(scale(seldom), 50);
    assertEquals(idle.tellApart(mixed(99, [0, 1200])).ceiling!.length, 1);
    // Twice as many windows are needed, of either.
    const short = steady(99, 0, 0);
    short.switches[49] = 1200;
    assertEquals(scale(short), undefined);
    assertEquals(background(steady(99, 2e6, 20)).tellApart(seldom).ceiling, undefined);
    assertEquals(scale(steady(100, 2e6, 20)), undefined);
  });

  test("says whether there was work at all: more than a quarter more switches, or half more time", () => {
    const idle = background(steady(100, 1e6, 20));
    const worked = (cpuNs: number, switches: number) =>
      idle.tellApart(steady(100, cpuNs, switches)).worked;
    assertEquals([worked(0, 25.02), worked(0, 25.04)], [false, true]);
    assertEquals([worked(1.51e6, 0), worked(1.51e6 + 1, 0)], [false, true]);
    assertEquals(idle.tellApart({ cpuNs: [], switches: [] }), {
      ceiling: undefined,
      worked: false,
    });
  });

  test("is exceeded by a fifth more switches, or twice the time, and some more", () => {
    const idle = background(steady(100, 1e6, 20));
    // In ten windows: 200 switches, and 10 ms.
    assertEquals([idle.exceeds(0, 243, 10), idle.exceeds(0, 244, 10)], [false, true]);
    assertEquals([idle.exceeds(22e6, 0, 10), idle.exceeds(22e6 + 1, 0, 10)], [false, true]);
    // More than half of the idle time is taken from half of it.
    assertEquals([idle.exceeds(0, 4803, 200), idle.exceeds(0, 4804, 200)], [false, true]);
    assertEquals([idle.exceeds(402e6, 0, 200), idle.exceeds(402e6 + 1, 0, 200)], [false, true]);
    const few = new ThreadBackground(steady(1, 1e6, 20), 1);
    assertEquals([few.exceeds(0, 27, 1), few.exceeds(0, 28, 1)], [false, true]);
  });

  test("is described by its time, or by how often it wakes up", () => {
    const described = (cpuNs: number, switches: number) =>
      background(steady(100, cpuNs, switches)).describe(10);
    assertEquals(described(1e6, 2), "wakes up 200 times a second");
    assertEquals(described(1.1e6, 2), "uses 11 % of a core");
    assertAlmostEquals(background(steady(7, 3, 5)).cpuNs, 3);
  });
});
