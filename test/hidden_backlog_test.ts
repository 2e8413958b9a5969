/** Readers of known rates that queue in their own memory. What is decided: processing_test.ts. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertGreater, assertLess } from "#std/assert";
import { compileC } from "../bench/readers/compile.ts";
import { HELD_BACK } from "../src/measure/hidden_backlog.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { limitOf, parse } from "./limiting.ts";
import { withoutKernel } from "./relaying.ts";
import { skip } from "./skip.ts";

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
