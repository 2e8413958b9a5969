/** The search, without a socket: over readers that are formulas. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals, assertLessOrEqual } from "#std/assert";
import {
  searchLimit,
  type SearchOptions,
  type SearchPhase,
  type TrialOutcome,
} from "../src/measure/search.ts";

const OPTIONS: SearchOptions = {
  startRate: 500_000,
  minRate: 1000,
  maxRate: Infinity,
  precision: 0.01,
  tolerance: 0.0025,
};

interface Log {
  trials: { rate: number; effort: SearchPhase; verdict: string }[];
}

/** A reader by its capacity; it keeps up as long as its backlog's slope is within the tolerance. */
function reader(
  capacity: (rate: number, effort: SearchPhase, trial: number) => number,
  generator = Infinity,
): { trial: (rate: number, effort: SearchPhase) => Promise<TrialOutcome>; log: Log } {
  const log: Log = { trials: [] };
  const trial = (rate: number, effort: SearchPhase): Promise<TrialOutcome> => {
    const able = capacity(rate, effort, log.trials.length);
    const generatorLimited = rate > generator && able > generator;
    const behind = rate - able > OPTIONS.tolerance * rate;
    const verdict = generatorLimited ? "inconclusive" : behind ? "falls-behind" : "keeps-up";
    log.trials.push({ rate, effort, verdict });
    return Promise.resolve({
      offered: rate,
      verdict,
      generatorLimited,
      capacity: Math.min(rate, able),
    });
  };
  return { trial, log };
}

