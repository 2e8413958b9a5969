/** Whether a reader keeps up, from samples of its backlog: simulated, so nothing here depends on chance. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals } from "#std/assert";
import { randomFrom } from "../bench/random.ts";
import { Backlog, type BacklogOptions, type Sample, whose } from "../src/measure/backlog.ts";
import { samplesOf } from "./samples.ts";

const RATE = 1e6;
const OPTIONS: BacklogOptions = {
  ...{ rate: RATE, messageSize: 100, tolerance: 0.005, leastSeconds: 1 },
  ...{ pauses: 8, messages: 20 },
};

/** See `samplesOf`. */
const samples = (drains: (time: number) => number, seconds: number, more: Partial<Sample> = {}) =>
  samplesOf(RATE, drains, seconds, () => more);

/** The first verdict, and when it was clear. */
function judge(all: Iterable<Sample>, options: Partial<BacklogOptions> = {}) {
  const backlog = new Backlog({ ...OPTIONS, ...options });
  for (const sample of all) {
    backlog.add(sample);
    const found = backlog.verdict();
    if (found.verdict !== undefined) return { ...found, seconds: backlog.seconds, backlog };
  }
  return { ...backlog.verdict(), seconds: backlog.seconds, backlog };
}

/** It stands still for 50 ms of each 500 ms. */
const pausing = (limit: number) => (time: number) =>
  time % 0.5 < 0.05 ? 0 : limit * RATE * 0.5 / 0.45;

describe("the verdict", () => {
  test("on steady readers, close to their limit", () => {
    assertEquals(judge(samples(() => 1.001 * RATE, 10)).verdict, "keeps-up");
    const behind = judge(samples(() => 0.98 * RATE, 10));
    assertEquals([behind.verdict, behind.blame], ["falls-behind", "reader"]);
    assertAlmostEquals(behind.slope, 0.02 * RATE, 0.003 * RATE);
  });

  test("on a reader that pauses: its backlog returns to the floor, or does not", () => {
    assertEquals(judge(samples(pausing(1.01), 10)).verdict, "keeps-up");
    assertEquals(judge(samples(pausing(0.97), 10)).verdict, "falls-behind");
  });

  test("waits for several pauses, and for so many messages", () => {
    const { seconds, backlog } = judge(samples(pausing(1.01), 10), { leastSeconds: 0.1 });
    assertAlmostEquals(backlog.pause, 0.05, 0.011);
    assert(seconds >= 8 * backlog.pause, `${seconds} s`);
    const large = judge(samples(() => 2 * RATE, 10), { messageSize: 100_000 });
    assert(large.seconds >= 2, `20 messages of 100 kB take 2 s, not ${large.seconds}`);
  });

  test("is none before the reader has read twice", () => {
    const once = judge(samples((time) => time > 0.011 && time < 0.015 ? RATE : 0, 5));
    assertEquals([once.verdict, once.backlog.readsSeldom], [undefined, true]);
  });

  test("on one that stops reading: once its window is closed, and after 2 s", () => {
    const stops = (time: number) => time < 1.5 ? RATE : 0;
    const closed = judge(samples(stops, 6, { closed: true }), { leastSeconds: 5 });
    assertEquals([closed.verdict, closed.stopped], ["falls-behind", true]);
    assert(closed.seconds < 4 && closed.backlog.pause < 0.1, `${closed.seconds} s`);
    // It may wait for more (SO_RCVLOWAT).
    const open = judge(samples(stops, 6), { leastSeconds: 5 });
    assertEquals([open.verdict, open.stopped], [undefined, false]);
  });

  test("a time without anything to read is no pause", () => {
    const { backlog } = judge(
      Array.from({ length: 500 }, (_, i): Sample => {
        // A message each second, read at once.
        const offered = 100 * Math.ceil(i / 100);
        const drained = i % 100 === 1 ? offered - 100 : offered;
        return {
          ...{ time: i / 100, backlog: offered - drained, drained, waiting: 0, late: 0 },
          closed: false,
        };
      }),
      { rate: 100, leastSeconds: 4 },
    );
    assert(backlog.pause < 0.03, `${backlog.pause} s`);
  });

  test("says whose fault it is", () => {
    const half = { backlog: 100, drained: 0, time: 0, closed: false };
    assertEquals(whose({ ...half, waiting: 60, late: 40 }), "reader");
    assertEquals(whose({ ...half, waiting: 10, late: 60 }), "sender");
    assertEquals(whose({ ...half, waiting: 10, late: 10 }), "path");
    const slow = () => 0.9 * RATE;
    const late = [...samples(slow, 4)].map((each) => ({
      ...{ ...each, waiting: 0, late: each.backlog },
    }));
    assertEquals(judge(late).blame, "sender");
    assertEquals(judge(samples(slow, 4, { waiting: 0 })).blame, "path");
  });

  test("holds for readers whose speed varies by chance", () => {
    for (const [share, expected] of [[1.06, "keeps-up"], [0.9, "falls-behind"]] as const) {
      let right = 0;
      for (let seed = 1; seed <= 50; seed++) {
        const random = randomFrom(seed);
        let speed = 1;
        const noisy = () => share * RATE * (speed = 0.98 * speed + 0.02 * (0.5 + random()));
        if (judge(samples(noisy, 10)).verdict === expected) right++;
      }
      assert(right >= 49, `${right} of 50 ${expected}`);
    }
  });
});

