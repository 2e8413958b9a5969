/** findLimit() as a library, and bin/limit.ts as a process: what readers do, and what is left of them. */
import { describe, test, type TestContext } from "node:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertGreater,
  assertGreaterOrEqual,
  assertLess,
  assertLessOrEqual,
  assertMatch,
  assertStringIncludes,
} from "#std/assert";
import { compileC } from "../bench/readers/compile.ts";
import { findLimit } from "../src/measure/limit.ts";
import type { LimitEvent } from "../src/measure/limit_options.ts";
import type { LimitResult } from "../src/measure/limit_result.ts";
import { textMessage } from "../src/message/message.ts";
import type { Connection } from "../src/net/net.ts";
import { loadAdapter } from "../src/net/load.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { Program, ROOT, run, type RunResult, start } from "./process.ts";
import { until, within } from "./within.ts";

const LIMIT = "bin/limit.ts";
const MESSAGE = textMessage("Hello World!\0");

/** How this runtime starts a file of ours. */
function command(file: string, ...args: string[]): string[] {
  const flags = {
    deno: ["run", "--node-modules-dir=manual", "--no-prompt", "-A"],
    bun: [],
    node: ["--experimental-ffi", "--no-warnings"],
  }[runtime];
  return [process.execPath, ...flags, resolve(ROOT, file), ...args];
}

const misbehaving = (behaviour: string, pids: string): string[] =>
  command("test/readers/misbehaving.ts", "{host}", "{port}", behaviour, pids);

/** A reader whose limit is the rate that it is told; undefined, and said so, without a C compiler. */
async function paced(t: TestContext, rate: number): Promise<string[] | undefined> {
  try {
    const program = await compileC(new URL("../bench/readers/paced.c", import.meta.url));
    return [program, "{host}", "{port}", String(rate)];
  } catch (error) {
    const why = (error as Error).message;
    if (!why.startsWith("no C compiler")) throw error;
    console.log(`  skipped: ${why}`);
    t.skip(why);
    return undefined;
  }
}

const fill = (word: string, port: number): string =>
  word.replace("{host}", "127.0.0.1").replace("{port}", String(port));

/** Whether the process runs; one that only waits for its parent to ask does not. */
function lives(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(")") + 2));
  } catch {
    return false;
  }
}

/** A file for readers to write their process ids to, none of which may live afterwards. */
async function leavingNobody<T>(use: (pids: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-limit-"));
  const file = join(folder, "pids");
  const known = (): number[] => {
    try {
      return readFileSync(file, "utf8").trim().split("\n").map(Number);
    } catch {
      return [];
    }
  };
  try {
    const result = await use(file);
    assertGreater(known().length, 0, "no reader was ever started");
    await until(`the end of ${known()}`, 3000, () => !known().some(lives));
    return result;
  } finally {
    for (const pid of known().filter(lives)) process.kill(pid, "SIGKILL");
    rmSync(folder, { recursive: true });
  }
}

const parse = ({ stdout, stderr }: RunResult): LimitResult => {
  assertEquals(stdout.trimEnd().split("\n").length, 1, `${stdout}${stderr}`);
  return JSON.parse(stdout);
};

/** No option is first: Bun takes a `--` that comes first for its own. */
const limitOf = (reader: readonly string[], ...options: string[]): Promise<RunResult> =>
  run([LIMIT, "--json", ...options, "--", ...reader], { timeoutMs: 60_000 });

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
    ["connects and never reads", /^the reader connected but read nothing within 10 s$/],
    ["ignores SIGTERM", /^the reader connected but read nothing within 10 s$/],
    ["leaves a grandchild", /^the reader exited with status 7$/],
    [
      "replies without end",
      /^deadlock, not a speed limit: .*--replies drain/,
      "--replies",
      "ignore",
    ],
  ];
  for (const [behaviour, says, ...options] of failures) {
    test(behaviour, async () => {
      const result = await leavingNobody((pids) =>
        limitOf(misbehaving(behaviour, pids), "--max-rate", "50MB/s", ...options)
      );
      const { outcome, message, limit, overload, recovery } = parse(result);
      assertMatch(message, says);
      assertEquals([outcome, limit, overload, recovery], ["reader-failed", null, null, null]);
      assertEquals([result.status, result.timedOut], [1, false]);
      assert(!/\bat .*:\d+:\d+/.test(result.stderr), result.stderr);
    });
  }

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
});

