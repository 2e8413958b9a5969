/** bin/map.ts: a reader with a known burst tolerance, one that survives everything, and ones that fail. */
import { describe, test, type TestContext } from "node:test";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "#std/assert";
import { GATHER, toleranceOf } from "../bench/burst_rows.ts";
import { compileC } from "../bench/readers/compile.ts";
import type { MapResult } from "../src/burst/map_result.ts";
import { kernelSource } from "../src/kernel/kernel.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { leavingNobody, misbehaving } from "./limiting.ts";
import { run, type RunResult, start } from "./process.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

const MAP = "bin/map.ts";
const TIMEOUT_MS = 120_000;

/** A reader of bench/readers; undefined, and said so, where there can be none. */
async function reader(t: TestContext, file: string, ...args: string[]) {
  if (kernelSource !== "sock_diag") {
    skip(t, `the backlog is not seen precisely: source is ${kernelSource}`);
    return undefined;
  }
  try {
    const program = await compileC(new URL(`../bench/readers/${file}`, import.meta.url));
    return [program, "{host}", "{port}", ...args];
  } catch (error) {
    const why = (error as Error).message;
    if (!why.startsWith("no C compiler")) throw error;
    skip(t, why);
    return undefined;
  }
}

const mapOf = (words: readonly string[], ...options: string[]): Promise<RunResult> =>
  run([MAP, "--json", "--size", "1000", ...options, "--", ...words], { timeoutMs: TIMEOUT_MS });

const parse = ({ stdout, stderr }: RunResult): MapResult => {
  assertEquals(stdout.trimEnd().split("\n").length, 1, `${stdout}${stderr}`);
  return JSON.parse(stdout);
};

describe(`map on ${runtime}`, () => {
  test("finds the burst tolerance of a reader that gathers, and its way back", async (t) => {
    const { limit, chunk, copying } = GATHER;
    const words = await reader(t, "gather.c", ...[limit, chunk, copying].map(String));
    if (words === undefined) return;
    const ran = await mapOf(words, "--limit", "20MB/s", "--rates", "40%", "--precision", "50%");
    const map = parse(ran);
    assertEquals([ran.status, map.outcome], [0, "vulnerable"], ran.stderr);
    const [found] = map.rates;
    const { tolerance: { lower, upper }, chances, state } = found!;
    // Others on this machine may disturb a try: a burst near the tolerance is then survived or not.
    const truth = toleranceOf(8e6);
    assert(lower > truth / 3 && lower < truth * 1.3, `${lower} to ${upper}, truth ${truth}`);
    assert(upper! > truth / 1.3 && upper! < truth * 3, `${lower} to ${upper}, truth ${truth}`);
    assertEquals(state, "vulnerable");
    assert(chances.every(({ lower, upper }) => lower <= upper));
    assertEquals(map.hysteresis?.collapsedAt, 8e6);
    assert(map.hysteresis!.returns! < 8e6);
    assertMatch(map.message, /^at 8.00 MB\/s \(40 % of its limit\), it survives a burst of /);
  });

  test("a reader that does not get slower comes back from everything", async (t) => {
    const words = await reader(t, "paced.c", "20000000");
    if (words === undefined) return;
    const options = ["--limit", "20MB/s", "--rates", "50%", "--largest-burst", "4M"];
    const map = parse(await mapOf(words, ...options));
    assertEquals([map.outcome, map.rates[0]!.state], ["stable", "stable"], map.message);
    assertEquals([map.rates[0]!.tolerance.upper, map.hysteresis, map.absorbs], [null, null, 0]);
    assertEquals(map.message, "it comes back from each burst that was tried, up to 4.19 MB");
  });

  test("--burst tries one burst, as text, with a picture", async (t) => {
    const words = await reader(t, "paced.c", "20000000");
    if (words === undefined) return;
    const { status, stdout } = await run(
      [
        ...[MAP, "--size", "1000", "--limit", "20MB/s", "--rates", "10%,50%", "--burst", "200k"],
        ...["--", ...words],
      ],
      { timeoutMs: TIMEOUT_MS },
    );
    assertEquals(status, 0);
    assertMatch(stdout, /^2\.00 MB\/s +10 % +205 kB +- +- +stable +2$/m);
    assertMatch(stdout, /^burst +2\.00 MB\/s +10\.0 MB\/s\n205 kB +\+ +\+$/m);
  });

  test("a reader that fails is reported: 1", async () => {
    const { status, stdout } = await mapOf(["/no/such/reader", "{port}"], "--limit", "1MB/s");
    const map: MapResult = JSON.parse(stdout);
    assertEquals([status, map.outcome], [1, "reader-failed"]);
    assertStringIncludes(map.message, "cannot start the reader");
  });

  test("Ctrl-C: 130, with what is known, and nobody is left", async () => {
    const ran = await leavingNobody(async (pids) => {
      const words = misbehaving("reads, and ignores SIGTERM", pids);
      const options = ["--json", "--limit", "5MB/s", "--stop-timeout", "200ms"];
      const program = start([MAP, ...options, "--", ...words]);
      await within("a burst", 60_000, program.saw(/burst /));
      program.kill("SIGINT");
      return await within("its end", 10_000, program.ended);
    });
    const map = parse(ran);
    assertEquals([ran.status, map.interrupted], [130, true]);
    assertStringIncludes(map.message, "interrupted");
  });
});

describe("a wrong command line of map", () => {
  for (
    const [args, message] of [
      [["--limit", "1MB/s"], "no command after --; an example is"],
      [["--limit", "fast", "--", "x"], "cannot read fast"],
      [["--limit", "0", "--", "x"], `--limit "0" must be a rate`],
      [["--limit", "1MB/s", "--rates", "120%", "--", "x"], `--rates "120%" must be shares`],
      [["--limit", "1MB/s", "--burst", "-1", "--", "x"], "--burst"],
    ] as const
  ) {
    test(args.join(" "), async () => {
      const { status, stdout, stderr } = await run([MAP, ...args]);
      assertEquals(stdout, "");
      assertEquals(status, message.startsWith("cannot") ? 1 : 2, stderr);
      assertStringIncludes(stderr, message);
      assertEquals(stderr.trimEnd().split("\n").length, 1, stderr);
    });
  }
});
