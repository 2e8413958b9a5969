/** The search for a burst tolerance, and for the way back from a collapse, over made-up readers. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertLessOrEqual } from "#std/assert";
import { randomFrom } from "../bench/random.ts";
import type { CellResult } from "../src/burst/cell.ts";
import { measureHysteresis } from "../src/burst/hysteresis.ts";
import { findTolerance, stateOf, type ToleranceOptions } from "../src/burst/tolerance.ts";

const cell = (burst: number, survives: boolean): CellResult => ({
  ...{ rate: 1e6, burst, outcome: survives ? "survives" : "collapses", seconds: 0.1 },
  ...{ drained: 1000, absorbed: 0 },
});

/** A reader that survives bursts for which this holds. */
const search = (survives: (burst: number) => boolean, options: Partial<ToleranceOptions> = {}) =>
  findTolerance({
    ...{ first: 1e5, least: 1e3, most: 64e6, precision: 0.1, repeats: 2, tries: 24 },
    attempt: (burst) => Promise.resolve(cell(burst, survives(burst))),
    ...options,
  });

describe("the search for a tolerance", () => {
  for (const tolerance of [1500, 90_000, 430_000, 5e6, 50e6]) {
    test(`brackets ${tolerance} bytes`, async () => {
      const { lower, upper, cells } = await search((burst) => burst <= tolerance);
      assert(lower <= tolerance && upper! > tolerance, `${lower} to ${upper}`);
      assertLessOrEqual(upper! / lower, 1.1001);
      assertLessOrEqual(cells.length, 18);
    });
  }

  test("of a reader that survives everything has no upper bound", async () => {
    const { lower, upper, collapsed } = await search(() => true);
    assertEquals([lower, upper, collapsed], [64e6, null, null]);
  });

  test("of a reader that survives nothing is 0", async () => {
    const { lower, upper, collapsed } = await search(() => false);
    assertEquals([lower, upper, collapsed], [0, 1e3, 1000]);
  });

  test("has bounds that held in each of several tries", async () => {
    const { lower, upper, tries } = await search((burst) => burst < 1e6, { repeats: 4 });
    for (const bound of [lower, upper]) {
      assertEquals(tries.find(({ burst }) => burst === bound)!.tried, 4);
    }
  });

  test("where chance decides, goes apart and counts", async () => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = randomFrom(seed);
      // Always up to 400 kB, never from 1.6 MB on, between those more and more rarely.
      const chance = (burst: number) => 1 - Math.log(burst / 4e5) / Math.log(4);
      const { lower, upper, tries, cells } = await search((burst) => random() < chance(burst));
      assert(lower < 1.6e6 && (upper === null || upper > 4e5), `${lower} to ${upper}`);
      assert(upper === null || lower < upper);
      assertLessOrEqual(cells.length, 24);
      for (const { burst, tried, survived } of tries) {
        if (burst <= lower) assertEquals(survived, tried, `seed ${seed}`);
        if (upper !== null && burst >= upper) assertEquals(survived, 0, `seed ${seed}`);
      }
    }
  });
});

test("a reader that survives a burst only sometimes is not stable", async () => {
  let tries = 0;
  const one = { first: 1e5, least: 1e5, most: 1e5, tries: 4, repeats: 4 };
  const sometimes = await search(() => tries++ % 2 === 0, one);
  assertEquals([sometimes.upper, stateOf(sometimes)], [null, "vulnerable"]);
  assertEquals(stateOf(await search(() => true, one)), "stable");
  assertEquals(stateOf(await search(() => false, one)), "collapsed");
  assertEquals(stateOf(await search((burst) => burst < 1e6)), "vulnerable");
});

describe("the way back from a collapse", () => {
  const way = (returnsAt: number | null, collapses = true) => {
    const asked: number[] = [];
    const result = measureHysteresis({
      ...{ rate: 8e6, burst: 1e6, limit: 50e6 },
      attempt: (_rate, burst, { rate }) => {
        asked.push(rate);
        const returned = returnsAt !== null && rate <= returnsAt ? 1.5 : null;
        return Promise.resolve({ ...cell(burst, !collapses), returned });
      },
    });
    return { asked, result };
  };

  test("is the highest rate, by halves, at which it comes back", async () => {
    const { asked, result } = way(2.5e6);
    assertEquals(await result, { collapsedAt: 8e6, returns: 2e6, seconds: 1.5, staysAt: 4e6 });
    assertEquals(asked, [4e6, 2e6]);
  });

  test("is silence, where it comes back at no rate", async () => {
    const { asked, result } = way(0);
    assertEquals(await result, { collapsedAt: 8e6, returns: 0, seconds: 1.5, staysAt: 5e5 });
    assertEquals(asked.at(-1), 0);
  });

  test("may be none at all, or unknown", async () => {
    assertEquals(await way(null).result, {
      ...{ collapsedAt: 8e6, returns: null, seconds: null, staysAt: 0 },
    });
    assertEquals(await way(1e6, false).result, undefined);
  });
});