describe("a reader with a known limit", () => {
  const RATE = 20e6;

  test("20 MB/s is found within 2 %, and the JSON is as documented", async (t) => {
    const reader = await paced(t, RATE);
    if (reader === undefined) return;
    const ran = await limitOf(reader);
    const result = parse(ran);
    assertEquals([ran.status, result.outcome], [0, "found"], ran.stderr);
    const { limit, overload, recovery, trials, environment } = result;
    assertAlmostEquals((limit!.lower + limit!.upper) / 2, RATE, 0.02 * RATE, ran.stderr);
    assertLess(limit!.lower, limit!.upper);
    assertAlmostEquals(limit!.messagesPerSecond, limit!.lower / 13, 1e-6 * RATE);
    // Offered twice its limit it is as fast as before: this reader does not collapse.
    assertAlmostEquals(overload!.offered, 2 * limit!.upper, 0.05 * RATE);
    assertAlmostEquals(overload!.drained, RATE, 0.2 * RATE);
    assertEquals(overload!.collapsed, false);
    assertEquals(recovery!.recovered, true);
    assert(recovery!.seconds >= 0 && recovery!.seconds < 10, `${recovery!.seconds} s`);
    assertEquals(trials.at(-1)!.purpose, "overload");

    assertEquals(Object.keys(result), [
      ...["schema", "reader", "readers", "outcome", "message"],
      ...["limit", "overload", "recovery", "trials", "interrupted", "queueSource"],
      ...["messageSize", "precision", "seconds", "environment"],
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
        "purpose",
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
    const { outcome, limit } = parse(ran);
    assertEquals([ran.status, outcome], [0, "found"], ran.stderr);
    assert(limit!.lower < 3.1e6 && limit!.upper > 2.9e6, JSON.stringify(limit));
    assertLessOrEqual(limit!.upper / limit!.lower, 1.5);
  });

  test("two of them: the limit of each, and which was behind first", async (t) => {
    const reader = await paced(t, RATE);
    if (reader === undefined) return;
    const ran = await limitOf(reader, "--readers", "2", "--precision", "10%");
    const result = parse(ran);
    assertEquals([ran.status, result.outcome, result.readers], [0, "found", 2], ran.stderr);
    const { lower, upper } = result.limit!;
    assertAlmostEquals((lower + upper) / 2, RATE, 0.1 * RATE, ran.stderr);
    assertMatch(String(result.firstBehind), /^[01]$/);
  });
});

describe("the range", () => {
  test("a reader above --max-rate is generator-limited, with no limit made up", async () => {
    const reader = command("client.ts", "{host}:{port}");
    const [json, people] = [
      await limitOf(reader, "--max-rate", "4MB/s"),
      await run([LIMIT, "--max-rate", "1MB/s", "--", ...reader], { timeoutMs: 30_000 }),
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
    // 10 bytes in 50 µs: 200 kB/s at most.
    const reader = command("client.ts", "{host}:{port}", "--mode", "naive", "--work", "50us");
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
    const args = [LIMIT, "--precision", "10%", "--json", "--html", html, "--", ...reader];
    const { status, stdout, stderr } = await run(args, { timeoutMs: 60_000 });
    const page = status === 0 ? readFileSync(html, "utf8") : "";
    rmSync(folder, { recursive: true });
    assertEquals(status, 0, stderr);
    const { limit, series } = JSON.parse(stdout) as LimitResult;
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
    assertLess(below.backlog.at(-1)!, 0.1 * below.offered.at(-1)!);
    assertMatch(page, /"series":\{"below":/);
  });

  test("without a command: the drain client in both its modes, in one object", async () => {
    const ran = await run([LIMIT, "--json", "--max-rate", "50kB/s"], { timeoutMs: 30_000 });
    const { schema, results } = JSON.parse(ran.stdout);
    assertEquals([ran.status, schema, results.length], [0, "speedlimit/limits@2", 2], ran.stderr);
    for (const [i, mode] of ["naive", "drain"].entries()) {
      assertMatch(results[i].reader, new RegExp(`^client --mode ${mode}, ${runtime} \\d`));
      assertEquals(results[i].schema, "speedlimit/limit@2");
      assertEquals([results[i].outcome, results[i].limit], ["generator-limited", null]);
    }
  });
});

/** bin/limit.ts that waits for readers, and the port that they may come to. */
async function attaching(
  options: readonly string[],
  use: (program: Program, port: number) => Promise<void>,
): Promise<void> {
  const args = [LIMIT, "--attach", "--listen", "127.0.0.1:0", "--json", ...options];
  const program = start(args, { timeoutMs: 60_000 });
  try {
    const waiting = /waiting for readers on 127\.0\.0\.1:(\d+)/;
    const [, port] = await within("listening", 10_000, program.saw(waiting));
    await use(program, Number(port));
  } finally {
    program.kill("SIGKILL");
    await within("its end", 5000, program.ended);
  }
}

/** A reader in this process that takes all there is, until its end. */
async function connectReader(port: number): Promise<Connection> {
  const net = await loadAdapter();
  const connection = await net.connect({ host: "127.0.0.1", port });
  void (async () => {
    while (await connection.read(65_536) !== null);
    connection.close();
  })();
  return connection;
}

describe("--attach", () => {
  test("a reader that comes by itself", async () => {
    await attaching(["--max-rate", "2MB/s"], async (program, port) => {
      const reader = start(["client.ts", `127.0.0.1:${port}`, "--json"]);
      const ran = await within("the outcome", 30_000, program.ended);
      const { outcome, reader: name } = parse(ran);
      assertEquals([ran.status, outcome, name], [0, "generator-limited", "attached"], ran.stderr);
      const left = await within("the reader's end", 5000, reader.ended);
      assertEquals([left.status, JSON.parse(left.stdout).ended], [0, "eof"]);
    });
  });

  test("a reader that reconnects whenever it is closed", async () => {
    await leavingNobody((pids) =>
      attaching(["--max-rate", "2MB/s"], async (program, port) => {
        const behaviour = ["127.0.0.1", String(port), "reconnects after each close", pids];
        const reader = start(["test/readers/misbehaving.ts", ...behaviour]);
        try {
          const ran = await within("the outcome", 40_000, program.ended);
          const { outcome, trials } = parse(ran);
          assertEquals([ran.status, outcome], [0, "generator-limited"], ran.stderr);
          const ended = trials.filter((trial) => trial.ended !== undefined);
          assertGreaterOrEqual(ended.length, 1);
          assertMatch(ran.stderr, /replacing the reader: its connection ended/);
        } finally {
          reader.kill("SIGKILL");
          await within("the reader's end", 5000, reader.ended);
        }
      })
    );
  });

  test("two readers, of which the second is the slow one", async (t) => {
    const rate = 3e6;
    const slow = await paced(t, rate);
    if (slow === undefined) return;
    await attaching(["--readers", "2", "--precision", "10%"], async (program, port) => {
      const fast = await connectReader(port);
      const words = slow.map((word) => fill(word, port));
      const reader = new Program(words[0]!, words.slice(1), { timeoutMs: 60_000 });
      const ran = await within("the outcome", 50_000, program.ended);
      const { outcome, limit, firstBehind, readers } = parse(ran);
      assertEquals([ran.status, outcome, readers, firstBehind], [0, "found", 2, 1], ran.stderr);
      assertAlmostEquals((limit!.lower + limit!.upper) / 2, rate, 0.1 * rate, ran.stderr);
      await within("both ends", 5000, Promise.all([fast.closed, reader.ended]));
    });
  });
});

describe("SIGINT", () => {
  test("in mid-search: 130, what is known so far, and no reader left", async () => {
    await leavingNobody(async (pids) => {
      const reader = misbehaving("reads well", pids);
      const program = start([LIMIT, "--json", "--", ...reader], { timeoutMs: 40_000 });
      await within("two trials", 20_000, program.saw(/ramp[^]*\nramp/));
      const before = performance.now();
      program.kill("SIGINT");
      const ran = await within("its end", 5000, program.ended);
      assertLess(performance.now() - before, 3000);
      const { interrupted, limit, trials, message } = parse(ran);
      assertEquals([ran.status, interrupted, limit], [130, true, null]);
      assertGreaterOrEqual(trials.length, 2);
      assertEquals(message, "interrupted before the limit was found");
    });
  });

  test("in mid-search, for people: the table says above what it is", async () => {
    await leavingNobody(async (pids) => {
      const reader = misbehaving("reads well", pids);
      const program = start([LIMIT, "--size", "13", "--", ...reader], { timeoutMs: 40_000 });
      await within("a trial", 20_000, program.saw(/ramp +1\.00 MB/));
      program.kill("SIGINT");
      const { status, stdout } = await within("its end", 5000, program.ended);
      assertEquals(status, 130);
      assertMatch(stdout, /above [\d.]+ MB\/s\?/);
      assertStringIncludes(stdout, "interrupted before the limit was found");
    });
  });

  test("before the reader has connected", async () => {
    await leavingNobody(async (pids) => {
      const reader = misbehaving("never connects", pids);
      const program = start([LIMIT, "--json", "--", ...reader], { timeoutMs: 40_000 });
      await until("the reader", 10_000, () => {
        try {
          return readFileSync(pids, "utf8") !== "";
        } catch {
          return false;
        }
      });
      program.kill("SIGINT");
      const ran = await within("its end", 5000, program.ended);
      assertEquals([ran.status, parse(ran).interrupted], [130, true]);
    });
  });

  test("while it waits for readers", async () => {
    await attaching([], async (program) => {
      program.kill("SIGINT");
      const ran = await within("its end", 5000, program.ended);
      assertEquals([ran.status, parse(ran).interrupted], [130, true]);
    });
  });
});

describe("findLimit()", () => {
  test("tells what happens, in order", async () => {
    const events: LimitEvent[] = [];
    const result = await leavingNobody((pids) =>
      within(
        "the outcome",
        20_000,
        findLimit({
          command: misbehaving("reads well", pids),
          name: "well",
          message: MESSAGE,
          maxRate: 1e6,
          onEvent: (event) => events.push(event),
        }),
      )
    );
    assertEquals([result.outcome, result.reader], ["generator-limited", "well"]);
    const names = events.map(({ event }) => event);
    assertEquals(names.slice(0, 4), ["listening", "connected", "trial-begins", "trial"]);
    const trials = events.flatMap((event) => event.event === "trial" ? [event.trial] : []);
    assertEquals(trials, result.trials);
    assertEquals(trials.map(({ offered }) => offered).slice(0, 2), [500_000, 1_000_000]);
  });

  test("its signal ends it early", async () => {
    const controller = new AbortController();
    const result = await leavingNobody((pids) =>
      within(
        "the outcome",
        20_000,
        findLimit({
          command: misbehaving("reads well", pids),
          message: MESSAGE,
          signal: controller.signal,
          onEvent: ({ event }) => {
            if (event === "trial") controller.abort();
          },
        }),
      )
    );
    assertEquals([result.interrupted, result.trials.length], [true, 1]);
  });
});

describe("bin/limit.ts refuses", () => {
  async function refuses(args: string[], status: number, says: RegExp): Promise<void> {
    const result = await run([LIMIT, ...args], { timeoutMs: 15_000 });
    const what = `${args.join(" ").slice(0, 60)}: ${result.stderr}${result.stdout}`;
    assertEquals([result.status, result.stdout], [status, ""], what);
    assertMatch(result.stderr, /^limit: [^\n]+\n$/, what);
    assertMatch(result.stderr, says, what);
    assert(!/\bat .*:\d+:\d+|Error:/.test(result.stderr), `a stack: ${what}`);
  }

  const huge = "99999999999999999999";
  const wrong: Record<string, [says: RegExp, ...values: string[]]> = {
    "--listen": [
      /HOST:PORT|port from 0/,
      "8000",
      "127.0.0.1",
      ":80",
      "::1:80",
      "host:99999",
      `a:${huge}`,
      "-1",
    ],
    "--message": [/escapes/, "\\q", "ends in \\"],
    "--size": [/size such as/, "0", "-1", "257M", huge, "big"],
    "--precision": [/share such as/, "0", "-1%", "0.1%", "51%", "100%", huge, "fine"],
    "--min-rate": [
      /bytes per second/,
      "0",
      "0B/s",
      "-1MB/s",
      "1M/s",
      "5",
      "1e16B/s",
      "slow",
      "max",
    ],
    "--max-rate": [
      /bytes per second/,
      "0",
      "0B/s",
      "-1MB/s",
      "1M/s",
      "5",
      "1e16B/s",
      "fast",
      "max",
    ],
    "--max-trial": [/duration such as/, "0", "-1s", "10ms", "99999h", huge, "soon"],
    "--readers": [/whole number/, "0", "-1", "1.5", "1001", huge, "all"],
    "--replies": [/drain or ignore/, "yes", "0", "DRAIN"],
  };
  for (const [option, [says, ...values]] of Object.entries(wrong)) {
    test(`a wrong ${option}`, async () => {
      const needsValue = new RegExp(`${option} needs a value`);
      await Promise.all([
        ...values.map((value) => refuses([option, value], 2, says)),
        refuses([option], 2, needsValue),
        refuses([`${option}=`], 2, needsValue),
      ]);
    });
  }

  const others: [args: string[], says: RegExp][] = [
    [["--json", "--"], /no command follows --/],
    [["--attach", "--", "cat"], /--attach and a command after -- exclude each other/],
    [["--min-rate", "2MB/s", "--max-rate", "1MB/s"], /--max-rate must be at least --min-rate/],
    [["--message", "a", "--size", "10"], /--message and --size exclude each other/],
    [["--atach"], /unknown option "--atach"; did you mean --attach\?/],
    [["--reader", "3"], /did you mean --readers\?/],
    [["--replies", "drian"], /did you mean drain\?/],
    [["--nonsense"], /unknown option "--nonsense"/],
    [["--json", "--json"], /--json is given twice/],
    [["--readers", "2", "--readers", "3"], /--readers is given twice/],
    [["--attach=yes"], /--attach takes no value/],
  ];
  test("what is misspelt, given twice, or contradicts itself", async () => {
    await Promise.all(others.map(([args, says]) => refuses(args, 2, says)));
  });

  test("a port in use, a host that does not resolve", async () => {
    const busy = createServer();
    await new Promise<void>((done) => busy.listen(0, "127.0.0.1", done));
    const { port } = busy.address() as { port: number };
    try {
      await refuses(["--attach", "--listen", `127.0.0.1:${port}`], 1, /already in use/);
    } finally {
      await new Promise((done) => busy.close(done));
    }
    await refuses(["--attach", "--listen", "no.such.invalid:0"], 1, /does not resolve/);
  });
});