/** One sample each 1/128 s, so that times are exact; 1000 bytes come between two, and are read. */
const R = 128_000;

interface Exact {
  backlog?(time: number): number;
  drained?(time: number): number;
  more?(time: number): Partial<Sample>;
  options?: Partial<BacklogOptions>;
}

/** What is known after so many seconds. 1280 bytes of growth are tolerated after 1.5 s, and as many unseen. */
function after(seconds: number, { backlog, drained, more, options }: Exact = {}) {
  const tried = new Backlog({
    ...{ rate: R, messageSize: 280, tolerance: 0.01, leastSeconds: 1.5, pauses: 1, messages: 1 },
    ...options,
  });
  for (let i = 0; i <= 128 * seconds; i++) {
    const time = i / 128;
    const left = backlog?.(time) ?? 0;
    const sample = { time, backlog: left, drained: drained?.(time) ?? R * time, waiting: left };
    tried.add({ ...sample, late: 0, closed: false, ...more?.(time) });
  }
  return { ...tried.verdict(), backlog: tried };
}

describe("the verdict, exactly", () => {
  const STEP = 1 / 128;
  /** In the first, the middle and the last third. */
  const thirds = (early: number, middle: number, late: number): Exact => ({
    backlog: (time) => time < 0.48 ? early : time < 1.04 ? middle : late,
  });

  test("is clear once a trial is long enough", () => {
    const isClear = (seconds: number, more: Exact) =>
      assertEquals(
        [seconds - STEP, seconds].map((time) => after(time, more).verdict),
        [undefined, "keeps-up"],
      );
    isClear(1.5, {});
    isClear(2, { options: { leastSeconds: 2 } });
    // It reads each quarter of a second.
    const seldom = (time: number) => R * Math.floor(4 * time) / 4;
    const drained = { drained: seldom, backlog: (time: number) => R * time - seldom(time) };
    isClear(2, { ...drained, options: { pauses: 8 } });
    isClear(2, { options: { messageSize: 12_800, messages: 20, tolerance: 0.5 } });
    // It reads for the second time then.
    isClear(1.75, { drained: (time) => Number(time > 0.25) + Number(time >= 1.75) });
    // What is unseen is more than what is tolerated: three times as long.
    isClear(4.5, { options: { tolerance: 0.001 } });
    isClear(1.5, { options: { messageSize: 280, leastSeconds: 1 } });
  });

  test("is from the growth of the lowest backlog", () => {
    const keeps = after(1.5, thirds(100, 2660, 2660));
    assertEquals([keeps.verdict, keeps.slope, keeps.blame], ["keeps-up", 2560, "reader"]);
    assertEquals(after(1.5, thirds(100, 101, 2661)).verdict, undefined);
    assertEquals(after(1.5, thirds(100, 101, 5220)).verdict, undefined);
    const behind = after(1.5, thirds(100, 101, 5221));
    assertEquals([behind.verdict, behind.slope, behind.stopped], ["falls-behind", 5121, false]);
    // It has come back to the floor, or does not grow any more.
    assertEquals(after(1.5, thirds(100, 100, 5221)).verdict, undefined);
    assertEquals(after(1.5, thirds(100, 5221, 5221)).verdict, undefined);
    assertEquals(after(1.5, thirds(5221, 101, 100)).verdict, "keeps-up");
    assertEquals(after(1.5 - STEP, thirds(0, 0, 2000)).slope, 2000 / (2 / 3 * (1.5 - STEP)));
  });

  test("is from thirds of 24 to 48 parts", () => {
    // At 0.96 s parts of 20 ms become parts of 40 ms: the first third then ends at 0.32 s, not at 0.34 s.
    const dips = (at: number) => ({
      backlog: (time: number) => Math.abs(time - at) < 0.01 ? 0 : 1000,
    });
    assertEquals(after(1, dips(0.335)).slope, 0);
    assertAlmostEquals(after(1, dips(0.305)).slope, 1500, 1e-9);
    // The last third begins at 0.72 s.
    assertAlmostEquals(after(1, dips(0.75)).slope, -1500, 1e-9);
    assertEquals(after(1, dips(0.7)).slope, 0);
    // The first part counts as well, and all of what became one.
    assertAlmostEquals(after(1, dips(0.005)).slope, 1500, 1e-9);
    // Until then, of 47 parts, it ends at 0.3 s.
    assertAlmostEquals(after(0.9375, dips(0.29)).slope, 1600, 1e-9);
    assertEquals(after(0.9375, dips(0.315)).slope, 0);
    // At 0.96 s itself, the last third begins at 0.68 s.
    const exact = new Backlog(OPTIONS);
    for (let i = 0; i <= 96; i++) {
      const sample = { time: i / 100, backlog: i === 67 ? 0 : 1000, drained: i, waiting: 0 };
      exact.add({ ...sample, late: 0, closed: false });
    }
    assertEquals(exact.verdict().slope, 0);
    // A fifth part is not enough, a sixth one is.
    assertEquals(after(12 / 128, { backlog: (time) => time < 0.02 ? 0 : 1000 }).slope, 0);
    assert(after(13 / 128, { backlog: (time) => time < 0.04 ? 0 : 1000 }).slope > 0);
  });

  test("is none while a third has no sample", () => {
    const tried = new Backlog({ ...OPTIONS, leastSeconds: 0.1, pauses: 0, tolerance: 10 });
    const add = (time: number) =>
      tried.add({ time, backlog: 0, drained: RATE * time, waiting: 0, late: 0, closed: false });
    for (const time of [0, 0.01, 0.93]) add(time);
    assertEquals(tried.verdict().verdict, undefined);
    // Parts without a sample are left out where two become one.
    for (const time of [0.5, 1.2, 1.93, 2.5, 3.9]) add(time);
    assertEquals(tried.verdict().verdict, "keeps-up");
  });

  test("blames whose backlog it was in most samples of the last third", () => {
    // Of the 59 samples from 1.04 s on.
    const blame = (sender: number, path: number, seconds = 1.5) =>
      after(seconds, {
        ...{ ...thirds(0, 1, 1e4), options: { leastSeconds: 1, tolerance: 0.02 } },
        more: (time) => {
          const at = Math.round(128 * time) - 134;
          if (at < 0 || at >= sender + path) return {};
          return at < sender ? { waiting: 0, late: 1e4 } : { waiting: 0 };
        },
      }).blame;
    assertEquals([blame(0, 29), blame(29, 0), blame(14, 15)], ["reader", "reader", "reader"]);
    assertEquals([blame(0, 30), blame(30, 0)], ["path", "sender"]);
    assertEquals([blame(15, 15), blame(14, 16)], ["sender", "path"]);
    // Of 58: half of them are enough.
    assertEquals([blame(0, 28, 1.5 - STEP), blame(0, 29, 1.5 - STEP)], ["reader", "path"]);
    const even = { time: 0, drained: 0, closed: false };
    assertEquals(whose({ ...even, backlog: 100, waiting: 50, late: 50 }), "reader");
    assertEquals(whose({ ...even, backlog: 100, waiting: 50, late: 0 }), "reader");
    assertEquals(whose({ ...even, backlog: 100, waiting: 0, late: 50 }), "sender");
  });

  test("has stopped after 2 s of silence, and ten pauses", () => {
    const stops = (pause: number, seconds: number, closed = true) =>
      after(seconds, {
        backlog: (time) => 1 + R * time,
        drained: (time) => R * Math.floor(Math.min(time, 1) / pause) * pause,
        more: () => ({ closed }),
      });
    for (const [pause, silence] of [[STEP, 2], [0.25, 2.5]] as const) {
      const not = stops(pause, 1 + silence);
      assertEquals([not.stopped, not.backlog.pause], [false, silence]);
      const stopped = stops(pause, 1 + silence + STEP);
      assertEquals([stopped.stopped, stopped.verdict], [true, "falls-behind"]);
      // While it reads no more, that is no pause.
      assertEquals(stopped.backlog.pause, pause);
      assertEquals(stops(pause, 1 + silence + STEP, false).stopped, false);
    }
  });

  test("comes with the longest pause and the largest read", () => {
    const reads = [0, 10, 10, 25, 25, 25, 30];
    const { backlog } = after(6 / 128, {
      backlog: () => 1,
      drained: (time) => reads[Math.round(128 * time)]!,
    });
    const { pause, largestRead, seconds, drained, readsSeldom } = backlog;
    const found = [pause, largestRead, seconds, drained, readsSeldom];
    assertEquals(found, [3 / 128, 15, 6 / 128, 30, false]);
    const never = after(1, { backlog: () => 1, drained: () => 0 }).backlog;
    assertEquals([never.pause, never.readsSeldom], [1, true]);
    const twice = after(1, { backlog: () => 1, drained: (time) => Math.floor(2 * time) }).backlog;
    assertEquals(twice.readsSeldom, false);
    const none = new Backlog(OPTIONS);
    assertEquals([none.seconds, none.drained, none.pause, none.hasStopped], [0, 0, 0, false]);
    assertEquals(none.verdict().verdict, undefined);
    // Nothing was left to read until then.
    const idle = after(6 / 128, { backlog: (time) => time < 4 / 128 ? 0 : 1, drained: () => 0 });
    assertEquals(idle.backlog.pause, 3 / 128);
  });
});
