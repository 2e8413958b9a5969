/** The service rate of a reader that always has a backlog, from simulated samples. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals } from "#std/assert";
import type { Sample } from "../src/measure/backlog.ts";
import { ServiceRate } from "../src/measure/service.ts";
import { studentT } from "../src/measure/statistics.ts";
import { Stretch, type StretchOptions } from "../src/measure/stretch.ts";

const RATE = 1e6;
const OPTIONS: StretchOptions = {
  ...{ rate: RATE, messageSize: 100, error: 0.05, halfWidth: 0.005, firstLook: 4, lastLook: 16 },
  ...{ largestRead: 1000, pause: 0.01, kept: 0.5 * RATE },
};

/** Runs it with a reader that drains `drains(time)` bytes a second; returns when it was over. */
function run(
  drains: (time: number) => number,
  {
    seconds = 30,
    options = {},
    more = () => ({}),
  }: {
    seconds?: number;
    options?: Partial<StretchOptions>;
    more?: (sample: Sample) => Partial<Sample>;
  } = {},
) {
  const stretch = new Stretch({ ...OPTIONS, ...options });
  let drained = 0;
  for (let step = 0; step <= seconds * 1000; step++) {
    const time = step / 1000;
    const offered = RATE * time;
    drained = Math.min(offered, drained + drains(time) / 1000);
    if (step % 10 !== 0) continue;
    const backlog = offered - drained;
    const sample = { time, backlog, drained, waiting: backlog, late: 0, closed: backlog > 0 };
    if (stretch.add({ ...sample, ...more(sample) })) return { stretch, time, ...stretch.result };
  }
  stretch.finish();
  return { stretch, time: seconds, ...stretch.result };
}

describe("a stretch", () => {
  test("of a steady reader ends at the first look, with its rate", () => {
    const { estimate, time } = run(() => 0.9 * RATE);
    assertAlmostEquals(estimate!.mean, 0.9 * RATE, 0.002 * RATE);
    assert(estimate!.halfWidth < 0.005 * RATE && time < 5, `${time} s`);
  });

  test("of one that varies goes on to a later look; its interval holds the mean", () => {
    const varies = (time: number) => RATE * (0.85 + 0.05 * Math.sin(2 * Math.PI * time / 0.73));
    const { estimate, time } = run(varies, { options: { halfWidth: 0.001 } });
    assert(time > 8, `${time} s`);
    assert(Math.abs(estimate!.mean - 0.85 * RATE) <= estimate!.halfWidth);
  });

  test("of one that catches up says nothing of its rate but that", () => {
    const { estimate, caughtUp, time } = run(() => 1.2 * RATE);
    assertEquals([estimate, caughtUp], [undefined, true]);
    assert(time < 3, `${time} s`);
  });

  test("is over at once where it drains less than half of what it had kept up with", () => {
    const { estimate, collapsed, time } = run(() => 0.2 * RATE);
    assertEquals([estimate, collapsed], [undefined, true]);
    assert(time < 3, `${time} s`);
  });

  test("is over where it has stopped reading", () => {
    const { stopped, time } = run((at) => at < 1 ? 0.9 * RATE : 0, { options: { kept: 0 } });
    assert(stopped && time < 4, `${time} s`);
  });

  test("tells of a speed that changes the longer it runs", () => {
    const { stretch, time } = run((at) => RATE * 0.9 / (1 + 0.05 * at));
    const { first, last } = stretch.drift!;
    assert(last < 0.9 * first && time < 10, `${first} ${last} ${time} s`);
    assertEquals(run(() => 0.9 * RATE).stretch.drift, undefined);
  });

  test("begins anew where the reader took all that there was", () => {
    // It is fast for a moment at 3 s: what it drained before says nothing of a backlogged reader.
    const { estimate, time } = run((at) => at > 3 && at < 3.5 ? 3 * RATE : 0.9 * RATE);
    assert(estimate === undefined || time > 7.5, `${time} s`);
  });

  test("says who kept it from a backlog at the reader: our sender, or the path", () => {
    const late = run(() => 0.8 * RATE, {
      more: ({ backlog }) => ({ waiting: 0, late: backlog, closed: false }),
    });
    assertEquals([late.estimate, late.caughtUp, late.blame], [undefined, false, "sender"]);
    const path = run(() => 0.8 * RATE, { more: () => ({ waiting: 0, closed: false }) });
    assertEquals([path.estimate, path.caughtUp, path.blame], [undefined, false, "path"]);
  });

  test("that must end before its look gives what it has, if that is half of it", () => {
    assertEquals(run(() => 0.9 * RATE, { seconds: 1.5 }).estimate, undefined);
    const { estimate } = run(() => 0.9 * RATE, { seconds: 3 });
    assertAlmostEquals(estimate!.mean, 0.9 * RATE, 0.002 * RATE);
  });
});

describe("the service rate", () => {
  test("of a reader that reads seldom has not half a read more or less in it", () => {
    const service = new ServiceRate();
    for (let i = 0; i <= 1600; i++) service.add(i / 100, Math.floor((i + 13) / 40) * 40_000);
    const { mean, halfWidth } = service.estimate(0.05);
    assert(Math.abs(mean / 100_000 - 1) < 1e-4 && halfWidth < 1, `${mean} ${halfWidth}`);
  });

  test("without a few batches, nothing is known", () => {
    const service = new ServiceRate();
    for (let i = 0; i < 20; i++) service.add(i / 100, i);
    assertEquals(service.estimate(0.05).halfWidth, Infinity);
  });
});

test("Student's t, two-sided", () => {
  // From the tables in NIST's Engineering Statistics Handbook, 1.3.6.7.2.
  for (
    const [probability, freedom, value] of [
      ...[[0.05, 1, 12.706], [0.05, 2, 4.303], [0.05, 3, 3.182], [0.05, 10, 2.228]],
      ...[[0.05, 100, 1.984], [0.01, 5, 4.032], [0.002, 7, 4.785], [0.05, Infinity, 1.96]],
    ] as [number, number, number][]
  ) {
    const found = studentT(probability, freedom);
    assert(Math.abs(found / value - 1) < 5e-4, `t(${freedom}) is ${found}, not ${value}`);
  }
});
