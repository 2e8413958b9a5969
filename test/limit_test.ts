/** bin/limit.ts as a process: the limit of readers whose limit is known, and the range it is looked for in. */
import { describe, test } from "node:test";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertGreater,
  assertLess,
  assertLessOrEqual,
  assertMatch,
  assertStringIncludes,
} from "#std/assert";
import type { LimitResult } from "../src/measure/limit_result.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { assertFound, command, LIMIT, limitOf, paced, parse, SOON } from "./limiting.ts";
import { run } from "./process.ts";

describe("a reader with a known limit", () => {
  const RATE = 20e6;

  test("20 MB/s is found within 2 %, and the JSON is as documented", async (t) => {
    const reader = await paced(t, RATE);
    if (reader === undefined) return;
    const ran = await limitOf(reader);
    const result = parse(ran);
    assertFound(result, RATE, 0.02);
    assertEquals(ran.status, result.outcome === "found" ? 0 : 1, ran.stderr);
    const { limit, overload, recovery, trials, environment } = result;
    assertAlmostEquals(limit!.messagesPerSecond, limit!.lower / 13, 1e-6 * RATE);
    // Offered twice its limit it is as fast as before: this reader does not collapse.
    assertAlmostEquals(overload!.offered, 2 * limit!.upper, 0.05 * RATE);
    assertLess(overload!.drained, 1.2 * RATE);
    assertGreater(overload!.drained, limit!.lower / 2);
    assertEquals(overload!.collapsed, false);
    assertEquals(recovery!.recovered, true);
    assert(recovery!.seconds >= 0 && recovery!.seconds < 10, `${recovery!.seconds} s`);
    assertEquals(trials.at(-1)!.purpose, "overload");

    assertEquals(Object.keys(result), [
      ...["schema", "reader", "readers", "outcome", "message"],
      ...[
        "limit",
        "keepsUpAt",
        "until",
        "intake",
        "hoards",
        "hidden",
        "output",
        "drift",
        "overload",
        "recovery",
        "trials",
        "interrupted",
        "queueSource",
      ],
      ...["messageSize", "precision", "confidence", "sampleSeconds", "seconds", "environment"],
    ]);
    assertEquals([result.schema, result.reader], ["speedlimit/limit@2", reader.join(" ")]);
    assertEquals([result.readers, result.messageSize, result.precision], [1, 13, 0.01]);
    assertEquals([result.interrupted, result.queueSource], [false, "socket"]);
    assertEquals(Object.keys(limit!), ["lower", "upper", "messagesPerSecond"]);
    assertEquals(Object.keys(overload!), ["offered", "drained", "collapsed"]);
    assertEquals(Object.keys(recovery!), ["recovered", "seconds"]);
    let seconds = 0;
    for (const trial of trials) {
      assertEquals(Object.keys(trial), [
        ...["offered", "achieved", "drained", "backlogSlope", "stalled", "seconds", "verdict"],
        ...["purpose", "workedOn", "readerCpu", "senderCpu"],
      ]);
      const { offered, achieved, drained, backlogSlope, stalled, verdict } = trial;
      for (const each of [offered, achieved, drained, trial.seconds]) assertGreater(each, 0);
      assert(Number.isFinite(backlogSlope));
      if (stalled !== null) assert(stalled >= 0 && stalled <= 1, `stalled ${stalled}`);
      assertMatch(verdict, /^(keeps-up|falls-behind|inconclusive)$/);
      assertLessOrEqual(achieved, offered);
      seconds += trial.seconds;
    }
    assertGreater(result.seconds, seconds);
    for (const key of ["date", "cpu", "cores", "memory", "kernel", "runtime", "kernelSource"]) {
      assert(key in environment, `no ${key}`);
    }
    assertMatch(environment.runtime, new RegExp(`^${runtime} \\d`));
    assert(Math.abs(Date.parse(environment.date) - Date.now()) < 120_000, environment.date);
  });

  test("the widest precision that the command line takes still finds it", async (t) => {
    const reader = await paced(t, 3e6);
    if (reader === undefined) return;
    const ran = await limitOf(reader, "--precision", "50%");
    const result = parse(ran);
    assertFound(result, 3e6, 0.03);
    assertEquals([ran.status, result.outcome], [0, "found"], ran.stderr);
  });

  test("two of them: the limit of each, and which was behind first", async (t) => {
    const reader = await paced(t, RATE);
    if (reader === undefined) return;
    const ran = await limitOf(reader, "--readers", "2", "--precision", "10%");
    const result = parse(ran);
    assertFound(result, RATE, 0.1);
    assertEquals(result.readers, 2);
    assertEquals(ran.status, result.outcome === "found" ? 0 : 1, ran.stderr);
    assertMatch(String(result.firstBehind), /^[01]$/);
  });
});

