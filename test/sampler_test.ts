/** How often readers are sampled, by a clock of the test's own where time matters. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertGreaterOrEqual } from "#std/assert";
import { runtime } from "../src/kernel/runtime.ts";
import { SAMPLE_EVERY_MS } from "../src/measure/meter.ts";
import { Sampler } from "../src/measure/sampler.ts";
import { within } from "./within.ts";

/** Readers whose readings take so long, by a clock that only they move. */
function readersThatTake(costMs: number, count: number) {
  const clock = { nowMs: 1000, readings: 0 };
  const meter = {
    readDrained() {
      clock.nowMs += costMs;
      clock.readings++;
      return undefined;
    },
  };
  return { clock, meters: Array.from({ length: count }, () => meter) };
}

describe(`sampler on ${runtime}`, () => {
  test("one reader: as often as a reading allows", () => {
    const { clock, meters } = readersThatTake(0.005, 1);
    assertEquals(new Sampler(meters, () => clock.nowMs).everyMs, SAMPLE_EVERY_MS);
    assertEquals(clock.readings, 3);
  });

  test("so many that it would take more than a fifth of a core: as seldom as it takes a fifth", () => {
    const { clock, meters } = readersThatTake(1 / 32, 1000);
    const { everyMs, sampleSeconds } = new Sampler(meters, () => clock.nowMs);
    assertEquals([everyMs, sampleSeconds], [157, 0.157]);
  });

  test("a round in which we were off our core does not count", () => {
    const { clock, meters } = readersThatTake(1 / 32, 1000);
    const slow = {
      readDrained() {
        if (clock.readings !== 2000) clock.nowMs += 5000;
        return undefined;
      },
    };
    assertEquals(new Sampler([...meters, slow], () => clock.nowMs).everyMs, 157);
  });

  test("times are kept though the work takes time, and what was missed is left out", async () => {
    let nowMs = 0;
    const sampler = new Sampler([], () => nowMs);
    const every = sampler.everyMs;
    // Waits in steps of the real clock, while this one goes on.
    const moving = setInterval(() => nowMs += 1, 1);
    try {
      await within("the first", 1000, sampler.next());
      nowMs += 0.4 * every;
      await within("the second", 1000, sampler.next());
      assert(nowMs >= every, `${nowMs}`);
      nowMs = 7.5 * every;
      await within("one that is late", 1000, sampler.next());
      assertEquals(nowMs, 7.5 * every, "at once");
      await within("the next", 1000, sampler.next());
      assertGreaterOrEqual(nowMs, 8 * every);
      assertEquals(sampler.sampleSeconds, nowMs / 3 / 1000);
    } finally {
      clearInterval(moving);
    }
  });

  test("times are multiples of the planned one from the first on, whatever the clock says", async () => {
    let times: number[] = [];
    let asked = 0;
    const sampler = new Sampler([], () => times[asked++] ?? 1e9);
    const every = sampler.everyMs;
    const mean: number[] = [];
    for (
      const clock of [
        [10_000],
        // Too early, then in time, and a little late.
        [10_000 + 0.4 * every, 10_000 + 1.1 * every],
        // 2.7 times have passed: the next one is the fourth.
        [10_000 + 3.7 * every],
        [10_000 + 3.9 * every, 10_000 + 4 * every],
      ]
    ) {
      [times, asked] = [clock, 0];
      await within("a sample", 1000, sampler.next());
      assertEquals(asked, clock.length);
      mean.push(sampler.sampleSeconds * 1000 / every);
    }
    assertEquals(mean.map((share) => Number(share.toFixed(6))), [1, 1.1, 1.85, 1.333333]);
  });
});
