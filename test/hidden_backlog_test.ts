/** Readers that queue in their own memory: the decision as formulas, and real readers of known rates. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals, assertGreater, assertLess } from "#std/assert";
import { compileC } from "../bench/readers/compile.ts";
import {
  HELD_BACK,
  type HiddenBacklog,
  isBehind,
  isConfirmed,
  processingRate,
} from "../src/measure/hidden_backlog.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { limitOf, parse } from "./limiting.ts";
import { withoutKernel } from "./relaying.ts";
import { skip } from "./skip.ts";

const hidden = (seconds: number, quiet = true): HiddenBacklog => ({
  ...{ seconds, quiet, background: undefined },
});

describe("a hidden backlog", () => {
  test("is more work than one read and one look leave", () => {
    for (
      const [worked, seconds, ramp, behind] of [
        [0, 0.3, true, false],
        [0.1, 0.3, true, false],
        // Offered 1.5 times its limit.
        [0.15, 0.3, true, true],
        [0.1, 2, false, false],
        [0.2, 2, false, true],
      ] as const
    ) {
      const trial = { seconds, ramp, pause: 0 };
      assertEquals(isBehind(hidden(worked), trial), behind, `${worked} s of ${seconds} s`);
      // One that reads only now and then has up to that much to do in any case.
      assertEquals(isBehind(hidden(worked), { ...trial, pause: 0.4 }), false);
    }
    const busy = { ...hidden(1), background: "a thread wakes up" };
    assertEquals(isBehind(busy, { seconds: 1, pause: 0 }), false);
  });

  test("is confirmed by a longer trial, with which it grows", () => {
    const first = { hidden: hidden(0.3), seconds: 0.5 };
    const confirmed = (worked: number, quiet = true) =>
      isConfirmed(first, { hidden: hidden(worked, quiet), seconds: 1 }, 0);
    assertEquals([confirmed(0.6), confirmed(0.4), confirmed(0.3)], [true, true, false]);
    // It still worked when we stopped to look.
    assertEquals(confirmed(0.3, false), true);
    assertEquals(confirmed(0.05, false), false);
  });

  test("tells the rate at which a reader works", () => {
    // 2 MB/s, offered 3 MB/s for 2 s: another second of work.
    const trials = [0.99, 1, 1.01].map((worked) => ({ bytes: 6e6, seconds: 2, worked }));
    const { lower, upper } = processingRate(trials, 0.95);
    assertAlmostEquals((lower + upper) / 2, 2e6, 100);
    // Student's t(2) = 4.303, s = 6,667 of three rates; and 20 ms of 3 s.
    const half = 4.303 * 6667 / Math.sqrt(3) + 2e6 * 0.02 / 2.99;
    assertAlmostEquals((upper - lower) / 2, half, 100);
    const wider = processingRate(trials, 0.99);
    assert(wider.lower < lower && wider.upper > upper);
  });
});

describe(`limit of a reader that queues in its own memory, on ${runtime}`, () => {
  for (const [name, options] of [["without a bound", []], ["up to 4 MB", ["--bound", "4000000"]]]) {
    test(`${name}: what it works on, not what it takes`, async (t) => {
      if (withoutKernel(t)) return;
      let program: string;
      try {
        program = await compileC(new URL("../bench/readers/kinds.c", import.meta.url));
      } catch (error) {
        const why = (error as Error).message;
        if (!why.startsWith("no C compiler")) throw error;
        return skip(t, why);
      }
      const reader = [program, "queue", "{host}", "{port}", "2000000", ...options!];
      const result = parse(await limitOf(reader));
      const { outcome, limit, until, hoards, intake, overload, trials } = result;
      const what = JSON.stringify(result);
      assert(limit !== null && /^(found|irregular)$/.test(outcome), what);
      assertEquals([until, hoards, overload], ["worked", true, null], what);
      // 5 % to either side: other programs may have kept us or the reader from the core.
      assertLess(limit.lower, 2e6 * 1.05, what);
      assertGreater(limit.upper, 2e6 * 0.95, what);
      assertLess(limit.upper / limit.lower, 1.2, what);
      assertGreater(intake!.lower, 2e6, what);
      assertGreater(result.hidden!.bytes, HELD_BACK, what);
      assert(trials.some(({ workedOn }) => workedOn !== null && workedOn > 0.5), what);
    });
  }

  test("--until taken: what it takes", async (t) => {
    if (withoutKernel(t)) return;
    const program = await compileC(new URL("../bench/readers/kinds.c", import.meta.url))
      .catch(() => undefined);
    if (program === undefined) return skip(t, "no C compiler");
    const reader = [program, "queue", "{host}", "{port}", "2000000"];
    const result = parse(await limitOf(reader, "--until", "taken", "--max-rate", "4MB/s"));
    const { outcome, until, hoards, trials } = result;
    assertEquals([outcome, until, hoards], ["generator-limited", "taken", false]);
    assert(trials.every(({ workedOn, readerCpu }) => workedOn === null && readerCpu === null));
  });
});
