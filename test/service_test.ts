/** The service rate of a reader that always has something to read, from batches that can be worked out by hand. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals } from "#std/assert";
import { ServiceRate } from "../src/measure/service.ts";

/** A reader that drains so many bytes in each second. */
function drains(batches: readonly number[]): ServiceRate {
  const service = new ServiceRate(1);
  let drained = 1;
  // The first batch begins where it has just read something.
  service.add(-1, 0);
  service.add(0, drained);
  batches.forEach((bytes, i) => service.add(i + 1, drained += bytes));
  return service;
}

const times = <T>(count: number, values: readonly T[]): T[] => Array(count).fill(values).flat();
const upTo = (count: number) => Array.from({ length: count }, (_, i) => i + 1);

describe("the service rate", () => {
  test("of a reader that reads seldom has not half a read more or less in it", () => {
    const service = new ServiceRate();
    for (let i = 0; i <= 1600; i++) service.add(i / 100, Math.floor((i + 13) / 40) * 40_000);
    const { mean, halfWidth } = service.estimate(0.05);
    assert(Math.abs(mean / 100_000 - 1) < 1e-4 && halfWidth < 1, `${mean} ${halfWidth}`);
  });

  test("without eight batches, only the mean is known", () => {
    assertEquals(new ServiceRate().estimate(0.05), { mean: 0, halfWidth: Infinity, seconds: 0 });
    assertEquals(drains(upTo(7)).estimate(0.05), { mean: 4, halfWidth: Infinity, seconds: 7 });
    assertEquals(drains(times(8, [5])).estimate(0.05), { mean: 5, halfWidth: 0, seconds: 8 });
  });

  test("has the interval of batch means, wider where neighbours are alike", () => {
    // Student's t for the degrees of freedom, times the standard error, worked out with SciPy.
    for (
      const [batches, halfWidth] of [
        // Neighbours differ: s = 10.69 of 8, t(7) = 2.3646.
        [times(4, [90, 110]), 8.937440],
        // r = 1/8 + 1/8, so (1 + r) / (1 - r) = 5/3; t(7 / (5/3)) = t(4.2) = 2.7251.
        [times(2, [1, 1, 2, 2]), 0.664850],
        // r = 3/4: t(1) = 12.706.
        [upTo(8), 29.113572],
        // r = 0.961 counts as 0.9.
        [
          [503, 524, 567, 628, 706, 797, 896, 1000, 1104, 1203, 1294, 1372, 1433, 1476, 1497],
          5234.565840,
        ],
        // Of 16 batches and of the 8 pairs, the wider interval.
        [times(2, [100, 100, 100, 100, 140, 140, 140, 140]), 31.769139],
        [[1, 2, 4, 8, 13, 19, 26, 33, 40, 47, 54, 60, 65, 69, 71, 72], 385.681966],
        // 31 batches count, 32 do not; their pairs are alike.
        [[...times(15, [50, 150]), 100], 18.340148],
        [times(16, [50, 150]), 0],
      ] as [number[], number][]
    ) {
      const found = drains(batches).estimate(0.05);
      const mean = batches.reduce((sum, each) => sum + each, 0) / batches.length;
      assertAlmostEquals(found.mean, mean, 1e-9);
      assertAlmostEquals(found.halfWidth, halfWidth, 1e-5 * halfWidth, `${batches}`);
    }
    // Batches of two lengths count by their lengths.
    const service = new ServiceRate(1);
    service.add(-1, 0);
    for (let i = 0, time = 0; i <= 8; time += 1 + i++ % 2) service.add(time, 1 + 10 * time);
    assertEquals(service.estimate(0.05), { mean: 10, halfWidth: 0, seconds: 12 });
  });

  test("keeps 128 batches at most: then each is twice as long", () => {
    assertEquals(drains(times(127, [1])).seconds, 127);
    assertEquals(drains(times(129, [1])).seconds, 128);
    assertEquals(drains(times(130, [1])).seconds, 130);
  });

  test("has batches of 50 ms to begin with", () => {
    const service = new ServiceRate();
    service.add(0, 0);
    service.add(1, 1);
    service.add(1.04, 2);
    assertEquals(service.seconds, 0);
    service.add(1.0625, 3);
    assertEquals(service.seconds, 0.0625);
  });
});

describe("a change of the service rate", () => {
  test("is a trend where nearly each batch is above, or below, those before it", () => {
    // The means of the halves differ by 4, half of 8 s apart.
    assertEquals([drains(upTo(8)).trend(), drains(upTo(8).reverse()).trend()], [1, -1]);
    // Two of 28 pairs are the other way round, then three.
    assertEquals(drains([2, 1, 4, 3, 5, 6, 7, 8]).trend(), 1);
    assertEquals(drains([8, 7, 6, 5, 3, 4, 1, 2]).trend(), -1);
    assertEquals(drains([2, 1, 4, 3, 6, 5, 7, 8]).trend(), 0);
    assertEquals(drains(upTo(7)).trend(), 0);
    // The one in the middle belongs to no half.
    assertEquals(drains([...upTo(4), 4.5, 5, 6, 7, 8]).trend(), 4 / 4.5);
    assertEquals(drains([1, 1, 1, 1, 1, 1, 1, 1]).trend(), 0);
    const zigzag = upTo(16).map((i) => i + (i % 2 === 0 ? 10 : 20));
    assertEquals(drains(zigzag).trend(), 1);
    assertEquals(drains(zigzag.slice(0, 15)).trend(), 0);
  });

  test("is told from the first and the last quarter", () => {
    const drift = drains([1, 3, 9, 9, 9, 9, 5, 7]).drift();
    assertEquals(drift, { first: 2, last: 6, seconds: 8, bytes: 52 });
    const { first, last } = drains([1, 2, 4]).drift();
    assertEquals([first, last], [1, 4]);
  });

  test("shows in the fastest part of the time", () => {
    const service = drains([1, 1, 5, 1, 1, 1, 1, 4]);
    const fastest = [1, 2, 3, 8, 9].map((seconds) => service.fastest(seconds));
    assertEquals(fastest, [5, 3, 7 / 3, 15 / 8, 0]);
  });
});