describe("the range", () => {
  test("a reader above --max-rate is generator-limited, with no limit made up", async () => {
    const reader = command("client.ts", "{host}:{port}");
    const [json, people] = [
      await limitOf(reader, "--max-rate", "4MB/s"),
      await run([LIMIT, "--max-rate", "1MB/s", "--", ...reader], { timeoutMs: 60_000 }),
    ];
    const { outcome, limit, overload, recovery, trials, message } = parse(json);
    assertEquals([json.status, outcome], [0, "generator-limited"], json.stderr);
    assertEquals([limit, overload, recovery], [null, null, null]);
    assertMatch(message, /highest rate that may be offered/);
    assertEquals(Math.max(...trials.map(({ offered }) => offered)), 4e6);
    assertEquals(people.status, 0);
    assertStringIncludes(people.stdout, "above 1.00 MB/s");
    assertMatch(people.stderr, /ramp +500 kB\/s {2}keeps up/);
  });

  test("a reader below --min-rate is below-range", async () => {
    // 10 bytes in 20 µs: 500 kB/s at most. Bun reads all that the receive buffer holds at once.
    const naive = ["--mode", "naive", "--work", "20us", "--rcvbuf", "64k"];
    const reader = command("client.ts", "{host}:{port}", ...naive);
    const ran = await limitOf(reader, "--min-rate", "4MB/s");
    const { outcome, limit, overload } = parse(ran);
    assertEquals(
      [ran.status, outcome, limit, overload],
      [1, "below-range", null, null],
      ran.stderr,
    );
  });

  test("with --html, a trial on each side of the limit is recorded", async (t) => {
    const reader = await paced(t, 2e6);
    if (reader === undefined) return;
    const folder = mkdtempSync(join(tmpdir(), "speedlimit-limit-"));
    const html = join(folder, "limit.html");
    const args = [LIMIT, ...SOON, "--precision", "10%", "--json", "--html", html, "--", ...reader];
    const { status, stdout, stderr } = await run(args, { timeoutMs: 120_000 });
    const page = existsSync(html) ? readFileSync(html, "utf8") : "";
    rmSync(folder, { recursive: true });
    const result = JSON.parse(stdout) as LimitResult;
    assertFound(result, 2e6, 0.03);
    assertEquals(status, result.outcome === "found" ? 0 : 1, stderr);
    const { limit, series } = result;
    const { below, above } = series!;
    assertAlmostEquals(below.rate, limit!.lower * 0.9, 1);
    assertAlmostEquals(above.rate, limit!.upper * 1.2, 1);
    for (const { time, offered, drained, backlog, window } of [below, above]) {
      assertGreater(time.at(-1)!, 1);
      for (const each of [offered, drained, backlog, window]) {
        assertEquals(each.length, time.length);
      }
    }
    // A sixth of what is offered above the limit is left over; below it nothing is.
    assertGreater(above.backlog.at(-1)!, 0.1 * above.offered.at(-1)!);
    const late = below.backlog.slice(-(below.backlog.length >> 2));
    assertLess(Math.min(...late), 0.1 * below.offered.at(-1)!);
    assertMatch(page, /"series":\{"below":/);
  });

  test("without a command: the drain client in both its modes, in one object", async () => {
    const ran = await run([LIMIT, "--json", "--max-rate", "50kB/s"], { timeoutMs: 60_000 });
    const { schema, results } = JSON.parse(ran.stdout);
    assertEquals([ran.status, schema, results.length], [0, "speedlimit/limits@2", 2], ran.stderr);
    for (const [i, mode] of ["naive", "drain"].entries()) {
      assertMatch(results[i].reader, new RegExp(`^client --mode ${mode}, ${runtime} \\d`));
      assertEquals(results[i].schema, "speedlimit/limit@2");
      assertEquals([results[i].outcome, results[i].limit], ["generator-limited", null]);
    }
  });
});
