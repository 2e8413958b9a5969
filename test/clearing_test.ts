/** Whether readers have drained everything, from readings that are made up. */
import { describe, test } from "node:test";
import { assertEquals } from "#std/assert";
import type { Closed } from "../src/net/net.ts";
import { waitForClear } from "../src/measure/clearing.ts";
import { SAMPLE_EVERY_MS } from "../src/measure/meter.ts";
import { type Made, MadeReader } from "./made_reader.ts";

/** A reader that changes with each reading, from the first (1) on, by a clock of its own: 50 ms each. */
function changing(change: (reading: number) => Partial<Made>): MadeReader {
  let readings = 0;
  return new MadeReader((made) => {
    made.nowMs += 50;
    Object.assign(made, change(++readings));
  });
}

/** Waits by a clock that only waiting moves: it begins at 1 s. */
async function cleared(readers: readonly MadeReader[], pause?: number, maxMs = 5000) {
  let nowMs = 1000;
  const clock = {
    now: () => nowMs,
    sleep(ms: number) {
      nowMs += ms;
      return Promise.resolve();
    },
  };
  const { clear, rest } = await waitForClear(
    readers.map(({ reader }) => reader),
    maxMs,
    pause,
    clock,
  );
  const readings = readers.map(({ asked }) => asked.filter((what) => what === "read").length);
  return { clear, rest, readings: Math.max(...readings), ms: nowMs - 1000 };
}

/** In each round a reading, then a wait: so many rounds until that time has passed. */
const after = (ms: number) => (Math.floor(ms / SAMPLE_EVERY_MS) + 1) * SAMPLE_EVERY_MS;

const known = ({ clear, rest, readings }: Awaited<ReturnType<typeof cleared>>) => [
  ...[clear, rest, readings],
];

describe("a reader", () => {
  test("has cleared once it has drained all that was offered", async () => {
    const fast = () =>
      changing((reading) => ({ offered: 300, drained: 100 * reading, receiveQueue: 9 }));
    const made = fast();
    assertEquals(known(await cleared([made])), [true, 0, 3]);
    assertEquals(made.asked[0], "forget");
    const gone = changing((reading) => ({ gone: reading < 3 }));
    assertEquals(known(await cleared([gone])), [true, 0, 3]);
    const slow = changing((reading) => ({ offered: 400, drained: 100 * reading }));
    assertEquals(known(await cleared([fast(), slow])), [true, 0, 4]);
  });

  test("leaves a rest that it has not read for 250 ms, and for one and a half of its pauses", async () => {
    const rest = (more: Partial<Made> = {}) =>
      changing(() => ({ offered: 300, drained: 200, receiveQueue: 60, ...more }));
    assertEquals(known(await cleared([rest()])), [true, 60, 6]);
    assertEquals(known(await cleared([rest()], 0.3)), [true, 60, 10]);
    const two = [rest(), rest({ receiveQueue: 70, drained: 230 }), changing(() => ({}))];
    assertEquals(known(await cleared(two)), [true, 70, 6]);
    // It began to stand still with its last read.
    const later = changing((reading) => ({
      ...{ offered: 300, drained: Math.min(reading, 4), receiveQueue: 60 },
    }));
    assertEquals((await cleared([later])).readings, 4 + 5);
  });

  test("has not cleared while something is on its way, or nothing waits for it", async () => {
    const waits = [{ sendQueue: 1, receiveQueue: 60 }, { receiveQueue: 0 }, {
      receiveQueue: undefined,
    }];
    for (const more of waits) {
      const made = () => changing(() => ({ offered: 300, drained: 200, ...more }));
      const { clear, rest, ms } = await cleared([made()], 0, 700);
      assertEquals([clear, rest, ms], [false, 0, after(700)]);
      // Long enough for one that leaves a rest.
      assertEquals((await cleared([made()], 0, 1)).ms, after(500));
      assertEquals((await cleared([made()], 0.25, 1)).ms, after(625));
      assertEquals((await cleared([made()], undefined, 1)).ms, after(500));
    }
  });

  test("on another host has cleared once its window stands still for 150 ms", async () => {
    const window = (change: (reading: number) => Partial<Made>) =>
      changing((reading) => ({ queueSource: "window", offered: 300, ...change(reading) }));
    const still = window(() => ({ drained: 200 }));
    assertEquals(known(await cleared([still])), [true, 0, 4]);
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
