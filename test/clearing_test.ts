/** Whether readers have drained everything, from readings that are made up. */
import { describe, test } from "node:test";
import { assert, assertEquals } from "#std/assert";
import type { Closed } from "../src/net/net.ts";
import { waitForClear } from "../src/measure/clearing.ts";
import { type Made, MadeReader } from "./made_reader.ts";
import { within } from "./within.ts";

/** A reader that changes with each reading, from the first (1) on, by a clock of its own: 50 ms each. */
function changing(change: (reading: number) => Partial<Made>): MadeReader {
  let readings = 0;
  return new MadeReader((made) => {
    made.nowMs += 50;
    Object.assign(made, change(++readings));
  });
}

async function cleared(readers: readonly MadeReader[], pause?: number, maxMs = 60_000) {
  const found = await within(
    "clear, or not",
    5000,
    waitForClear(readers.map(({ reader }) => reader), maxMs, pause),
  );
  const readings = readers.map(({ asked }) => asked.filter((what) => what === "read").length);
  return { ...found, readings: Math.max(...readings) };
}

describe("a reader", () => {
  test("has cleared once it has drained all that was offered", async () => {
    const fast = () =>
      changing((reading) => ({ offered: 300, drained: 100 * reading, receiveQueue: 9 }));
    const made = fast();
    assertEquals(await cleared([made]), { clear: true, rest: 0, readings: 3 });
    assertEquals(made.asked[0], "forget");
    const gone = changing((reading) => ({ gone: reading < 3 }));
    assertEquals(await cleared([gone]), { clear: true, rest: 0, readings: 3 });
    const slow = changing((reading) => ({ offered: 400, drained: 100 * reading }));
    assertEquals(await cleared([fast(), slow]), { clear: true, rest: 0, readings: 4 });
  });

  test("leaves a rest that it has not read for 250 ms, and for one and a half of its pauses", async () => {
    const rest = (more: Partial<Made> = {}) =>
      changing(() => ({ offered: 300, drained: 200, receiveQueue: 60, ...more }));
    assertEquals(await cleared([rest()]), { clear: true, rest: 60, readings: 6 });
    assertEquals(await cleared([rest()], 0.3), { clear: true, rest: 60, readings: 10 });
    const two = [rest(), rest({ receiveQueue: 70, drained: 230 }), changing(() => ({}))];
    assertEquals(await cleared(two), { clear: true, rest: 70, readings: 6 });
    // It began to stand still with its last read.
    const later = changing((reading) => ({
      ...{ offered: 300, drained: Math.min(reading, 4), receiveQueue: 60 },
    }));
    assertEquals((await cleared([later])).readings, 4 + 5);
  });

  test("has not cleared while something is on its way, or nothing waits for it", async () => {
    for (
      const more of [{ sendQueue: 1, receiveQueue: 60 }, { receiveQueue: 0 }, {
        receiveQueue: undefined,
      }]
    ) {
      const made = changing(() => ({ offered: 300, drained: 200, ...more }));
      const startMs = performance.now();
      const { clear, rest } = await cleared([made], 0, 1);
      assertEquals([clear, rest], [false, 0]);
      // Long enough for one that leaves a rest.
      const ms = performance.now() - startMs;
      assert(ms > 499, `${ms} ms`);
    }
    const startMs = performance.now();
    const made = changing(() => ({ offered: 300, drained: 200 }));
    assertEquals((await cleared([made], 0.25, 1)).clear, false);
    const ms = performance.now() - startMs;
    assert(ms > 624, `${ms} ms`);
  });

  test("on another host has cleared once its window stands still for 150 ms", async () => {
    const window = (change: (reading: number) => Partial<Made>) =>
      changing((reading) => ({ queueSource: "window", offered: 300, ...change(reading) }));
    const still = window(() => ({ drained: 200 }));
    assertEquals(await cleared([still]), { clear: true, rest: 0, readings: 4 });
    assertEquals(still.asked.at(-1), "assumeEmpty");
    const late = window((reading) => ({ drained: 200, sendQueue: reading < 5 ? 1 : 0 }));
    assertEquals((await cleared([late])).readings, 4 + 3);
    const reads = window((reading) => ({ drained: Math.min(reading, 5) }));
    assertEquals((await cleared([reads])).readings, 5 + 3);
  });

  test("whose connection ends is not waited for", async () => {
    const made: MadeReader = changing((reading) => {
      if (reading === 2) made.end({} as Closed);
      return { offered: 300 };
    });
    const found = await cleared([made]);
    assertEquals([found.clear, found.readings], [false, 2]);
  });
});
