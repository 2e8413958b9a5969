/** Quantiles and means, against exact values (SciPy 1.16, to 10 digits) and by hand. */
import { test } from "node:test";
import { assert, assertEquals, assertThrows } from "#std/assert";
import { median, normalQuantile, spread, studentT } from "../src/measure/statistics.ts";

test("Student's t, two-sided, to six digits; from ten degrees of freedom on, to seven", () => {
  const FREEDOMS = [1, 2, 3, 4, 4.5, 5, 7, 10, 30, 100, 1e5];
  const EXACT: Record<string, number[]> = {
    "0.05": [
      ...[12.70620474, 4.30265273, 3.182446305, 2.776445105, 2.658912347, 2.570581836],
      ...[2.364624252, 2.228138852, 2.042272456, 1.983971519, 1.959987708],
    ],
    "0.01": [
      ...[63.65674116, 9.924843201, 5.84090931, 4.604094871, 4.272823993, 4.032142984],
      ...[3.499483297, 3.169272673, 2.749995654, 2.625890521, 2.57587847],
    ],
    "0.5": [
      ...[1, 0.8164965809, 0.7648923284, 0.7406970841, 0.7328666862, 0.7266868438],
      ...[0.7111417781, 0.6998120613, 0.6827556933, 0.676951043, 0.6744922036],
    ],
    "0.001": [
      ...[636.6192488, 31.59905458, 12.92397864, 8.610301581, 7.580740499, 6.868826726],
      ...[5.407882521, 4.586893859, 3.645958635, 3.390491311, 3.290624031],
    ],
    "0.0001": [
      ...[6366.197671, 99.99249984, 28.00013001, 15.54410058, 12.90943131, 11.17771007],
      ...[7.884584262, 6.211050891, 4.482417175, 4.053336701, 3.890748845],
    ],
  };
  for (const [probability, exact] of Object.entries(EXACT)) {
    FREEDOMS.forEach((freedom, i) => {
      const found = studentT(Number(probability), freedom);
      const what = `t(${probability}, ${freedom}) is ${found}, not ${exact[i]}`;
      assert(Math.abs(found / exact[i]! - 1) < (freedom < 10 ? 5e-6 : 5e-8), what);
    });
  }
  assertEquals(studentT(0.05, Infinity), -normalQuantile(0.025));
  // With less than two degrees, the value for one: on the safe side.
  assertEquals(studentT(0.05, 1.5), studentT(0.05, 1));
  assertEquals([studentT(0.05, 0.9), studentT(0.05, NaN)], [Infinity, Infinity]);
});

test("the normal quantile, to nine digits", () => {
  for (
    const [probability, exact] of [
      ...[[0.5, 0], [0.4, -0.2533471031], [0.3, -0.5244005127], [0.1, -1.2815515655]],
      ...[[0.03, -1.8807936082], [0.024, -1.9773684282], [0.01, -2.326347874], [0.7, 0.5244005127]],
      ...[[1e-3, -3.0902323062], [1e-6, -4.7534243088], [0.99, 2.326347874]],
    ] as [number, number][]
  ) {
    const found = normalQuantile(probability);
    assert(
      Math.abs(found - exact) < 3e-9 * Math.max(1, Math.abs(exact)),
      `${probability}: ${found}`,
    );
  }
});

test("the middle and the ends", () => {
  assertEquals([median([2, 10, 9]), median([10, 9, 2, 1]), median([4])], [9, 5.5, 4]);
  assertEquals(spread([10, 9, 2]), { min: 2, max: 10 });
  assertThrows(() => median([]), RangeError);
  assertThrows(() => spread([]), RangeError);
});
