/** bin/limit.ts and findLimit() with readers that do not do their part: what is told, and nobody is left. */
import { before, describe, test } from "node:test";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "#std/assert";
import { findLimit } from "../src/measure/limit.ts";
import { leavingNobody, LIMIT, limitOf, MESSAGE, misbehaving, parse } from "./limiting.ts";
import { run, type RunResult } from "./process.ts";
import { within } from "./within.ts";

describe("a reader that does not do its part", () => {
  const failures: [behaviour: string, says: RegExp, ...options: string[]][] = [
    ["exits at once", /^the reader exited with status 3 before it connected$/],
    ["dies at once", /^the reader was killed by SIGKILL before it connected$/],
    [
      "complains and exits",
      /^the reader exited with status 4 before it connected: my configuration is missing$/,
    ],
    ["connects and exits", /^the reader exited with status 6$/],
    ["exits after some bytes", /^the reader exited with status 5$/],
    ["resets after some bytes", /^the reader reset its connection$/],
    ["closes after some bytes", /^the reader (closed|reset) its connection$/],
    ["leaves a grandchild", /^the reader exited with status 7$/],
    [
      "replies without end",
      /^deadlock, not a speed limit: .*--replies drain/,
      "--replies",
      "ignore",
    ],
    ["connects and never reads", /^the reader connected but read nothing within 10 s$/],
    ["ignores SIGTERM", /^the reader connected but read nothing within 10 s$/],
  ];
  const measure = (behaviour: string, ...options: string[]) =>
    leavingNobody((pids) =>
      limitOf(misbehaving(behaviour, pids), "--max-rate", "50MB/s", ...options)
    );
  /** Those that take 10 s of waiting: they wait while the others are tried. */
  const waiting = new Map<string, Promise<RunResult>>();
  before(() => {
    for (const behaviour of ["connects and never reads", "ignores SIGTERM"]) {
      const result = measure(behaviour);
      result.catch(() => {});
      waiting.set(behaviour, result);
    }
  });
  test("never connects", async () => {
    const { outcome, message } = await leavingNobody((pids) =>
      within(
        "the outcome",
        10_000,
        findLimit({
          command: misbehaving("never connects", pids),
          message: MESSAGE,
          connectSeconds: 1.5,
        }),
      )
    );
    assertEquals(outcome, "reader-failed");
    assertMatch(
      message,
      /^the reader did not connect to 127\.0\.0\.1:\d+ within 1\.5 s: .*\{port\}/,
    );
  });

  test("begins to read a second after it has connected: that is no failure", async () => {
    const result = await leavingNobody((pids) =>
      limitOf(misbehaving("begins to read after a second", pids), "--max-rate", "1MB/s")
    );
    const { outcome, message } = parse(result);
    assertEquals([outcome, result.status], ["generator-limited", 0], message);
  });

  test("only looks first whether anybody listens: its next connection counts", async () => {
    const result = await leavingNobody((pids) =>
      limitOf(misbehaving("looks first whether anybody listens", pids), "--max-rate", "1MB/s")
    );
    const { outcome, message } = parse(result);
    assertEquals([outcome, result.status], ["generator-limited", 0], message);
  });

  test("connects several times: one of them is fed, all are closed", async () => {
    const result = await leavingNobody((pids) =>
      limitOf(misbehaving("connects three times", pids), "--max-rate", "1MB/s")
    );
    assertEquals([parse(result).outcome, result.status], ["generator-limited", 0]);
  });

  test("cannot be started", async () => {
    const result = await limitOf(["no-such-program", "{host}", "{port}"]);
    const { outcome, message, reader } = parse(result);
    assertEquals([result.status, outcome], [1, "reader-failed"]);
    assertEquals(message, "cannot start the reader no-such-program: no such program");
    assertEquals(reader, "no-such-program {host} {port}");
  });

  test("cannot be started, with nothing before the --", async () => {
    const { status, stdout, stderr } = await run([LIMIT, "--", "no-such-program", "{port}"]);
    assertEquals([status, stderr], [1, ""]);
    assertStringIncludes(stdout, "cannot start the reader no-such-program: no such program");
  });

  test("cannot be started, because quotes make one word of its command", async () => {
    const { status, stdout, stderr } = await limitOf(["python3 my_reader.py 127.0.0.1"]);
    assertEquals(status, 1);
    assertStringIncludes(stdout, "no such program; give the command without quotes around it");
    assertStringIncludes(stderr, "the command has no {port}");
  });

  for (const [behaviour, says, ...options] of failures) {
    test(behaviour, async () => {
      const result = await (waiting.get(behaviour) ?? measure(behaviour, ...options));
      const { outcome, message, limit, overload, recovery } = parse(result);
      assertMatch(message, says);
      assertEquals([outcome, limit, overload, recovery], ["reader-failed", null, null, null]);
      assertEquals([result.status, result.timedOut], [1, false]);
      assert(!/\bat .*:\d+:\d+/.test(result.stderr), result.stderr);
    });
  }
});
