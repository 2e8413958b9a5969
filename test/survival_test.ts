/** The chance to survive a burst: the intervals of Clopper and Pearson, and that chances never rise. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals } from "#std/assert";
import { randomFrom } from "../bench/random.ts";
import { chances } from "../src/burst/survival.ts";

describe("the interval of a chance", () => {
  // As R's binom.test(k, n).
  for (
    const [survived, tried, lower, upper] of [
      [0, 20, 0, 0.1684335],
      [10, 20, 0.2719578, 0.7280422],
      [20, 20, 0.8315665, 1],
      [1, 2, 0.0125791, 0.9874209],
    ] as const
  ) {
    test(`${survived} of ${tried}`, () => {
      const [chance] = chances([{ burst: 1, tried, survived }], 0.95);
      assertAlmostEquals(chance!.lower, lower, 1e-6);
      assertAlmostEquals(chance!.upper, upper, 1e-6);
    });
  }

  test("is narrower where larger bursts were survived, or smaller ones were not", () => {
    const [small, middle, large] = chances([
      { burst: 3, tried: 8, survived: 0 },
      { burst: 1, tried: 8, survived: 8 },
      { burst: 2, tried: 1, survived: 1 },
    ], 0.95);
    assertEquals([small!.burst, middle!.burst, large!.burst], [1, 2, 3]);
    // Of 17 tries with at least this burst, 9; alone 8 of 8 say more.
    assertAlmostEquals(small!.lower, 0.6305834, 1e-6);
    assertAlmostEquals(large!.upper, 0.3694166, 1e-6);
    assertEquals(middle!.upper, 1);
  });

  test("holds the true chance in at least 95 % of all cases", () => {
    const random = randomFrom(1);
    const truth = [0.98, 0.7, 0.4, 0.05];
    let held = 0;
    const repeats = 500;
    for (let i = 0; i < repeats; i++) {
      const tries = truth.map((chance, burst) => {
        const tried = 3 + Math.floor(random() * 6);
        let survived = 0;
        for (let k = 0; k < tried; k++) survived += random() < chance ? 1 : 0;
        return { burst, tried, survived };
      });
      const intervals = chances(tries, 0.95);
      held += intervals.filter(({ lower, upper, burst }) =>
        lower <= truth[burst]! && truth[burst]! <= upper
      ).length;
    }
    assert(held / repeats / truth.length >= 0.95, String(held / repeats / truth.length));
  });
});
