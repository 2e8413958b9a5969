/** The search over simulated readers whose true rate is known. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertGreaterOrEqual } from "#std/assert";
import { measureCoverage } from "../bench/coverage.ts";

/** The same readers and seeds each time: nothing here depends on chance. */
const SEARCHES = 40;

const rows = await measureCoverage(SEARCHES);

describe("the search over simulated readers", () => {
  for (const row of rows) {
    test(row.kind, () => {
      const what = JSON.stringify(row);
      assertEquals(row.searches, SEARCHES);
      assert(row.wrong <= 0.05 * SEARCHES, what);
      const found = row.outcomes.found ?? 0;
      if (row.expected === "found") assertGreaterOrEqual(row.holding, 0.92 * found, what);
      else assertEquals(found, 0, what);
      if (row.kind === "steady") assert(row.width! < 0.0101 && row.seconds.median < 20, what);
    });
  }
});
