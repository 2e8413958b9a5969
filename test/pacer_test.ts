/** The one timer of all floods, with so many of them that a tick takes long. */
import { describe, test } from "node:test";
import { assertEquals, assertLessOrEqual } from "#std/assert";
import { runtime } from "../src/kernel/runtime.ts";
import { Ticker } from "../src/send/pacer.ts";
import { until } from "./within.ts";

describe(`ticker on ${runtime}`, () => {
  test("with hundreds of listeners, ticks take a fifth of the time at most", async () => {
    const TICK_MS = 4;
    const ticker = new Ticker();
    const counts = new Array<number>(300).fill(0);
    const stops = counts.map((_, i) => ticker.add(() => void counts[i]!++));
    const startMs = performance.now();
    stops.push(ticker.add((nowMs) => {
      while (performance.now() < nowMs + TICK_MS);
    }));
    await until("20 ticks", 10_000, () => counts[0]! >= 20);
    for (const stop of stops) stop();
    // The first two may follow each other: what a tick takes is not known before.
    assertLessOrEqual(counts[0]! - 2, (performance.now() - startMs) / (5 * TICK_MS));
    assertEquals(counts.filter((count) => count !== counts[0]), []);
  });
});
