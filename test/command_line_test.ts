/** Command lines taken apart, and what a command does as a process. */
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "#std/assert";
import {
  choice,
  flag,
  formatHelp,
  HelpRequest,
  option,
  parseCommandLine,
  UsageError,
} from "../src/cli/command_line.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { parseBytes, parseHostPort, parseRate } from "../src/text/units.ts";
import { run, start } from "./process.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

const spec = {
  name: "test",
  summary: "A test.",
  usage: ["test [HOST:PORT] [OPTIONS]", "test [OPTIONS] -- COMMAND"],
  positionals: {
    server: option({
      value: "HOST:PORT",
      help: "the server",
      default: "127.0.0.1:8000",
      parse: parseHostPort,
    }),
  },
  options: {
    rate: option({ value: "RATE", help: "how fast", default: "1M/s", parse: parseRate }),
    readSize: option({ value: "SIZE", help: "how much", parse: (text) => parseBytes(text) }),
    mode: choice({ help: "which way", choices: ["naive", "drain"], default: "drain" }),
    reply: option({ value: "TEXT", help: "what to say", parse: (text) => text }),
    json: flag("prints JSON"),
  },
  command: "a program",
};
const parse = (...args: string[]) => parseCommandLine(spec, args);

describe("parseCommandLine", () => {
  test("defaults", () => {
    const { options, positionals, given, command } = parse();
    assertEquals(options, {
      rate: { messagesPerSecond: 1e6 },
      readSize: undefined,
      mode: "drain",
      reply: undefined,
      json: false,
    });
    assertEquals(positionals, { server: { host: "127.0.0.1", port: 8000 } });
    assertEquals([...given], []);
    assertEquals(command, undefined);
  });

  test("values are typed as the table says", () => {
    const { options, positionals: { server } } = parse(
      "--mode",
      "naive",
      "--read-size=64k",
      "--json",
    );
    const mode: "naive" | "drain" = options.mode;
    const size: number | undefined = options.readSize;
    const json: boolean = options.json;
    const host: string = server.host;
    assertEquals([mode, size, json, host], ["naive", 65_536, true, "127.0.0.1"]);
  });

  test("what is given, wherever it stands", () => {
    const { options, positionals, given } = parse(
      "--json",
      "[::1]:99",
      "--rate=20MB/s",
      "--reply",
      "a b",
    );
    assertEquals(options.rate, { bytesPerSecond: 20e6 });
    assertEquals(options.reply, "a b");
    assertEquals(positionals.server, { host: "::1", port: 99 });
    assertEquals([...given].sort(), ["json", "rate", "reply"]);
  });

  test("values that look like something else", () => {
    assertEquals(parse("--reply=--json").options.reply, "--json");
    assertEquals(parse("--reply=a=b").options.reply, "a=b");
    assertEquals(parse("--reply", "-1").options.reply, "-1");
    assertEquals(parse("--reply", "007").options.reply, "007");
    assertEquals(parse("--reply", "true").options.reply, "true");
    assertEquals(parse("--reply=\n").options.reply, "\n");
  });

  test("what follows -- is left alone", () => {
    const rest = ["python3", "my reader.py", "{host}", "--help", "--rate", "--", "-h", ""];
    const { options, command } = parse("--rate", "7", "--", ...rest);
    assertEquals(command, rest);
    assertEquals(options.rate, { messagesPerSecond: 7 });
    assertEquals(parse("--").command, []);
    const { command: _, ...without } = spec;
    assertThrows(() => parseCommandLine(without, ["--", "x"]), UsageError, "nothing may follow --");
  });

  test("without positionals of its own, the command may stand without --", () => {
    const { positionals: _, ...without } = spec;
    const parse = (...args: string[]) => {
      const { options, command } = parseCommandLine(without, args);
      return [options.rate, options.json, command];
    };
    const million = { messagesPerSecond: 1e6 };
    const rest = ["python3", "r.py", "--rate", "5", "--help", "--", "x"];
    assertEquals(parse(...rest), [million, false, rest]);
    assertEquals(parse("--", ...rest), [million, false, rest]);
    assertEquals(parse("--json", ...rest), [million, true, rest]);
    assertEquals(parse("--rate", "7", "--json", ...rest), [{ messagesPerSecond: 7 }, true, rest]);
    assertEquals(parse("--rate=7", "--", ...rest), [{ messagesPerSecond: 7 }, false, rest]);
    assertEquals(parse("--json", "true"), [million, true, ["true"]]);
    assertEquals(parse("--json"), [million, true, undefined]);
    assertEquals(parse("--"), [million, false, []]);
    assertThrows(() => parse("--rates", "7", ...rest), UsageError, 'unknown option "--rates"');
    assertThrows(() => parse("--rate", "-7", ...rest), UsageError, '--rate "-7" must be');
    assertThrows(() => parse("--rate", "--json", ...rest), UsageError, "--rate needs a value");
    assertThrows(() => parse("--rate"), UsageError, "--rate needs a value");
    assertThrows(() => parse("--json", "-h", ...rest), HelpRequest);
  });

  const wrong: [args: string[], message: string][] = [
    [["--rate", "abc"], '--rate "abc" must be a rate such as'],
    [["--rate", "0"], '--rate "0" must be a rate'],
    [["--rate", "-5"], '--rate "-5" must be a rate'],
    [["--rate", "-.5"], '--rate "-.5" must be a rate'],
    [["--rate=-5"], '--rate "-5" must be a rate'],
    [["--rate", "1e99"], "at most 1e15"],
    [["--rate"], "--rate needs a value: RATE"],
    [["--rate", "--json"], "--rate needs a value: RATE"],
    [["--rate="], "--rate needs a value: RATE"],
    [["--rate", ""], "--rate needs a value: RATE"],
    [["--rate", " "], '--rate " " must be a rate'],
    [["--rate", "1", "--rate", "2"], "--rate is given twice"],
    [["--rate=1", "--rate", "1", "--rate=1"], "--rate is given 3 times"],
    [["--json", "--json"], "--json is given twice"],
    [["--json=yes"], "--json takes no value"],
    [["--json=false"], "--json takes no value"],
    [["--json="], "--json takes no value"],
    [["--json", "true"], "--json takes no value"],
    [["--no-json"], 'unknown option "--no-json"; did you mean --json?'],
    [["--mode", "nave"], '--mode "nave" must be naive or drain; did you mean naive?'],
    [["--mode", "Drain"], "did you mean drain?"],
    [["--mode", "xyz"], '--mode "xyz" must be naive or drain'],
    [["--mode"], "--mode needs a value: naive|drain"],
    [["--rates", "5"], 'unknown option "--rates"; did you mean --rate?'],
    [["--rat=5"], 'unknown option "--rat"; did you mean --rate?'],
    [["-rate", "5"], 'unknown option "-rate"; did you mean --rate?'],
    [["--readsize=5"], "did you mean --read-size?"],
    [["--readSize=5"], "did you mean --read-size?"],
    [["--READ-SIZE=5"], "did you mean --read-size?"],
    [["--read"], "did you mean --read-size?"],
    [["--hlep"], "did you mean --help?"],
    [["-x"], 'unknown option "-x"'],
    [["-5"], 'unknown option "-5"'],
    [["--rate.x=5"], 'unknown option "--rate.x"'],
    [["--__proto__=5"], 'unknown option "--__proto__"'],
    [["--constructor", "5"], 'unknown option "--constructor"'],
    [["--_", "5"], 'unknown option "--_"'],
    [["---rate", "5"], 'unknown option "---rate"'],
    [["--" + "x".repeat(100_000)], "unknown option"],
    [["--a\nb"], 'unknown option "--a\\nb"'],
    [["127.0.0.1"], 'HOST:PORT "127.0.0.1" must be HOST:PORT such as'],
    [["-"], 'HOST:PORT "-" must be'],
    [[""], 'HOST:PORT "" must be'],
    [["a:1", "b:2"], '"b:2" is one argument too many: takes HOST:PORT'],
    [["a:1", ""], '"" is one argument too many'],
    [["--rate", "x\ny\u001b[31m"], '"x\\ny\\u001b[31m"'],
  ];
  for (const [args, message] of wrong) {
    const shown = args.join(" ");
    test(`refuses ${JSON.stringify(shown.slice(0, 40))}`, () => {
      const error = assertThrows(() => parse(...args), UsageError, message);
      assertEquals(error.message.split("\n").length, 1);
      assert(error.message.length < 250, error.message);
    });
  }

  test("no suggestion where nothing is close", () => {
    for (const name of ["--xyzzy", "--q", "--totally-different"]) {
      const error = assertThrows(() => parse(name), UsageError, "unknown option");
      assert(!error.message.includes("did you mean"), error.message);
    }
  });

  test("help names every option, its default, and fits a terminal", () => {
    for (const args of [["--help"], ["-h"], ["--rate", "5", "--help"], ["--nonsense", "-h"]]) {
      const help = assertThrows(() => parse(...args), HelpRequest).message;
      assertEquals(help, formatHelp(spec));
    }
    const help = formatHelp(spec);
    assertMatch(help, /^A test\.\n\nUsage:\n {2}test \[HOST:PORT\] \[OPTIONS\]\n {2}test/);
    assertMatch(help, /\n {2}--rate RATE +how fast \(default 1M\/s\)\n/);
    assertMatch(help, /\n {2}--json +prints JSON\n/);
    assertMatch(help, /\n {2}--mode naive\|drain +which way \(default drain\)\n/);
    assertMatch(help, /\n {2}-- COMMAND +a program\n/);
    for (const line of help.split("\n")) assert(line.length <= 100, line);
  });
});