describe("search", () => {
  for (const limit of [2e3, 1e5, 1e6, 7.3e6, 20e6, 2e8, 1e9]) {
    test(`a steady reader of ${limit} B/s`, async () => {
      const { trial, log } = reader(() => limit);
      const result = await searchLimit(trial, OPTIONS);
      assertEquals(result.outcome, "found");
      assertAlmostEquals((result.lower + result.upper) / 2, limit, limit * 0.01);
      assertLessOrEqual(result.upper / result.lower, 1.01);
      assertLessOrEqual(log.trials.length, 22);
      assert(log.trials.some(({ effort }) => effort === "confirm"), "never confirmed");
    });
  }

  test("from below: nothing above twice the limit is ever offered", async () => {
    const { trial, log } = reader(() => 20e6);
    await searchLimit(trial, OPTIONS);
    assertLessOrEqual(Math.max(...log.trials.map(({ rate }) => rate)), 40e6);
  });

  test("a reader that collapses past its limit: the limit, not what is left of it", async () => {
    const { trial } = reader((rate) => rate > 50e6 ? 1e6 : 50e6);
    const result = await searchLimit(trial, OPTIONS);
    assertEquals(result.outcome, "found");
    assertAlmostEquals((result.lower + result.upper) / 2, 50e6, 0.5e6);
  });

  test("a glimpse in the ramp that a longer trial refutes", async () => {
    const { trial } = reader((_, effort) => effort === "ramp" ? 35e6 : 12e6);
    const result = await searchLimit(trial, OPTIONS);
    assertEquals(result.outcome, "found");
    assertAlmostEquals((result.lower + result.upper) / 2, 12e6, 0.12e6);
  });

  test("a hiccup in the ramp that a longer trial refutes", async () => {
    const { trial, log } = reader((_, effort, n) => effort === "ramp" && n === 2 ? 1e6 : 20e6);
    const result = await searchLimit(trial, OPTIONS);
    assertEquals(log.trials[2]!.verdict, "falls-behind");
    assertEquals(result.outcome, "found");
    assertAlmostEquals((result.lower + result.upper) / 2, 20e6, 0.2e6);
  });

  test("a reader whose speed varies gets a wider interval, which holds its speeds' middle", async () => {
    const speeds = [7.0e6, 7.4e6, 7.1e6, 7.3e6, 7.2e6];
    const { trial } = reader((_, __, n) => speeds[n % speeds.length]!);
    const result = await searchLimit(trial, OPTIONS);
    assert(result.lower > 6.5e6 && result.upper < 8e6, JSON.stringify(result));
    if (result.upper / result.lower > 1.01) assert(result.reason !== undefined);
  });

  test("a reader faster than the generator: no limit", async () => {
    const { trial } = reader(() => 1e12, 3e9);
    const result = await searchLimit(trial, OPTIONS);
    assertEquals(result.outcome, "generator-limited");
    assert(result.lower <= 3e9 && result.lower > 2e9, String(result.lower));
    assertEquals(result.upper, Infinity);
  });

  test("a limit just below the generator's is still found", async () => {
    const { trial } = reader(() => 2.5e9, 3e9);
    const result = await searchLimit(trial, OPTIONS);
    assertEquals(result.outcome, "found");
    assertAlmostEquals((result.lower + result.upper) / 2, 2.5e9, 25e6);
  });

  test("a highest rate that it keeps: no limit, and never more is offered", async () => {
    const { trial, log } = reader(() => 20e6);
    const result = await searchLimit(trial, { ...OPTIONS, maxRate: 3e6 });
    assertEquals(result.outcome, "generator-limited");
    assertEquals(result.lower, 3e6);
    assertLessOrEqual(Math.max(...log.trials.map(({ rate }) => rate)), 3e6);
  });

  test("below the range", async () => {
    const { trial, log } = reader(() => 500);
    const result = await searchLimit(trial, OPTIONS);
    assertEquals(result.outcome, "below-range");
    assert(Math.min(...log.trials.map(({ rate }) => rate)) >= 1000);
    assertEquals((await searchLimit(reader(() => 0).trial, OPTIONS)).outcome, "below-range");
  });

  test("a reader of no constant speed at all: irregular, and it ends", async () => {
    let coin = 7;
    const { trial, log } = reader(() => (coin = (coin * 16807) % 2147483647) % 2 === 0 ? 1e5 : 1e9);
    const result = await searchLimit(trial, OPTIONS);
    assert(result.outcome !== "found" || result.upper / result.lower > 1.01);
    assertLessOrEqual(log.trials.length, 64);
  });

  test("inconclusive trials are looked at twice, and are no lower bound", async () => {
    const looks: { rate: number; effort: SearchPhase; verdict: string }[] = [];
    const limit = 20e6;
    const trial = (rate: number, effort: SearchPhase): Promise<TrialOutcome> => {
      const near = Math.abs(rate / limit - 1) < 0.004;
      const verdict = near ? "inconclusive" : rate > limit ? "falls-behind" : "keeps-up";
      looks.push({ rate, effort, verdict });
      return Promise.resolve({
        offered: rate,
        verdict,
        generatorLimited: false,
        capacity: Math.min(rate, limit),
      });
    };
    const result = await searchLimit(trial, OPTIONS);
    assert(result.lower < limit * 0.997, JSON.stringify(result));
    const unclear = looks.findIndex(({ verdict }) => verdict === "inconclusive");
    assert(unclear >= 0, "none was inconclusive");
    assertEquals(looks[unclear + 1]!.effort, "confirm");
    assertAlmostEquals(looks[unclear + 1]!.rate, looks[unclear]!.rate, limit * 0.01);
  });

  test("what grows by just what is tolerated is looked at where it is clear, not again", async () => {
    const limit = 20e6;
    const unclear: number[] = [];
    let trials = 0;
    const trial = (rate: number): Promise<TrialOutcome> => {
      trials++;
      const slope = Math.max(0, 1 - limit / rate);
      const near = Math.abs(slope - OPTIONS.tolerance) < 0.4 * OPTIONS.tolerance;
      if (near) unclear.push(rate);
      const verdict = near
        ? "inconclusive"
        : slope > OPTIONS.tolerance
        ? "falls-behind"
        : "keeps-up";
      return Promise.resolve({
        offered: rate,
        verdict,
        generatorLimited: false,
        capacity: Math.min(rate, limit),
      });
    };
    // From several rates, so that some search comes by there.
    for (let start = 500_000; start < 1_000_000; start *= 1.01) {
      trials = 0;
      const result = await searchLimit(trial, { ...OPTIONS, startRate: start });
      assertEquals(result.outcome, "found");
      assert(result.lower < limit * (1 + OPTIONS.tolerance) && result.upper > limit);
      assertLessOrEqual(trials, 22);
    }
    assert(unclear.length > 0, "no search came by there");
    assertEquals(new Set(unclear).size, unclear.length, "looked at the same rate again");
  });
});
