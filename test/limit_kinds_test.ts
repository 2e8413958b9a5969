/** bin/limit.ts and readers that are not steady: what it says of them, and of their limit. */
import { describe, test, type TestContext } from "node:test";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "#std/assert";
import { compileC } from "../bench/readers/compile.ts";
import { kernelSource } from "../src/kernel/kernel.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { assertFound, limitOf, parse } from "./limiting.ts";
import { skip } from "./skip.ts";

/** A reader of bench/readers/kinds.c; undefined, and said so, where there can be none. */
async function kind(t: TestContext, ...args: string[]): Promise<string[] | undefined> {
  // Whether a window is closed, and what a reader left, shows in TCP_INFO only.
  if (kernelSource !== "sock_diag") {
    skip(t, `no TCP_INFO: source is ${kernelSource}`);
    return undefined;
  }
  try {
    const program = await compileC(new URL("../bench/readers/kinds.c", import.meta.url));
    const [name, ...rest] = args;
    return [program, name!, "{host}", "{port}", ...rest];
  } catch (error) {
    const why = (error as Error).message;
    if (!why.startsWith("no C compiler")) throw error;
    skip(t, why);
    return undefined;
  }
}

describe(`limit and a reader on ${runtime}`, () => {
  test("that waits for 256 KiB at once (SO_RCVLOWAT): it reads nothing at low rates", async (t) => {
    const reader = await kind(t, "lowat", "10000000");
    if (reader === undefined) return;
    const result = parse(await limitOf(reader, "--precision", "2%"));
    assertFound(result, 10e6, 0.02);
    assertStringIncludes(result.message, "when the sender falls silent, the reader leaves up to");
    assertEquals([result.hoards, result.overload!.collapsed], [false, false]);
  });

  test("that becomes slower with each message: no limit, but how much slower", async (t) => {
    const reader = await kind(t, "drift", "2000000", "--drift", "40");
    if (reader === undefined) return;
    // Time for a second look, should the first one not be enough.
    const { outcome, limit, message, drift } = parse(await limitOf(reader, "--time", "60s"));
    assertEquals([outcome, limit], ["irregular", null], message);
    assertMatch(message, /^the reader becomes slower the longer it runs/);
    // Each million of messages costs 40 % more of the first one's work.
    const { first, last, messages, perMillionMessages } = drift!;
    assert(last < 0.9 * first && first < 2.1e6, JSON.stringify(drift));
    assert(messages > 500_000 && perMillionMessages < -0.1 && perMillionMessages > -0.5);
  });
});
