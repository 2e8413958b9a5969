/** bin/limit.ts and readers that are not steady: what it says of them, and of their limit. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "#std/assert";
import { runtime } from "../src/kernel/runtime.ts";
import { assertFound, kind, limitOf, parse } from "./limiting.ts";

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
