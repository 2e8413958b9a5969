/** Two files of results against each other: the statistics of `report --against`. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals } from "#std/assert";
import { compare, ratioOf, regressions } from "../src/report/compare.ts";
import { fromBench, fromLimits } from "../src/report/report.ts";
import { MADE_READERS, madeLimit, madeResult } from "./bench_results.ts";

const runsOf = (...rates: number[]) => rates.map((rate) => ({ lower: rate, upper: rate }));

describe("comparing", () => {
  test("has Welch's interval", () => {
    // Worked out by hand: ln means 0.0 and 0.1, s = 0.01 each, n = 3, t(4) = 2.776445.
    const spread = (mean: number) => runsOf(...[-0.01, 0, 0.01].map((d) => Math.exp(mean + d)));
    const { lower, middle, upper } = ratioOf(spread(0), spread(0.1))!;
    const half = 2.776445 * 0.01 * Math.sqrt(2 / 3);
    assertAlmostEquals(Math.log(middle), 0.1, 1e-9);
    assertAlmostEquals(Math.log(lower), 0.1 - half, 1e-6);
    assertAlmostEquals(Math.log(upper), 0.1 + half, 1e-6);
  });

  test("covers the truth as often as it says", () => {
    // A small generator with a fixed seed: the same numbers on every runtime.
    let state = 12345;
    const uniform = () => (state = (state * 48271) % 2147483647) / 2147483647;
    const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    const cell = (n: number, sigma: number) =>
      runsOf(...Array.from({ length: n }, () => 1e8 * Math.exp(sigma * normal())));
    for (const [n, m, left, right] of [[3, 3, 0.01, 0.01], [3, 5, 0.05, 0.01]] as const) {
      let covered = 0;
      for (let i = 0; i < 2000; i++) {
        const { lower, upper } = ratioOf(cell(n, left), cell(m, right))!;
        if (lower <= 1 && upper >= 1) covered++;
      }
      assert(covered > 1860 && covered < 1990, `${covered} of 2000`);
    }
  });

  test("counts the interval of each limit, which repeating does not make narrower", () => {
    const wide = Array.from({ length: 10 }, () => ({ lower: 95, upper: 105 }));
    const { lower, upper } = ratioOf(wide, wide)!;
    assert(lower < 0.95 && upper > 1.05, `${lower} ${upper}`);
  });

  test("does not make up a spread that was not measured", () => {
    const unknown = ratioOf(runsOf(100), runsOf(50))!;
    assertEquals([unknown.lower, unknown.upper], [0, Infinity]);
    const { upper } = ratioOf(runsOf(100), runsOf(90), 0.01)!;
    assert(upper > 0.9 && upper < 0.95, `${upper}`);
    assertEquals(ratioOf([], runsOf(90)), undefined);
  });

  const changed = (factor: number) =>
    fromBench(
      madeResult(MADE_READERS.map((reader) =>
        reader.who === "deno" && reader.size === 13
          ? {
            ...reader,
            limits: reader.limits.map((limit) => limit * factor),
          }
          : reader
      )),
    );

  test("says what became faster and slower, and nothing of the rest", () => {
    const before = changed(1);
    for (const [factor, word] of [[0.8, "slower"], [1.25, "faster"]] as const) {
      const cells = compare(before, changed(factor));
      const other = cells.filter(({ change }) => change !== "no difference seen");
      assertEquals(other.map(({ name, change }) => [name, change]), [
        ["deno drain", word],
        ["deno naive", word],
      ]);
      assertEquals(regressions(cells, 0.05).length, word === "slower" ? 2 : 0);
      assertEquals(regressions(cells, 0.25), []);
    }
  });

  test("knows our own reader on another version of its runtime", () => {
    const on = (version: string) =>
      fromLimits([madeLimit(`client --mode drain, ${version}`, 1e9)], "");
    assertEquals(compare(on("bun 1.4.5"), on("bun 1.5.0")).length, 1);
    assertEquals(compare(on("bun 1.4.5"), on("deno 2.9.5")).length, 2);
  });

  test("knows only a bound where the sender was the limit", () => {
    const limited = { ...madeLimit("x", 4e9), limit: null, overload: null };
    const open = fromLimits([{ ...limited, outcome: "generator-limited" }], "");
    const found = fromLimits([madeLimit("x", 1e9)], "");
    assertEquals(compare(open, found)[0]!.change, "slower");
    assertEquals(compare(found, open)[0]!.change, "faster");
    assertEquals(compare(open, open)[0]!.change, "no difference seen");
  });
});
