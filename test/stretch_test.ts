/** The service rate of a reader that always has a backlog, from simulated samples. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals } from "#std/assert";
import type { Sample } from "../src/measure/backlog.ts";
import { Stretch, type StretchOptions } from "../src/measure/stretch.ts";
import { samplesOf } from "./samples.ts";

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
  const closes = (sample: Sample) => ({ closed: sample.backlog > 0, ...more(sample) });
  for (const sample of samplesOf(RATE, drains, seconds, closes)) {
    if (stretch.add(sample)) return { stretch, time: sample.time, ...stretch.result };
  }
  stretch.finish();
  return { stretch, time: seconds, ...stretch.result };
}

/** Samples each 1/128 s, so that times are exact, of a reader that is `rate * time - backlog(time)` far. */
function feed(
  seconds: number,
  backlog: (time: number) => number,
  options: Partial<StretchOptions> = {},
  more: (time: number, backlog: number) => Partial<Sample> = () => ({}),
) {
  const stretch = new Stretch({ ...OPTIONS, ...options });
  for (let i = 0; i <= 128 * seconds; i++) {
    const time = i / 128;
    const left = backlog(time);
    const sample = { time, backlog: left, drained: RATE * time - left, waiting: left, late: 0 };
    const over = stretch.add({ ...sample, closed: true, ...more(time, left) });
    if (over) return { stretch, time, ...stretch.result };
  }
  stretch.finish();
  return { stretch, time: seconds, ...stretch.result };
}

/** The first sample that counts. */
const BEGAN = 39 / 128;

