/** The search over simulated readers whose true rate is known. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertGreaterOrEqual } from "#std/assert";
import { measureCoverage } from "../bench/coverage.ts";
import { ServiceRate } from "../src/measure/service.ts";
import { studentT } from "../src/measure/statistics.ts";

/** The same readers and seeds each time: nothing here depends on chance. */
const SEARCHES = 12;

const rows = await measureCoverage(SEARCHES);

describe("the search over simulated readers", () => {
  for (const row of rows) {
    test(row.kind, () => {
      const what = JSON.stringify(row);
      assertEquals(row.searches, SEARCHES);
      assert(row.wrong <= 1, what);
      const found = row.outcomes.found ?? 0;
      if (row.expected === "found") assertGreaterOrEqual(row.holding, found - 1, what);
      else assertEquals(found, 0, what);
      if (row.kind === "steady") assert(row.width! < 0.0101 && row.seconds.median < 20, what);
    });
  }
});

describe("the service rate", () => {
  test("of a reader that reads seldom has not half a read more or less in it", () => {
    const service = new ServiceRate();
    for (let i = 0; i <= 1600; i++) service.add(i / 100, Math.floor((i + 13) / 40) * 40_000);
    const { mean, halfWidth } = service.estimate(0.05);
    assert(Math.abs(mean / 100_000 - 1) < 1e-4 && halfWidth < 1, `${mean} ${halfWidth}`);
  });

  test("without a few batches, nothing is known", () => {
    const service = new ServiceRate();
    for (let i = 0; i < 20; i++) service.add(i / 100, i);
    assertEquals(service.estimate(0.05).halfWidth, Infinity);
  });
});

test("Student's t, two-sided", () => {
  // From the tables in NIST's Engineering Statistics Handbook, 1.3.6.7.2.
  for (
    const [probability, freedom, value] of [
      ...[[0.05, 1, 12.706], [0.05, 2, 4.303], [0.05, 3, 3.182], [0.05, 10, 2.228]],
      ...[[0.05, 100, 1.984], [0.01, 5, 4.032], [0.002, 7, 4.785], [0.05, Infinity, 1.96]],
    ] as [number, number, number][]
  ) {
    const found = studentT(probability, freedom);
    assert(Math.abs(found / value - 1) < 5e-4, `t(${freedom}) is ${found}, not ${value}`);
  }
});
