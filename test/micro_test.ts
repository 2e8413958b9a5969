/** bench/micro.ts as a process: briefly, for what it prints and leaves behind, not for its figures. */
import { describe, test } from "node:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "#std/assert";
import { runtime } from "../src/kernel/runtime.ts";
import { hasRuntime, Program, ROOT, run } from "./process.ts";
import { skip } from "./skip.ts";

const MARK = "SPEEDLIMIT_MICRO_TEST";

/** Processes with this in their environment: whatever a marked one started, and did not end. */
function marked(mark: string): string[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/environ`, "latin1").includes(`${MARK}=${mark}`);
    } catch {
      // Another's, or gone by now.
      return false;
    }
  });
}

async function micro(...args: string[]): Promise<string> {
  const mark = crypto.randomUUID();
  const options = { timeoutMs: 55_000, env: { [MARK]: mark } };
  const { status, stdout, stderr, timedOut } = await run(["bench/micro.ts", ...args], options);
  assertEquals([status, timedOut], [0, false], stderr);
  assertEquals(marked(mark), []);
  return stdout;
}

describe(`bench/micro.ts on ${runtime}`, () => {
  test("as JSON: each read and write on both sides, and the rest", async () => {
    const stdout = await micro("--quick", "--json");
    assertEquals(stdout.trim().split("\n").length, 1);
    const { schema, rows, singles, skipped, ...rest } = JSON.parse(stdout);
    assertEquals([schema, rest.runtime, rest.quick], ["speedlimit/micro@1", runtime, true]);
    const sizes = [64, 1024, 65_536];
    const expected = ["write", "read"].flatMap((what) => sizes.map((size) => [what, size]));
    assertEquals(rows.map(({ what, size }: Record<string, unknown>) => [what, size]), expected);
    for (const { size, bare, adapter, cost, costs, most, met } of rows) {
      assert(bare > 0 && adapter > 0 && bare < 0.1 && adapter < 0.1, JSON.stringify(rows));
      assert(cost > -1 && costs[0] <= costs[1], JSON.stringify(rows));
      assertEquals(most, { 64: 0.15, 65536: 0.03 }[size as number] ?? null);
      assertEquals(met, most === null ? null : cost <= most);
    }
    assertEquals(singles.length + skipped.length, 6);
    for (const { seconds } of singles) assert(seconds > 0 && seconds < 1, JSON.stringify(singles));
  });

  test("for people: mitata's charts, then the table", async (t) => {
    if (runtime !== "bun") return skip(t, "they are made alike on each runtime: Bun's take least");
    const stdout = await micro("--quick");
    for (const direction of ["write", "read"]) {
      assertStringIncludes(stdout, `${direction} 1 MiB in pieces of 64k, bare`);
    }
    assertMatch(stdout, /\nsummary\n/);
    assertMatch(
      stdout,
      /\nwhat +size +bare +adapter +adapter's cost +quartiles +most +verdict\n/,
    );
    const verdict = String.raw`(reached|target not reached \(by \d+\.\d points\))`;
    for (const size of ["64", "64k"]) {
      assertMatch(stdout, new RegExp(`\nwrite +${size} .*% {2,}${verdict}\n`));
      assertMatch(stdout, new RegExp(`\nread +${size} .*% {2,}${verdict}\n`));
    }
    assertStringIncludes(
      stdout,
      "\nmedian of 3 rounds; quick run: these figures are not precise\n",
    );
  });
});

describe("the script micro of package.json", () => {
  const agents = { bun: "bun/1.4.5 npm/? node/v26.3.0 linux x64", node: "npm/11.0.0 node/v26.0.0" };
  for (const [called, agent] of Object.entries(agents)) {
    test(`measures ${called} where ${agent.split("/")[0]} runs it`, async (t) => {
      if (!hasRuntime("bun") || !hasRuntime("node")) return skip(t, "no bun or no node here");
      const env = { npm_config_user_agent: agent };
      const program = join(ROOT, "node_modules/.bin/bun");
      // An agent that is given stands for a nested call: Bun leaves it as it is.
      const ran = await new Program(program, ["run", "micro", "--help"], { env }).ended;
      assertEquals(ran.status, 0, ran.stderr);
      assertMatch(ran.stdout, new RegExp(`^Measures the cost of single operations on ${called}:`));
    });
  }
});
