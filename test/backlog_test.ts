/** Whether a reader keeps up, from samples of its backlog: simulated, so nothing here depends on chance. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals } from "#std/assert";
import { randomFrom } from "../bench/simulated.ts";
import { Backlog, type BacklogOptions, type Sample, whose } from "../src/measure/backlog.ts";

const RATE = 1e6;
const OPTIONS: BacklogOptions = {
  ...{ rate: RATE, messageSize: 100, tolerance: 0.005, leastSeconds: 1 },
  ...{ pauses: 8, messages: 20 },
};

/** Samples each 10 ms of a reader that drains `drains(time)` bytes a second; all that waits is its own. */
function* samples(
  drains: (time: number) => number,
  seconds: number,
  more: Partial<Sample> = {},
): Generator<Sample> {
  let drained = 0;
  for (let step = 0; step <= seconds * 1000; step++) {
    const time = step / 1000;
    const offered = RATE * time;
    drained = Math.min(offered, drained + drains(time) / 1000);
    if (step % 10 !== 0) continue;
    const backlog = offered - drained;
    yield { time, backlog, drained, waiting: backlog, late: 0, closed: false, ...more };
  }
}

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

  test("keeps no samples: memory does not grow with the trial", () => {
    const backlog = new Backlog(OPTIONS);
    for (const sample of samples(() => 2 * RATE, 100)) backlog.add(sample);
    assertEquals(backlog.verdict().verdict, "keeps-up");
    assert(JSON.stringify(backlog).length < 10_000);
  });
});
