/** The arithmetic of offsets: random operations and kills, compared with a model. */
import { describe, test } from "node:test";
import { assertGreater } from "#std/assert";
import { type ModelRun, MODELS, runModel } from "../bench/stream_model.ts";

/** With these, each kind does some 15,000 operations: 100,000 in all. */
const SEEDS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
const STEPS = 1500;

describe("a stream with random operations and kills", () => {
  for (const [name, kind] of Object.entries(MODELS)) {
    test(name, async () => {
      const sum: ModelRun = { pushed: 0, delivered: 0, kills: 0, restarts: 0, stored: 0, gaps: 0 };
      for (const seed of SEEDS) {
        const run = await runModel({ seed, steps: STEPS, kills: 0.003, ...kind });
        for (const key of Object.keys(sum) as (keyof ModelRun)[]) sum[key] += run[key];
      }
      // It has done something.
      assertGreater(sum.kills, 10);
      assertGreater(sum.restarts, 5);
      assertGreater(sum.delivered, 10_000);
      assertGreater(sum.stored, 10_000);
    });
  }
});
