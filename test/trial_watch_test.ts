/** Where a reader's backlog is, from readings that are made up. */
import { describe, test } from "node:test";
import { assertAlmostEquals, assertEquals } from "#std/assert";
import type { Closed } from "../src/net/net.ts";
import { TrialWatch } from "../src/measure/trial_watch.ts";
import { type Made, MadeReader, MESSAGE_SIZE } from "./made_reader.ts";

const RATE = 100_000;

/** The samples of a trial: what has changed by each. */
function watched(changes: readonly Partial<Made>[], { longest = 10, full = false } = {}) {
  const made = new MadeReader();
  const watch = new TrialWatch(made.reader, RATE, longest, full);
  const samples = changes.map((change) => {
    Object.assign(made.made, change);
    return watch.sample();
  });
  return { made, watch, samples, last: samples.at(-1)! };
}

/** Times of samples in s, and what was drained by then; each has some backlog. */
const reads = (series: readonly [seconds: number, drained: number][]) =>
  series.map(([seconds, drained]) => ({
    ...{ nowMs: 1000 + 1000 * seconds, drained, receiveQueue: 1000 },
    ...{ offered: drained + 1000, accepted: drained + 1000 },
  }));

describe("a sample", () => {
  test("counts from the trial's first one", () => {
    const before = { offered: 5000, accepted: 5000, drained: 4000, receiveQueue: 1000 };
    const { samples } = watched([before, {
      ...{ nowMs: 1250, offered: 30_000, accepted: 30_000, drained: 20_000, receiveQueue: 10_000 },
    }]);
    assertEquals(samples[0], {
      ...{ time: 0, backlog: 1000, drained: 0, waiting: 1000, closed: false, late: 0 },
      ...{ offered: 0, window: 65_536 },
    });
    assertEquals(samples[1], {
      ...{ time: 0.25, backlog: 10_000, drained: 16_000, waiting: 10_000, closed: false, late: 0 },
      ...{ offered: 25_000, window: undefined },
    });
    // A recorded series asks for all each time.
    const all = watched([{}, { window: 7, nowMs: 1250 }, { nowMs: 1500 }], { full: true });
    assertEquals([all.samples[1]!.window, all.last.time], [7, 0.5]);
    assertEquals(watched([{ gone: true }]).last, undefined);
    // What was drained has been counted a little later.
    assertEquals(watched([{}, { offered: 100, drained: 150 }]).last.backlog, 0);
  });

  test("says what is late: due 3 ms ago, and more than a message", () => {
    const late = (unsent: number, more: Partial<Made> = {}) =>
      watched([{}, { offered: 2000, accepted: 2000 - unsent, ...more }]).last.late;
    const most = 0.003 * RATE + MESSAGE_SIZE;
    assertEquals([late(most), late(most + 50), late(most - 50)], [0, 50, 0]);
    // The kernel has no room: that is not our fault.
    assertEquals(late(most + 50, { blocked: true }), 0);
    assertEquals(late(1500, { drained: 1950 }), 50);
  });

  test("says what waits for the reader: all, while something is in its receive queue", () => {
    const waiting = (change: Partial<Made>) => {
      const { last, made } = watched([{}, {}, { offered: 10_000, accepted: 10_000, ...change }]);
      return [last.waiting, last.closed, made.asked.length - 2];
    };
    assertEquals(waiting({ receiveQueue: 101 }), [10_000, false, 1]);
    assertEquals(waiting({ receiveQueue: undefined }), [10_000, false, 1]);
    // All but what is late.
    assertEquals(waiting({ receiveQueue: 101, accepted: 9000 }), [9400, false, 1]);
    assertEquals(waiting({ receiveQueue: 101, drained: 9950, accepted: 9950 }), [50, false, 1]);
    // A backlog of 20 ms or more is asked where it is, but not at once.
    assertEquals(waiting({ receiveQueue: 100, drained: 8001 }), [100, false, 1]);
    assertEquals(waiting({ receiveQueue: 100, drained: 8000 }), [2000, false, 2]);
    // And one that has not read for a second.
    assertEquals(waiting({ receiveQueue: 101, nowMs: 1999 }), [10_000, false, 1]);
    assertEquals(waiting({ receiveQueue: 101, nowMs: 2000 }), [10_000, false, 2]);
    // Since its last read.
    const { made } = watched(reads([[0, 0], [0.6, 10], [1.2, 10]]));
    assertEquals(made.asked, ["read", "readDrained", "readDrained"]);
  });

  test("says whether its window was closed since the last one", () => {
    const far = { offered: 10_000, accepted: 10_000, receiveQueue: 100 };
    const closed = (...more: Partial<Made>[]) =>
      watched([{ limitedUs: 5 }, far, ...more]).samples.slice(2).map((
        sample,
      ) => [sample!.waiting, sample!.closed]);
    // It was asked in both.
    assertEquals(closed({ limitedUs: 6 }), [[10_000, true]]);
    assertEquals(closed({ limitedUs: 5 }), [[100, false]]);
    assertEquals(closed({ limitedUs: 6 }, { limitedUs: 6 }), [[10_000, true], [100, false]]);
    // In between it was not asked.
    const read = { drained: 9999, receiveQueue: 1 };
    const again = { ...read, offered: 20_000, accepted: 20_000, limitedUs: 9 };
    assertEquals(closed({ limitedUs: 5 }, read, again), [[100, false], [1, false], [
      10_001,
      false,
    ]]);
    assertEquals(closed({ limitedUs: 6 }, read), [[10_000, true], [1, false]]);
    assertEquals(watched([{ limitedUs: 5 }]).last.closed, false);
    const recorded = { ...far, receiveQueue: 101, limitedUs: 6 };
    assertEquals(watched([{ limitedUs: 5 }, recorded], { full: true }).last.closed, true);
    const silent = { receiveQueue: 101, nowMs: 2500 };
    assertEquals(closed({ ...silent, limitedUs: 8 }), [[10_000, true]]);
    assertEquals(watched([far, { gone: true }]).last, undefined);
  });

  test("of a reader that is gone when it is asked counts all as its own", () => {
    let readings = 0;
    const made = new MadeReader((now) => now.gone = ++readings === 3);
    const watch = new TrialWatch(made.reader, RATE, 10, false);
    watch.sample();
    Object.assign(made.made, { offered: 10_000, accepted: 10_000, receiveQueue: 50 });
    assertEquals([watch.sample()!.waiting, made.asked.length], [10_000, 3]);
  });
});

