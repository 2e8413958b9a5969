/** The tasks of deno.json, as a person calls them: Deno resolves their words in its own way. */
import { after, describe, test } from "node:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertEquals, assertMatch } from "#std/assert";
import { hasRuntime, Program, ROOT } from "./process.ts";
import { skip } from "./skip.ts";

const { tasks } = JSON.parse(readFileSync(join(ROOT, "deno.json"), "utf8")) as {
  tasks: Record<string, string>;
};

/** The same tasks with the packages of node_modules: no test is to ask a registry for them. */
const folder = mkdtempSync(join(tmpdir(), "speedlimit-tasks-"));
after(() => rmSync(folder, { recursive: true }));
const config = join(folder, "deno.json");
const offline = JSON.stringify({ tasks }).replaceAll("-modules-dir=none", "-modules-dir=manual");
writeFileSync(config, offline);

describe("deno task", () => {
  for (const name of Object.keys(tasks).filter((name) => name !== "ok")) {
    test(name, async (t) => {
      if (!hasRuntime("deno")) return skip(t, "no deno in node_modules");
      // Deno puts node_modules/.bin in front by itself, and must not take its own program for a script.
      const deno = join(ROOT, "node_modules/.bin/deno");
      const args = ["task", "-q", "-c", config, "--cwd", ROOT, name, "--help"];
      const ran = await new Program(deno, args, {}).ended;
      assertEquals(ran.status, 0, ran.stderr);
      assertMatch(ran.stdout, /^Usage|--help/m);
    });
  }
});