describe("a stretch", () => {
  test("of a steady reader ends at the first look, with its rate", () => {
    const { estimate, time, caughtUp } = run(() => 0.9 * RATE);
    assertAlmostEquals(estimate!.mean, 0.9 * RATE, 0.002 * RATE);
    assert(estimate!.halfWidth < 0.005 * RATE);
    assertEquals([time, caughtUp], [4.3, false]);
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

  test("needs a backlog that is not all read before the next look", () => {
    for (
      const [options, least] of [
        [{ largestRead: 100_000 }, 150_000],
        [{}, 0.02 * RATE],
        [{ messageSize: 50_000 }, 100_000],
      ] as const
    ) {
      assert(feed(5, () => least, options).estimate !== undefined, `${least}`);
      assertEquals(feed(5, () => least - 1, options).estimate, undefined, `${least}`);
    }
  });

  test("is looked at after twice the time each, and at the end where that is much later", () => {
    const varies = (time: number) => 1e5 + 2e4 * Math.sin(9 * time);
    for (
      const [firstLook, lastLook, looks] of [
        [4, 16, [4, 8, 16]],
        [4, 20, [4, 8, 16]],
        [4, 21, [4, 8, 16, 21]],
        [4, 15.875, [4, 8, 16]],
        [4, 15.75, [4, 8, 15.75]],
        [6, 6, [6]],
      ] as const
    ) {
      const seen: number[] = [];
      const shares: number[] = [];
      const stretch = new Stretch({
        ...{ ...OPTIONS, firstLook, lastLook, halfWidth: 0 },
        onLook() {
          seen.push(now - BEGAN);
          const { halfWidth } = stretch.result.estimate!;
          const error = (share: number) => stretch.service.estimate(0.05 * share).halfWidth;
          const later = looks.slice(1).reduce<number>((sum, at) => sum + at, 0);
          shares.push(
            ...[1, 0.5, ...looks.slice(1).map((at) => 0.5 * at / later)].filter((share) =>
              error(share) === halfWidth
            ),
          );
        },
      });
      let now = 0;
      for (let i = 0; i < 128 * 40; i++) {
        now = i / 128;
        const backlog = varies(now);
        const sample = { time: now, backlog, drained: RATE * now - backlog, waiting: backlog };
        if (stretch.add({ ...sample, late: 0, closed: true })) break;
      }
      assertEquals(seen, [...looks]);
      // All looks together have the whole error.
      const total = shares.reduce((sum, share) => sum + share, 0);
      assertEquals(shares.length, looks.length);
      assertAlmostEquals(total, 1, 1e-9);
      assert(looks.length === 1 || shares[0] === 0.5, `${shares}`);
    }
  });

  test("is given up after 2 s without a backlog, and after twelve of the reader's pauses", () => {
    const none = (pause: number) => feed(20, () => 0, { pause }).time;
    assertEquals(none(0.01), 2 + 1 / 128);
    // 0.3 s, in which the backlog builds up, and 12 times 0.5 s.
    assertEquals(none(0.5), Math.ceil(6.3 * 128) / 128);
  });

  test("begins anew where most of the backlog was not the reader's for 0.3 s, or 1.5 pauses", () => {
    const silent = (gap: number, pause: number) => {
      const { time, estimate } = feed(20, () => 1e5, { pause }, (at) => ({
        waiting: at > 1 && at < 1 + gap ? 0 : 1e5,
      }));
      assertAlmostEquals(estimate!.seconds, 4, 0.06);
      return time;
    };
    const usual = BEGAN + 4;
    assertEquals(silent(38 / 128, 0.01), usual);
    // The first that was the reader's again begins another.
    assertEquals(silent(40 / 128, 0.01), 1 + 40 / 128 + 4);
    // At its end there is a sample of the reader's.
    assertEquals(silent(0.75 + 1 / 128, 0.5), usual);
    assertEquals(silent(0.75 + 2 / 128, 0.5), 1.75 + 2 / 128 + 4);
    // Before the first sample, it is as if one had been the reader's a second ago.
    const first = (at: number) =>
      feed(20, () => 1e5, { pause: 1 }, (time) => ({ waiting: time < at ? 0 : 1e5 })).time;
    assertEquals([first(0.5), first(0.75)], [usual, 0.75 + 4]);
    // The looks begin anew as well.
    const looks: number[] = [];
    let now = 0;
    feed(12, (time) => 1e5 + 2e4 * Math.sin(9 * time), {
      ...{ halfWidth: 0, pause: 0.5, onLook: () => looks.push(now) },
    }, (time, backlog) => {
      now = time;
      return { waiting: time > 5 && time < 6 ? 0 : backlog };
    });
    assertEquals(looks.slice(0, 2), [usual, 10]);
  });

  test("is not the reader's where most of the backlog is its own in a part of the samples only", () => {
    // Of each 0.3 s there is a sample that is the reader's: of eight, as many as that.
    const sometimes = (of: number) =>
      feed(20, (time) => 1e5 + 0.1 * RATE * time, {}, (time, backlog) => ({
        waiting: time * 128 % 8 < of ? backlog : 0,
      }));
    const path = sometimes(5);
    assertEquals([path.estimate, path.caughtUp, path.blame], [undefined, false, "path"]);
    assertEquals([path.stretch.drift, path.time], [undefined, BEGAN + 4]);
    assertAlmostEquals(sometimes(7).estimate!.mean, 0.9 * RATE, 0.01 * RATE);
  });

  test("tells a collapse after 2 s, and after eight of the reader's pauses", () => {
    const kept = 0.5 * RATE;
    const drains = (share: number, pause: number) =>
      feed(20, (time) => RATE * time - share * kept * time, { kept, pause, firstLook: 8 });
    const fast = drains(0.49, 0.01);
    assertEquals([fast.collapsed, fast.time], [true, 2 + 1 / 128]);
    const pausing = drains(0.49, 0.5);
    assertEquals([pausing.collapsed, pausing.time], [true, 4 + 1 / 128]);
    assertEquals(drains(0.5, 0.01).collapsed, false);
    // One that slows down after the first look becomes slower the longer it runs.
    const later = run((at) => at < 4.5 ? 0.9 * RATE : 0.01 * RATE, {
      options: { kept: RATE, halfWidth: 0 },
    });
    assertEquals(later.collapsed, false);
  });

  test("tells that it has stopped after 2 s, and after ten of the reader's pauses", () => {
    const stops = (pause: number, more: (time: number) => Partial<Sample> = () => ({})) =>
      feed(10, (time) => RATE * Math.max(time / 8, time - 0.875), { pause, kept: 0 }, more);
    const fast = stops(0.01);
    assertEquals([fast.stopped, fast.time], [true, 3 + 1 / 128]);
    assertEquals(stops(0.25).time, 3.5 + 1 / 128);
    assertEquals(stops(0.01, () => ({ closed: false })).stopped, false);
    const reads = (bytes: number) =>
      feed(10, (time) => RATE * time - (time < 1 ? 0 : bytes), { kept: 0 }).time;
    assertEquals([reads(0), reads(1)], [2 + 1 / 128, 3 + 1 / 128]);
  });

  test("says whose fault it is by what has grown, more than a pause may make it", () => {
    // 0.01 of the rate, and what it needs: 40,078 bytes until it is given up.
    const others = (grows: number, lateShare = 0) =>
      feed(3, (time) => 1e5 + grows * time / (2 + 1 / 128), {}, (_, backlog) => ({
        ...{ waiting: 0, late: 9e4 + lateShare * (backlog - 1e5), closed: false },
      }));
    const still = others(40_000);
    assertEquals([still.caughtUp, still.blame, still.time], [true, "reader", 2 + 1 / 128]);
    assertEquals(others(40_078.125).caughtUp, true);
    assertEquals([others(40_100).caughtUp, others(40_100).blame], [false, "path"]);
    assertEquals([others(50_000, 0.5).blame, others(50_000, 0.51).blame], ["path", "sender"]);
  });

  test("looks at what seems to change once more, however narrow the interval is", () => {
    // Its speed grows by that share of the rate each second.
    const rises = (share: number) => (time: number) => 6e5 - share * RATE * time * time / 2;
    const drift = (share: number, options: Partial<StretchOptions> = {}) =>
      feed(20, rises(share), { halfWidth: 0.005, error: 1.8, ...options });
    // 2 % in 4 s is a change, some less is none.
    const changes = drift(0.0048);
    assert(changes.stretch.drift !== undefined && changes.time === BEGAN + 8, `${changes.time}`);
    assertEquals(drift(0.0044).time, BEGAN + 4);
    // No width is asked for, and there is none.
    assertEquals(feed(20, () => 1e5, { halfWidth: 0 }).time, BEGAN + 4);
    // After another beginning, it takes two looks again.
    const again = feed(
      20,
      rises(0.0048),
      { halfWidth: 0.005, error: 1.8, pause: 0.5 },
      (time, backlog) => ({
        waiting: time > 5 && time < 6 ? 0 : backlog,
      }),
    );
    assert(again.stretch.drift !== undefined && again.time === 14, `${again.time}`);
    // 100 bytes a second, and 0.6 more in each.
    const slow = feed(20, (time) => RATE * time - 100 * time - 0.3 * time * time, {
      ...{ halfWidth: 0.005, error: 1.8, kept: 0 },
    });
    assertEquals([slow.stretch.drift === undefined, slow.time], [false, BEGAN + 8]);
    // Where the time is short, one look is all.
    const short = drift(0.0048, { lastLook: 4, error: 0.9 });
    assert(short.stretch.drift !== undefined && short.time === BEGAN + 4, `${short.time}`);
  });

  test("has drained as much as its last sample says", () => {
    assertEquals(new Stretch(OPTIONS).drained, 0);
    assertAlmostEquals(feed(2, () => 2e5).stretch.drained, 9e5, 1);
    assertEquals(feed(0, () => 0).stretch.drained, 0);
  });

  test("gives what it has at the end of the time, if that is half of the first look", () => {
    assert(feed(BEGAN + 2, () => 1e5).estimate !== undefined);
    const { stretch, estimate: none } = feed(BEGAN + 2 - 1 / 128, () => 1e5);
    assertEquals(none, undefined);
    const late = { time: 9, backlog: 1e5, drained: 8e6, waiting: 1e5, late: 0, closed: true };
    assertEquals(stretch.add(late), true);
    // Without any, whose fault that is.
    assertEquals(feed(1, () => 0).caughtUp, true);
    const path = feed(1, (time) => 2e5 * time, {}, () => ({ waiting: 0 }));
    assertEquals([path.estimate, path.caughtUp, path.blame], [undefined, false, "path"]);
    // What it has after a look, in any case.
    const varies = (time: number) => 1e5 + 2e4 * Math.sin(9 * time);
    const { estimate } = feed(BEGAN + 5, varies, { halfWidth: 0 });
    assertAlmostEquals(estimate!.seconds, 5, 0.06);
  });
});
