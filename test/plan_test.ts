/** What a plan computes, against answers by hand and against a simulation in small steps. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals, assertGreater } from "#std/assert";
import { randomFrom } from "../bench/random.ts";
import { aboveFor, backlogCurve, largestOf, type Outage } from "../src/plan/backlog_curve.ts";
import { type Arrival, endOf, type Feed, grown, steadyFeed } from "../src/plan/feed.ts";
import { plan } from "../src/plan/plan.ts";
import { worstOutage } from "../src/plan/worst_outage.ts";

/** 5 MB/s, but 40 MB/s for the first 3 s. */
const SPIKE = steadyFeed(5e6, { rate: 40e6, seconds: 3 });

/** Some arrivals of both kinds, with pauses. */
function randomFeed(seed: number): Feed {
  const random = randomFrom(seed);
  const arrivals: Arrival[] = [];
  let at = 0;
  for (let i = 0; i < 40; i++) {
    if (random() < 0.3) at += random() * 2;
    const seconds = random() < 0.2 ? 0 : 0.1 + random();
    arrivals.push({ at, seconds, bytes: random() ** 3 * 20e6 });
    at += seconds;
  }
  return { arrivals, afterwards: random() * 8e6 };
}

/** The backlog in steps: [time, backlog] after each. */
function* inSteps(feed: Feed, limit: number, seconds: number, outage?: Outage) {
  const step = 1e-3;
  const end = endOf(feed);
  let backlog = 0;
  for (let i = 0; i * step < seconds; i++) {
    const from = i * step;
    const to = from + step;
    let come = feed.afterwards * Math.max(0, to - Math.max(from, end));
    for (const { at, seconds, bytes } of feed.arrivals) {
      if (seconds === 0) come += at >= from && at < to ? bytes : 0;
      else come += bytes / seconds * Math.max(0, Math.min(to, at + seconds) - Math.max(from, at));
    }
    const isAway = outage !== undefined && from >= outage.at && to <= outage.at + outage.seconds;
    backlog = Math.max(0, backlog + come - (isAway ? 0 : limit * step));
    yield [to, backlog] as const;
  }
}

describe("a plan for a peak", () => {
  test("has its backlog, its delay and the time to clear it", () => {
    const { backlog, delay, utilisation } = plan({ limit: 20e6, feed: SPIKE });
    assertEquals(backlog, { largest: 60e6, at: 3, clearedAt: 7 });
    assertEquals(delay, 3);
    assertEquals(utilisation, 0.25);
  });

  test("says when and why the sender disconnects the reader", () => {
    const by = (sender: object) => plan({ limit: 20e6, feed: SPIKE, ...sender }).disconnects;
    assertEquals(by({ senderBuffer: 4e6 }), { by: "senderBuffer", at: 0.2 });
    assertEquals(by({ senderBuffer: 60e6 }), null);
    // Above 30 MB from 1.5 s on, until 60 MB have shrunk to it at 5 s.
    assertEquals(by({ senderAfter: { bytes: 30e6, seconds: 2 } }), { by: "senderAfter", at: 3.5 });
    assertEquals(by({ senderAfter: { bytes: 30e6, seconds: 3.5 } }), null);
    // What is written on a backlog of 50 MB is taken after 2.5 s.
    assertEquals(by({ writeDeadline: 2.5 }), { by: "writeDeadline", at: 5 });
    assertEquals(by({ writeDeadline: 3 }), null);
    assertEquals(by({ senderBuffer: 4e6, writeDeadline: 1 }), { by: "senderBuffer", at: 0.2 });
  });

  test("says how far it may grow, and how slow the reader may be", () => {
    const free = plan({ limit: 20e6, feed: SPIKE });
    assertEquals(free.growth, 4);
    assertAlmostEquals(free.help.limit, 5e6, 1);
    const { growth, help } = plan({ limit: 20e6, feed: SPIKE, senderBuffer: 4e6 });
    // (40 k - 20) MB/s for 3 s are 4 MB; 40 MB/s less the limit for 3 s as well.
    assertAlmostEquals(growth, (20 + 4 / 3) / 40, 1e-6);
    assertAlmostEquals(help.limit, (40 - 4 / 3) * 1e6, 10);
    assertEquals([help.mostly, help.backlog], ["buffer", 60e6]);
  });

  test("says what to store for an outage at the worst time, and how long it is cleared", () => {
    const { outage } = plan({ limit: 20e6, feed: SPIKE, outage: 60 });
    assertEquals(outage, { seconds: 60, at: 0, stored: 405e6, clears: 27 });
  });

  test("compares readers", () => {
    const { others } = plan({ limit: 20e6, feed: SPIKE });
    assertEquals(others.find(({ limit }) => limit === 10e6), {
      ...{ limit: 10e6, largest: 90e6, delay: 9 },
    });
    assertEquals(others.find(({ limit }) => limit === 40e6)!.largest, 0);
  });
});