describe("runMain", () => {
  const program = "test/fixtures/program.ts";

  const ends: [args: string[], status: number, stdout: string, stderr: string][] = [
    [["nothing"], 0, "", ""],
    [["status", "3"], 3, "", ""],
    [["arguments", "a", "--", "b c", "-x", ""], 0, '["a","--","b c","-x",""]\n', ""],
    [["usage"], 2, "", "program: that is not how it is called (see --help)\n"],
    [["error"], 1, "", "program: first line second line\n"],
    [["text"], 1, "", "program: only a text\n"],
    [["later"], 1, "", "program: thrown from a timer\n"],
    [["rejected"], 1, "", "program: nobody awaits this\n"],
    [["busy"], 0, "done\n", ""],
    [["parse", "--rate", "5"], 0, '{"rate":{"messagesPerSecond":5}}\n', ""],
  ];
  for (const [args, status, stdout, stderr] of ends) {
    test(`${args[0]} exits ${status}`, async () => {
      const result = await run([program, ...args]);
      assertEquals({ ...result }, { status, signal: undefined, stdout, stderr, timedOut: false });
    });
  }

  test("a misspelt option is one line and 2, help is on stdout and 0", async () => {
    const [wrong, help] = await Promise.all([
      run([program, "parse", "--rats", "5"]),
      run([program, "parse", "--help"]),
    ]);
    assertEquals(
      wrong.stderr,
      'program: unknown option "--rats"; did you mean --rate? (see --help)\n',
    );
    assertEquals([wrong.status, wrong.stdout], [2, ""]);
    assertStringIncludes(help.stdout, "--rate RATE");
    assertEquals([help.status, help.stderr], [0, ""]);
  });

  test("the stack is shown when asked for, and its lack of permission is no error", async () => {
    const [debug, denied] = await Promise.all([
      run([program, "error"], { env: { SPEEDLIMIT_DEBUG: "1" } }),
      run([program, "error"], { env: { SPEEDLIMIT_DEBUG: "1" }, permissions: [] }),
    ]);
    assertMatch(debug.stderr, /^program: first line second line\n[^]*program\.ts:\d+/);
    assertEquals([debug.status, denied.status], [1, 1]);
    assertMatch(denied.stderr, /^program: first line second line\n/);
  });

  test("all of a long output arrives before the exit", async () => {
    const { status, stdout } = await run([program, "big"]);
    assertEquals([status, stdout.length], [7, 3_000_001]);
  });

  test("a standard output that closes early is no error", async () => {
    const child = start([program, "lines"]);
    await within("its start", 10_000, child.saw(/has begun/));
    child.closeStdout();
    const { status, stderr } = await within("the end", 10_000, child.ended);
    assertEquals([status, stderr], [0, "has begun\n"]);
  });

  test("a standard output that takes nothing is one", async (t) => {
    if (!existsSync("/dev/full")) return skip(t, "this system has no /dev/full");
    for (const act of ["arguments", "lines", "big"]) {
      const full = openSync("/dev/full", "w");
      const { status, stderr } = await run([program, act, "x"], { stdout: full });
      closeSync(full);
      assertEquals(status, 1);
      assertMatch(stderr, /^(has begun\n)?program: .*no space left on device/i);
    }
  });

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    test(`${signal} lets it end in order, with 130`, async () => {
      const pattern = /has begun/;
      const result = await run([program, "lines"], { signalAfter: { pattern, signal } });
      assertEquals([result.status, result.stderr], [130, "has begun\n"]);
      assertMatch(result.stdout, /^line 0 [^]*\n$/);
    });
  }

  test("an error that is the interruption itself is 130, and silent", async () => {
    const result = await run([program, "reason"], { signalAfter: { pattern: /ready/ } });
    assertEquals([result.status, result.stderr], [130, "ready\n"]);
  });

  test("the second signal ends it at once", async () => {
    const child = start([program, "stubborn"]);
    await within("its start", 10_000, child.saw(/ready/));
    child.kill("SIGINT");
    await within("the first", 10_000, child.saw(/the first signal/));
    child.kill("SIGINT");
    assertEquals((await within("the end", 10_000, child.ended)).status, 130);
  });
});

