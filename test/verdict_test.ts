/** The verdict, on readers that are simulated: their true limit is known, and so is each mistake. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals, assertGreater } from "#std/assert";
import { fitLine } from "../src/measure/statistics.ts";
import { judge, type Sample } from "../src/measure/verdict.ts";

/** Uniform in [0, 1), the same series for a seed (Numerical Recipes' generator). */
function random(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 1664525 + 1013904223) >>> 0) / 2 ** 32;
}

type Kind = "steady" | "pausing";

/**
 * A reader that is offered `load` times what it can take, in steps of 1 ms, sampled every 10 ms with
 * the jitter of a pacer's tick. The pausing one does nothing for 50 ms of every 500.
 */
function simulate(kind: Kind, load: number, seconds: number, seed: number): Sample[] {
  const next = random(seed);
  const phase = next() * 0.5;
  const capacity = 1 / load;
  const samples: Sample[] = [];
  let backlog = 0;
  let drained = 0;
  for (let ms = 1; ms <= seconds * 1000; ms++) {
    const pausing = kind === "pausing" && (ms / 1000 + phase) % 0.5 < 0.05;
    const able = kind === "steady" ? capacity : pausing ? 0 : capacity / 0.9;
    const left = Math.max(0, backlog + 0.001 * (1 - able));
    drained += 0.001 - (left - backlog);
    backlog = left;
    if (ms % 10 > 0) continue;
    samples.push({ time: ms / 1000, backlog: backlog + 0.0007 * next(), drained });
  }
  return samples;
}

/** What a trial would say that goes on until the verdict is clear. */
function decide(samples: Sample[], minSeconds: number, tolerance: number) {
  for (let end = minSeconds; end <= samples.at(-1)!.time; end += 0.05) {
    const { verdict } = judge(samples.filter(({ time }) => time <= end), { offered: 1, tolerance });
    if (verdict !== undefined) return verdict;
  }
  return undefined;
}

describe("verdict", () => {
  for (const kind of ["steady", "pausing"] as const) {
    for (const load of [0.5, 0.9, 0.99, 0.998]) {
      test(`${kind} reader at ${load} of its limit keeps up, 50 of 50`, () => {
        for (let seed = 1; seed <= 50; seed++) {
          const verdict = decide(simulate(kind, load, 6, seed * 7919), 1, 0.0025);
          assertEquals(verdict, "keeps-up", `seed ${seed}`);
        }
      });
    }
    for (const load of [1.0075, 1.02, 1.1, 2]) {
      test(`${kind} reader at ${load} of its limit falls behind, 50 of 50`, () => {
        for (let seed = 1; seed <= 50; seed++) {
          const verdict = decide(simulate(kind, load, 6, seed * 7919), 1, 0.0025);
          assertEquals(verdict, "falls-behind", `seed ${seed}`);
        }
      });
    }
  }

  test("its capacity is what was offered less the growth of the backlog", () => {
    for (const kind of ["steady", "pausing"] as const) {
      const { backlogSlope } = judge(simulate(kind, 1.25, 3, 42), { offered: 1 });
      assertAlmostEquals(1 - backlogSlope, 0.8, 0.012, kind);
    }
  });

  test("a large backlog that does not grow is none of its concern", () => {
    const samples = simulate("steady", 0.9, 1, 1).map((s) => ({ ...s, backlog: s.backlog + 1e6 }));
    assertEquals(judge(samples, { offered: 1 }).verdict, "keeps-up");
  });

  test("a reader that collapses midway has fallen behind", () => {
    const samples: Sample[] = Array.from({ length: 300 }, (_, i) => {
      const time = i / 100;
      return { time, backlog: Math.max(0, time - 1) * 0.98 + 0.001, drained: Math.min(time, 1) };
    });
    assertEquals(judge(samples, { offered: 1 }).verdict, "falls-behind");
  });

  test("too few samples are no verdict", () => {
    assertEquals(judge([], { offered: 1 }).verdict, undefined);
    assertEquals(judge(simulate("steady", 2, 0.05, 1), { offered: 1 }).verdict, undefined);
  });

  test("a pause that takes up much of the trial is no verdict yet", () => {
    const samples = simulate("pausing", 0.9, 1, 3);
    const { backlogSlope } = judge(samples, { offered: 1 });
    assert(Number.isFinite(backlogSlope));
    assertEquals(judge(samples, { offered: 1, excursions: 30 }).verdict, undefined);
  });

  test("growth of just what is tolerated is marginal, and neither more nor less is", () => {
    const marginal = (load: number) => {
      let some = false;
      for (let seed = 1; seed <= 50; seed++) {
        const samples = simulate("pausing", load, 6, seed * 7919);
        const result = judge(samples, { offered: 1, tolerance: 0.0025 });
        assert(!result.marginal || result.verdict === undefined);
        some ||= result.marginal;
      }
      return some;
    };
    assertEquals([0.998, 1.0025, 1.0075].map(marginal), [false, true, false]);
  });

  test("a line through points on a line", () => {
    const { slope, halfWidth } = fitLine([[0, 1], [1, 3], [2, 5], [3, 7]]);
    assertAlmostEquals(slope, 2, 1e-12);
    assertAlmostEquals(halfWidth, 0, 1e-9);
    assertEquals(fitLine([[0, 1], [1, 3]]).halfWidth, Infinity);
    // Student's t: for 3 points, 12.71 standard errors.
    assertGreater(fitLine([[0, 0], [1, 1], [2, 0]]).halfWidth, 6);
  });
});