describe("a plan for a feed that is faster than its reader", () => {
  test("never clears; the sender disconnects it in the end", () => {
    const feed = steadyFeed(5e6);
    const result = plan({ limit: 4e6, feed, senderAfter: { bytes: 8e6, seconds: 60 }, outage: 10 });
    assertEquals(result.backlog.clearedAt, null);
    assertEquals(result.delay, null);
    assertEquals(result.disconnects, { by: "senderAfter", at: 68 });
    assertEquals(result.outage!.clears, null);
    assertAlmostEquals(result.growth, 0.8, 1e-6);
    assertEquals([result.help.mostly, result.help.backlog], ["reader", null]);
    assertAlmostEquals(result.help.limit, 5e6, 1);
  });

  test("also where it is exactly as fast, after a peak", () => {
    const { backlog, disconnects } = plan({
      ...{ limit: 5e6, feed: SPIKE, senderBuffer: 105e6, senderAfter: { bytes: 1, seconds: 9 } },
    });
    assertEquals(backlog, { largest: 105e6, at: 3, clearedAt: null });
    assertEquals(disconnects?.by, "senderAfter");
  });
});

describe("what helps most", () => {
  const mostly = (options: object) => plan({ limit: 20e6, feed: SPIKE, ...options }).help.mostly;

  test("is nothing where the connection is kept, and the smallest change where it is not", () => {
    assertEquals(mostly({ senderBuffer: 60e6 }), "nothing");
    assertEquals(mostly({ senderBuffer: 4e6 }), "buffer");
    assertEquals(mostly({ senderBuffer: 4e6, limit: 38e6 }), "reader");
    assertEquals(mostly({ senderBuffer: 4e6, limit: 10e6 }), "queue");
    assertEquals(mostly({ writeDeadline: 1 }), "queue");
  });
});

describe("a backlog over time", () => {
  test("is that of small steps, for random feeds", () => {
    for (let seed = 1; seed <= 12; seed++) {
      const feed = randomFeed(seed);
      const limit = 4e6 + seed * 1e6;
      const outage = seed % 2 === 0 ? { at: seed, seconds: 5 } : undefined;
      const curve = backlogCurve(feed, limit, outage);
      const last = curve.corners.at(-1)!.at;
      let largest = 0;
      let above = 0;
      let longestAbove = 0;
      for (const [, backlog] of inSteps(feed, limit, last, outage)) {
        largest = Math.max(largest, backlog);
        above = backlog > 10e6 ? above + 1e-3 : 0;
        longestAbove = Math.max(longestAbove, above);
      }
      const told = largestOf(curve).backlog;
      assert(Math.abs(told - largest) <= 0.002 * told + 2e4, `seed ${seed}: ${told}, ${largest}`);
      if (!curve.clears) continue;
      assertEquals(aboveFor(curve, 10e6, longestAbove + 0.02), null, `seed ${seed}`);
      if (longestAbove > 0.02) {
        assert(aboveFor(curve, 10e6, longestAbove - 0.02) !== null, `seed ${seed}`);
      }
    }
  });
});

describe("the worst outage", () => {
  test("is worse than an outage at any other time, for random feeds", () => {
    for (let seed = 1; seed <= 12; seed++) {
      const feed = randomFeed(seed);
      const limit = 8e6 + seed * 2e6;
      const stored = (outage: Outage) => largestOf(backlogCurve(feed, limit, outage)).backlog;
      const worst = stored(worstOutage(feed, limit, 3));
      let most = 0;
      for (let at = 0; at < endOf(feed) + 1; at += 0.05) {
        most = Math.max(most, stored({ at, seconds: 3 }));
      }
      assertGreater(worst * (1 + 1e-9), most, `seed ${seed}`);
    }
  });
});

describe("a reader that gathers", () => {
  // As bench/readers/gather.c: c M = 16 KiB * 5 GB/s, L = 20 MB/s.
  const limit = 20e6;
  const tolerance = (rate: number) => 16_384 * 5e9 * (1 - rate / limit) ** 2 / (2 * rate);
  const tolerated = [1e6, 2e6, 5e6, 8e6, 12e6, 16e6].map((rate) => ({
    rate,
    burst: tolerance(rate),
  }));
  const collapse = (peak: number, seconds: number, rate = 5e6) =>
    plan({ limit, feed: steadyFeed(rate, { rate: peak, seconds }), tolerated }).collapse;

  test("collapses where the peak is like a larger burst than it survives", () => {
    // At 5 MB/s it survives 4.6 MB at once; the same in a peak.
    const survived = tolerance(5e6);
    assertEquals(collapse(40e6, 0.97 * survived / 35e6), null);
    const found = collapse(40e6, 1.05 * survived / 35e6)!;
    assertAlmostEquals(found.burst, 1.05 * survived, 1e3);
    assertAlmostEquals(found.rate, 5e6, 1);
    assertAlmostEquals(found.tolerance / survived, 1, 0.02);
  });

  test("does not collapse in a peak below its limit", () => {
    assertEquals(collapse(19e6, 100), null);
  });

  test("what helps is a bound for what lies unread, and growth counts the collapse", () => {
    const feed = steadyFeed(5e6, { rate: 40e6, seconds: 3 });
    const { help, growth } = plan({ limit, feed, tolerated });
    assertEquals(help.mostly, "unread");
    assert(growth < 0.6, String(growth));
  });

  test("that survives everything at a rate never collapses there", () => {
    const feed = steadyFeed(5e6, { rate: 400e6, seconds: 30 });
    const all = [{ rate: 1e6, burst: Infinity }, { rate: 19e6, burst: Infinity }];
    assertEquals(plan({ limit, feed, tolerated: all }).collapse, null);
  });
});

test("a grown feed has as many times its bytes, and goes on at as many times its rate", () => {
  assertEquals(grown(SPIKE, 2), steadyFeed(10e6, { rate: 80e6, seconds: 3 }));
});