describe("a program that runs until it is told to end", () => {
  const program = "test/fixtures/program.ts";
  for (const [signal, status] of [["SIGTERM", 0], ["SIGHUP", 0], ["SIGINT", 130]] as const) {
    test(`${signal} lets it end in order, with ${status}`, async () => {
      const result = await run([program, "service"], {
        signalAfter: { pattern: /has begun/, signal },
      });
      assertEquals([result.status, result.stderr], [status, "has begun\ntold to end\n"]);
    });

    test(`${signal}, and another signal at once: 130`, async () => {
      const child = start([program, "service", "stubborn"]);
      await within("its start", 10_000, child.saw(/has begun/));
      child.kill(signal);
      await within("the first", 10_000, child.saw(/told to end/));
      child.kill(signal === "SIGTERM" ? "SIGHUP" : "SIGTERM");
      assertEquals((await within("the end", 10_000, child.ended)).status, 130);
    });
  }

  test("goes on when its standard output is closed, and says so", async () => {
    const child = start([program, "service"]);
    await within("its start", 10_000, child.saw(/has begun/));
    child.closeStdout();
    await within(
      "the remark",
      10_000,
      child.saw(/^program: cannot write to standard output: nobody reads it any more; going on/m),
    );
    child.kill("SIGINT");
    const { status, stderr } = await within("the end", 10_000, child.ended);
    assertEquals([status, stderr.split("\n").length], [130, 4]);
  });

  test("ends when nobody empties its standard output", async (t) => {
    if (runtime === "deno") return skip(t, "Deno waits for that within its write (2.9.5)");
    const folder = mkdtempSync(join(tmpdir(), "speedlimit-pipe-"));
    const pipe = join(folder, "pipe");
    assertEquals(spawnSync("mkfifo", [pipe]).status, 0);
    // For both, so that it has a reader that never reads.
    const descriptor = openSync(pipe, "r+");
    const child = start([program, "service", "big"], { stdout: descriptor });
    try {
      await within("its start", 10_000, child.saw(/has begun/));
      child.kill("SIGTERM");
      assertEquals((await within("the end", 10_000, child.ended)).status, 0);
    } finally {
      closeSync(descriptor);
      rmSync(folder, { recursive: true });
    }
  });

  test("goes on when its standard output takes nothing", async (t) => {
    if (!existsSync("/dev/full")) return skip(t, "this system has no /dev/full");
    const full = openSync("/dev/full", "w");
    const child = start([program, "service"], { stdout: full });
    closeSync(full);
    await within("the remark", 10_000, child.saw(/no space left on device.*; going on without/i));
    child.kill("SIGTERM");
    assertEquals((await within("the end", 10_000, child.ended)).status, 0);
  });
});
