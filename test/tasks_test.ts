/** The tasks of deno.json, as a person calls them: Deno resolves their words in its own way. */
import { describe, test } from "node:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { assertEquals, assertMatch } from "#std/assert";
import { hasRuntime, Program, ROOT } from "./process.ts";

const { tasks } = JSON.parse(readFileSync(join(ROOT, "deno.json"), "utf8")) as {
  tasks: Record<string, string>;
};

describe("deno task", () => {
  for (const name of Object.keys(tasks).filter((name) => name !== "ok")) {
    test(name, async (t) => {
      if (!hasRuntime("deno")) return t.skip("no deno in node_modules");
      // Deno puts node_modules/.bin in front by itself, and must not take its own program for a script.
      const deno = join(ROOT, "node_modules/.bin/deno");
      const ran = await new Program(deno, ["task", "-q", name, "--help"], {}).ended;
      assertEquals(ran.status, 0, ran.stderr);
      assertMatch(ran.stdout, /^Usage|--help/m);
    });
  }
});
