/** Proves which runtime runs this suite: three green runs on one of them would be worth one. */
import { test } from "node:test";
import { realpathSync } from "node:fs";
import { basename } from "node:path";
import process from "node:process";
import { assert, assertEquals, assertMatch } from "#std/assert";
import { loadAdapter } from "../src/net/load.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { skip } from "./skip.ts";

const expected = process.env.SPEEDLIMIT_EXPECT_RUNTIME;
const versions = process.versions as Readonly<Record<string, string | undefined>>;
const globals = globalThis as { Deno?: { version: { deno: string } }; Bun?: { version: string } };

test("the suite runs on the runtime that was asked for", (t) => {
  if (expected === undefined) {
    const why = "SPEEDLIMIT_EXPECT_RUNTIME is not set: nothing is expected";
    return skip(t, why);
  }
  assertEquals(runtime, expected);
  // By the global object: all three have a `process`, only one has the other two.
  assertEquals("Deno" in globalThis, expected === "deno");
  assertEquals("Bun" in globalThis, expected === "bun");
  // By the versions that it is made of.
  assertEquals(versions.deno !== undefined, expected === "deno");
  assertEquals(versions.bun !== undefined, expected === "bun");
  // By the program that the kernel runs.
  assertMatch(basename(process.execPath), new RegExp(`^${expected}`));
  assertEquals(realpathSync("/proc/self/exe"), realpathSync(process.execPath));
});

test("it says of itself what it is", async () => {
  switch (runtime) {
    case "deno":
      assertEquals(versions.deno, globals.Deno!.version.deno);
      break;
    case "bun":
      assertEquals(versions.bun, globals.Bun!.version);
      break;
    case "node":
      assertEquals(`v${versions.node}`, process.version);
      assert(versions.v8 !== undefined, "a Node without V8");
  }
  assertEquals((await loadAdapter()).name, runtime);
});