describe("a trial's figures", () => {
  test("the longest time without a read although there was something to read", () => {
    const { watch } = watched(reads([[0, 0], [0.1, 10], [0.4, 20], [0.5, 30], [0.7, 30]]));
    assertAlmostEquals(watch.longestPause, 0.3, 1e-9);
    assertAlmostEquals(watch.silence, 0.2, 1e-9);
    assertEquals(watch.seconds, 0.7);
    const never = reads([[0, 0], [0.5, 0]]);
    assertEquals(watched(never).watch.silence, 0.5);
    // Nothing was left to read: that is no pause.
    const idle = reads([[0, 0], [0.1, 10], [0.4, 10], [0.5, 10], [0.6, 20]]);
    for (const sample of idle.slice(1, 4)) sample.offered = 10;
    assertAlmostEquals(watched(idle).watch.longestPause, 0.2, 1e-9);
  });

  test("what it drained in the second half of the longest time: from one read to another", () => {
    const drained = (series: [number, number][], longest = 4) =>
      watched(reads(series), { longest }).watch.drainedInSecondHalf;
    assertEquals(
      drained([[0, 0], [1, 10], [2, 20], [2.5, 100], [3, 150], [3.5, 200], [4, 200]]),
      100,
    );
    // Without two reads, from the middle to the end.
    assertEquals(drained([[0, 0], [1, 10], [2, 20], [3, 120], [4, 120]]), 50);
    assertEquals(drained([[0, 0], [2, 20], [3, 20]]), 0);
    // It ended before.
    assertEquals(drained([[0, 0], [1, 10]]), 0);
    assertEquals(new TrialWatch(new MadeReader().reader, RATE, 4, false).drainedInSecondHalf, 0);
  });

  test("the rate that our sender achieved: less by what is late", () => {
    const achieved = (first: number, last: number, offered = 100_000) =>
      watched([
        { offered: 10_000, accepted: 10_000 - 400 - first },
        { nowMs: 3000, offered, accepted: offered - 400 - last },
      ]).watch.achieved;
    assertEquals([achieved(0, 2000), achieved(500, 2000), achieved(500, 0)], [
      ...[RATE - 1000, RATE - 750, RATE],
    ]);
    assertEquals([watched([]).watch.achieved, watched([{}]).watch.achieved], [RATE, RATE]);
  });

  test("how it ended, what the kernel says, and which replies are unread", async () => {
    const { made, watch } = watched([{ limitedUs: 1000 }, { nowMs: 2000, limitedUs: 251_000 }]);
    assertEquals(watch.unreadReplies, 0);
    made.made.replies = 7;
    assertEquals([watch.figures(), watch.unreadReplies], [{ stalled: 0.25 }, 7]);
    // Once it is gone, the last ones count.
    made.made.gone = true;
    assertEquals([watch.figures(), watch.unreadReplies], [{ stalled: 0.25 }, 7]);
    assertEquals([watched([]).watch.unreadReplies, watched([]).watch.seconds], [0, 0]);
    // Of the last full reading.
    const replies = (...samples: Partial<Made>[]) => watched(samples).watch.unreadReplies;
    assertEquals([replies({ replies: 3 }), replies({ replies: 3 }, { replies: 4 })], [3, 3]);
    const asks = { offered: 10_000, accepted: 10_000, replies: 5 };
    assertEquals(replies({ replies: 3 }, asks, { drained: 10_000, replies: 6 }), 5);
    assertEquals(watch.ended, undefined);
    const closed = { by: "peer" } as unknown as Closed;
    made.end(closed);
    await Promise.resolve();
    assertEquals(watch.ended, closed);
  });
});
