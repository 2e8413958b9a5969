/** bench/soak.ts for some seconds, and what it calls growth. */
import { describe, test } from "node:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, assertAlmostEquals, assertEquals, assertGreater } from "#std/assert";
import { growthOf } from "../bench/soak_watch.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { run } from "./process.ts";

const SIZES = { share: 0.1, amount: 5 };

describe("growth", () => {
  const seconds = Array.from({ length: 100 }, (_, i) => i);

  test("is from the first quarter to the last, and its slope is by the hour", () => {
    const growth = growthOf(seconds.map((at) => 1000 + at), seconds, SIZES);
    assertEquals([growth.first, growth.last, growth.most], [1012, 1087, 1012 * 1.1 + 5]);
    assertAlmostEquals(growth.slope, 3600);
    assert(growth.met);
  });

  test("is too much above the share and the amount", () => {
    assert(!growthOf(seconds.map((at) => 100 + at), seconds, SIZES).met);
    assert(growthOf(seconds.map((at) => 100 - at), seconds, SIZES).met);
    // One sample that is large says nothing.
    assert(growthOf(seconds.map((at) => at === 90 ? 1e9 : 100), seconds, SIZES).met);
  });
});

describe(`bench/soak.ts on ${runtime}`, () => {
  test("for 8 seconds: nothing is missing, and all figures are there", async () => {
    const folder = mkdtempSync(join(tmpdir(), "speedlimit-soak-"));
    try {
      const out = join(folder, "soak.json");
      const args = ["--minutes", "0.13", "--runtime", runtime, "--out", out];
      const { status, stdout, stderr } = await run(["bench/soak.ts", ...args], {
        timeoutMs: 240_000,
      });
      const { schema, rows } = JSON.parse(readFileSync(out, "utf8"));
      const [row] = rows;
      assertEquals(schema, "speedlimit/soak@1");
      assertEquals(row.fault, undefined);
      // Whether anything grows is not for so short a run to say: readers come and go by chance.
      assertEquals(status, row.met ? 0 : 1, stdout + stderr);
      assert(row.visits > 5 && row.kills >= 1, stdout);
      assertGreater(row.samples.length, 10);
      for (const { memory, descriptors, threads } of row.samples) {
        assert(memory > 1e6 && descriptors > 5 && threads > 1);
      }
      assertGreater(row.lateness.most, 0);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
