/** bin/plan.ts: what it prints, and its command line. */
import { after, describe, test } from "node:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertEquals, assertMatch, assertStringIncludes } from "#std/assert";
import type { Plan } from "../src/plan/plan.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { madeLimit } from "./bench_results.ts";
import { run } from "./process.ts";

const folder = mkdtempSync(join(tmpdir(), "speedlimit-plan-"));
after(() => rmSync(folder, { recursive: true }));
const file = (name: string, text: string): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};

const planOf = (...args: string[]) => run(["bin/plan.ts", ...args]);
const PEAK = ["--rate", "5MB/s", "--peak", "40MB/s", "--for", "3s"];

describe(`plan on ${runtime}`, () => {
  test("prints the answers as text", async () => {
    const { status, stdout, stderr } = await planOf(
      ...["--limit", "20MB/s", ...PEAK, "--sender-buffer", "4M", "--outage", "60s"],
    );
    assertEquals([status, stderr], [0, ""]);
    for (
      const line of [
        /^largest backlog +60\.0 MB, after 3\.00 s$/m,
        /^longest delay +3\.00 s$/m,
        /^cleared +4\.00 s later$/m,
        /^sender +disconnects the reader after 210 ms: its buffer of 4\.19 MB is full$/m,
        /^outage of 60\.0 s +405 MB to store; cleared 27\.0 s after the reader is back$/m,
        /^What helps most: a buffer of 60\.0 MB at the sender/m,
        /^40\.0 MB\/s +0 B +0 s$/m,
      ]
    ) assertMatch(stdout, line);
  });

  test("says so where a reader is too slow for ever, and where it is fast enough", async () => {
    const slow = await planOf("--limit", "4MB/s", "--rate", "5MB/s");
    assertMatch(slow.stdout, /^backlog +grows for ever/m);
    assertStringIncludes(slow.stdout, "Only a reader of 5.00 MB/s, 1.25 times as fast, helps");
    const fast = await planOf("--limit", "55MB/s", ...PEAK);
    assertMatch(fast.stdout, /^largest backlog +none: the feed is never faster than the reader$/m);
    assertStringIncludes(fast.stdout, "Nothing has to change.");
  });

  test("takes the limit from a result, a trace from a file or standard input", async () => {
    const limit = file("limit.json", JSON.stringify(madeLimit("a reader", 20e6)));
    const trace = "time,messages\n0,3000\n1,1000\n2,1000\n";
    const args = ["--limit", limit, "--size", "1000", "--json"];
    const one = await planOf(...args, "--trace", file("trace.csv", trace));
    assertEquals([one.status, one.stderr], [0, ""]);
    const plan: Plan = JSON.parse(one.stdout);
    assertEquals(plan.schema, "speedlimit/plan@1");
    assertEquals(plan.limit, madeLimit("a reader", 20e6).limit!.lower);
    assertEquals(plan.feed, { seconds: 3, bytes: 5e6, afterwards: 5e6 / 3, peak: 3e6 });
    const two = await run(["bin/plan.ts", ...args, "--trace", "-"], { input: trace });
    assertEquals(two.stdout, one.stdout);
  });
});

describe("a wrong command line of plan", () => {
  const bad = file("bad.csv", "time,bytes\n0,1\nx,2\n");
  for (
    const [args, status, message] of [
      [["--rate", "1MB/s"], 2, "no --limit"],
      [["--limit", "1MB/s"], 2, "no feed: give --rate, or --trace"],
      [["--limit", "1MB/s", "--rate", "1MB/s", "--trace", "x"], 2, "exclude each other"],
      [["--limit", "1MB/s", "--rate", "1MB/s", "--peak", "2MB/s"], 2, "--peak and --for need"],
      [["--limit", "1MB/s", "--trace", bad, "--peak", "2MB/s", "--for", "1s"], 2, "--peak needs"],
      [["--limit", "1MB/s", "--rate", "max"], 2, `--rate "max" must be a rate`],
      [["--limit", "1000/s", "--rate", "1MB/s"], 2, "--limit is in messages: --size must say"],
      [["--limit", "1MB/s", "--rate", "1MB/s", "--after", "8M"], 2, "must be a size and a time"],
      [["--limit", "1MB/s", "--trace", bad], 1, "bad.csv: line 3 must have a time and a number"],
      [["--limit", "1MB/s", "--trace", "none.csv"], 1, "cannot read none.csv"],
      [["--limit", "none.json", "--rate", "1MB/s"], 1, "cannot read none.json"],
    ] as const
  ) {
    test(args.join(" ").replace(folder, ""), async () => {
      const ran = await planOf(...args);
      assertEquals([ran.status, ran.stdout], [status, ""], ran.stderr);
      assertStringIncludes(ran.stderr, message);
      assertEquals(ran.stderr.trimEnd().split("\n").length, 1, ran.stderr);
    });
  }
});
