/** What server.ts refuses: each in one line that says what would be right, and none with a stack. */
import { describe, test } from "node:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "#std/assert";
import { UsageError } from "../src/cli/command_line.ts";
import { chooseServed, parseServerCommandLine } from "../src/cli/server_options.ts";
import { run } from "./process.ts";
import { connect, json, serving, withFolder } from "./serving.ts";
import { until, within } from "./within.ts";

/** Runs the row's command line; it must end by itself, with that status and one line that fits. */
async function refuses(file: string, args: string[], status: number, says: RegExp): Promise<void> {
  const result = await run([file, ...args], { timeoutMs: 15_000 });
  const { stderr, stdout } = result;
  const what = `${args.join(" ").slice(0, 60)}: ${stderr}${stdout}`;
  assertEquals(result.status, status, what);
  assertEquals(stdout, "", what);
  assertMatch(stderr, /^[^\n]+\n$/, what);
  assertMatch(stderr, says, what);
  assert(!/\bat .*:\d+:\d+|Error:.*Error:/.test(stderr), `a stack: ${what}`);
}

/** As the command parses it, without a process: `refuses` shows what becomes of a UsageError. */
function refusesLine(args: string[], says: RegExp): void {
  const parse = () => chooseServed(parseServerCommandLine(args, "server.ts"), () => {});
  const { message } = assertThrows(parse, UsageError, undefined, args.join(" ").slice(0, 60));
  assertMatch(message, says);
  assert(!message.includes("\n"), message);
}

const huge = "99999999999999999999";
const wrong: Record<string, [says: RegExp, ...values: string[]]> = {
  "--host": [
    /address or a host name/,
    "a/b",
    "a b",
    "http://localhost",
    ":::1",
    ".",
    "a..b",
    "%",
    "[::1",
    "::1%",
  ],
  "--port": [/port from 0 to 65535/, "-1", "65536", huge, "http", "80.5", "0x50"],
  "--allow": [
    /addresses or ranges such as/,
    ...[
      "10.0.0.0/33",
      "fd00::/129",
      "10.0.0/8",
      "host",
      "10.0.0.1,",
      "10.0.0.0/",
      "::ffff:10.0.0.0/8",
    ],
    ...["10.0.0.0/8 fd00::/8", "fe80::1%eth0", "10.0.0.0/-1", "0x0a000000/8"],
  ],
  "--rate": [/rate such as/, "0", "-5", "0MB/s", "1e16", huge, "fast", "1M/m", "NaN", "Infinity"],
  "--message": [/escapes/, "\\q", "ends in \\"],
  "--size": [/size such as/, "0", "-1", "257M", huge, "big", "1.5.2", "64q"],
  "--overflow": [/close, reset, block, drop, drop-oldest or spill/, "Close", "0", "-1", "spil"],
  "--backlog": [/size such as/, "-1", huge, "much", "1e16"],
  "--replies": [/ignore or drain/, "yes", "0", "DRAIN"],
  "--sndbuf": [/size such as/, "0", "-1", "2G", huge, "small"],
  "--duration": [/duration such as/, "0", "-1s", "99999h", huge, "soon", "10x"],
  "--metrics": [/HOST:PORT such as|port from 0/, "65536", "-1", ":9090", "a b:1", "x:y", "::1:80"],
  "--line-format": [/plain, time or journal/, "json", "0", "Time", "journald"],
  "--max-readers": [/whole number/, "0", "-1", "1.5", "1e3", huge, "many"],
  "--source": [/tcp:\/\/HOST:PORT, a file/, "udp://h:1", "tcp://h", "tcp://h:0", "tcp://h:65536"],
  "--frame": [
    /fixed:N .*, line, u32, octet or none/,
    "lines",
    "fixed",
    "fixed:0",
    "fixed:65M",
    "u64",
    "0",
  ],
  "--max-message": [/size such as/, "0", "-1", "257M", huge, "long"],
  "--resume-below": [/size such as/, "-1", huge, "much"],
  "--zero-window-timeout": [/duration such as/, "0", "-1s", "99999h", huge, "soon"],
  "--dead-peer-timeout": [/never, or a duration .* at least 1/, "0", "-1s", "999ms", huge, "soon"],
  "--on-bad-frame": [/stop, skip or reconnect/, "drop", "0", "-1", "Stop"],
  "--source-idle": [/duration such as/, "0", "-1s", "99999h", huge, "soon"],
  "--sync": [/always, off, or an interval/, "never", "0", "-1", "interval", "ALWAYS"],
  "--spill-max": [/size such as/, "0", "-1", huge, "all"],
  "--spill-full": [/block, drop-newest or drop-oldest/, "spill", "0", "-1", "blokc"],
  "--retain": [/duration such as/, "0", "-1s", "99999h", huge, "soon"],
  "--memory": [/size such as/, "0", "-1", "1M", huge, "much"],
  "--start": [/now or oldest/, "0", "-1", "newest"],
  "--max-reader-names": [/whole number/, "0", "-1", "1.5", huge, "many"],
  "--reader-id": [/single, address or hello/, "name", "0", "-1", "Hello"],
  "--ack": [/none, tcp or reader/, "yes", "0", "-1", "readr"],
};
/** Those of a queue's file, and of a file to log to. */
const files = ["--log", "--spill"];

describe("server.ts refuses", () => {
  for (const [option, [says, ...values]] of Object.entries(wrong)) {
    test(`a wrong ${option}`, () => {
      for (const value of values) refusesLine([option, value], says);
    });
  }

  test("an option without its value", () => {
    for (const option of [...Object.keys(wrong), ...files]) {
      const says = new RegExp(`${option} needs a value`);
      refusesLine([option], says);
      refusesLine([`${option}=`], says);
    }
  });

  test("as a process: one line, and exit status 2", async () => {
    await Promise.all([
      refuses("server.ts", ["--port", "http"], 2, /^server: --port "http" must be a port.*--help/),
      refuses("server.ts", ["--message", "numbered", "--size", "19"], 2, /^server: --size 19: /),
    ]);
  });

  const others: [args: string[], says: RegExp][] = [
    [["--prot", "1"], /unknown option "--prot"; did you mean --port\?/],
    [["--overflo", "drop"], /did you mean --overflow\?/],
    [["--maxreaders", "3"], /did you mean --max-readers\?/],
    [["--overflow", "blokc"], /did you mean block\?/],
    [["--nonsense"], /unknown option "--nonsense"/],
    [["-p", "80"], /unknown option "-p"/],
    [["--rate", "1", "--rate", "2"], /--rate is given twice/],
    [["--json", "--json"], /--json is given twice/],
    [["--json=1"], /--json takes no value/],
    [["--metrics", "8000"], /--metrics and --port are both 8000/],
    [["--message", "a", "--size", "10"], /--message and --size exclude each other/],
    [["--spil", "q.db"], /unknown option "--spil"; did you mean --spill\?/],
    [["--spillmax", "1M"], /did you mean --spill-max\?/],
    [["--soruce", "-"], /did you mean --source\?/],
    [["--ack", "raeder"], /did you mean reader\?/],
    [["--source", "-", "--source", "-"], /--source is given twice/],
    [["--source-ack=1"], /--source-ack takes no value/],
    [["--sync", "interval:"], /interval such as interval:100ms/],
    // Of ms, or of s? Nobody has to know.
    [["--sync", "interval:100"], /interval such as interval:100ms$/],
    [["--sync", "interval:0s"], /from interval:1ms to interval:596h$/],
    [["--sync", "interval:99999h"], /from interval:1ms to interval:596h$/],
    [["--sync", "interval:soon"], /from interval:1ms to interval:596h$/],
    [["8000"], /"8000" is one argument too many/],
    [["--port", "0", "--", "x"], /one argument too many|nothing may follow --/],
  ];
  test("what is misspelt, given twice, or too much", () => {
    for (const [args, says] of others) refusesLine(args, says);
  });

  const spill = ["--overflow", "spill", "--spill", "no/folder/queue.db"];
  const together: [args: string[], says: RegExp][] = [
    [["--overflow", "spill"], /--overflow spill needs --spill FOLDER/],
    [["--spill", "q.db"], /--spill needs --overflow spill/],
    [["--spill", "q.db", "--overflow", "block"], /--spill needs --overflow spill/],
    [["--sync", "always"], /--sync needs --overflow spill/],
    [["--spill-max", "1M"], /--spill-max needs --overflow spill/],
    [["--spill-full", "drop"], /--spill-full needs --overflow spill/],
    [["--resume-below", "1M"], /--resume-below needs --overflow spill/],
    [["--frame", "line"], /--frame needs --source/],
    [["--frame", "line", "--source", "none", ...spill], /--frame needs --source/],
    [["--max-message", "1k"], /--max-message needs a source with --frame line, u32 or octet/],
    [
      ["--max-message", "1k", "--source", "-"],
      /--max-message needs a source with --frame line, u32 or octet/,
    ],
    [
      ["--max-message", "1k", "--source", "-", "--frame", "fixed:9"],
      /--max-message needs a source with --frame line, u32 or octet/,
    ],
    [["--maxmessage", "1k"], /did you mean --max-message\?/],
    [["--source", "none"], /--source none needs --overflow spill/],
    [
      ["--resume-below", "2k", "--backlog", "1k", ...spill],
      /--resume-below 2k must not be above --backlog, which is 1k: /,
    ],
    [
      ["--resume-below", "16M", ...spill],
      /--resume-below 16M must not be above --backlog, which is 8M \(the default\): /,
    ],
    [
      ["--backlog", "128M", "--memory", "64M"],
      /--backlog 128M must not be above --memory, .* 64M: /,
    ],
    [["--spill-max", "1k", ...spill], /--spill-max "1k" must be a size .* at least 100k/],
    [
      ["--spill-max", "1M", "--max-message", "2M", "--source", "x", "--frame", "line", ...spill],
      /--max-message 2097152: with this --spill-max the queue stores messages of up to 1047552 bytes/,
    ],
    [
      ["--spill-max", "100k", "--size", "1M", "--message", "numbered", ...spill],
      /--size 1048576: with this --spill-max/,
    ],
    [
      ["--spill-max", "100k", "--source", "x", "--frame", "fixed:102400", ...spill],
      /--frame fixed 102400: with this --spill-max/,
    ],
    [["--ack", "reader", "--replies", "ignore"], /--ack reader and --replies ignore exclude/],
    [["--source-ack"], /--source-ack needs --source tcp/],
    [["--source-ack", "--source", "file"], /--source-ack needs --source tcp/],
    [["--on-bad-frame", "skip"], /--on-bad-frame needs a source with --frame line, u32 or octet/],
    [
      ["--on-bad-frame", "skip", "--source", "-"],
      /--on-bad-frame needs a source with --frame line, u32 or octet/,
    ],
    [
      ["--on-bad-frame", "reconnect", "--source", "a.txt", "--frame", "line"],
      /--on-bad-frame reconnect needs --source tcp:.*; for a file .* use stop or skip$/,
    ],
    [["--source-idle", "5s"], /--source-idle needs --source tcp/],
    [["--source-idle", "5s", "--source", "-"], /--source-idle needs --source tcp/],
    [["--source", "tcp://127.0.0.1:9", "--rate", "5"], /a tcp source is read at its own rate/],
    [["--source", "none", "--rate", "5", ...spill], /none, messages are sent as fast as readers/],
    [["--start", "oldest"], /--start needs --source/],
    [["--source", "-", "--message", "x"], /--message and --source exclude each other/],
    [["--source", "-", "--message", "numbered"], /--message and --source exclude each other/],
    [["--source", "-", "--size", "5"], /--size and --source exclude each other/],
    [["--message", "numbered", "--size", "19"], /a numbered message needs at least 20 B/],
  ];
  test("options that need or exclude each other", () => {
    for (const [args, says] of together) refusesLine(args, says);
    const { start } = parseServerCommandLine(
      ["--source", "none", "--start", "oldest", ...spill],
      "server.ts",
    );
    assertEquals(start, "oldest");
  });

  test("a queue's file that cannot be one, which stays as it is", () =>
    withFolder(async (folder) => {
      const args = (file: string) => ["--port", "0", "--overflow", "spill", "--spill", file];
      const missing = join(folder, "missing", "queue");
      await refuses(
        "server.ts",
        args(missing),
        1,
        /cannot create the queue .*: there is no folder/,
      );
      const text = join(folder, "notes.txt");
      writeFileSync(text, "notes\n");
      await refuses("server.ts", args(text), 1, /notes\.txt is a file; a queue is a folder/);
      await refuses("server.ts", args(folder), 1, /is a folder with other files, not a queue/);
      assertEquals(readFileSync(text, "utf8"), "notes\n");
      await refuses(
        "server.ts",
        args(`${text}/queue`),
        1,
        /is not a folder/,
      );
      await refuses("server.ts", args(join(folder, "x".repeat(300))), 1, /its name is too long/);
      await refuses("server.ts", args("/dev/null"), 1, /is not a folder/);
      assertEquals(readdirSync(folder), ["notes.txt"]);
    }));

  test("a queue that another server has open, and that one goes on", () =>
    withFolder(async (folder) => {
      const file = join(folder, "queue.db");
      const args = ["--overflow", "spill", "--spill", file];
      await serving([...json, "--rate", "1000", ...args], async (program, port) => {
        await refuses("server.ts", ["--port", "0", ...args], 1, /open (in|elsewhere)|in use/);
        const reader = await connect(port);
        let bytes = 0;
        reader.on("data", (chunk) => bytes += chunk.length);
        await until("a message", 5000, () => bytes > 0);
        reader.destroy();
        assertEquals(program.stderr, "");
      });
    }));

  test("a source that is not there", () =>
    withFolder(async (folder) => {
      const args = ["--port", "0", "--source", join(folder, "feed.txt")];
      await refuses("server.ts", args, 1, /feed\.txt.*no such file/);
      const to = (source: string) => ["--port", "0", "--source", source];
      await refuses("server.ts", to(folder), 1, /it is a directory, not a file/);
      const hint = /no such file; did you mean --source tcp:\/\/127\.0\.0\.1:9000\?$/m;
      await refuses("server.ts", to("127.0.0.1:9000"), 1, hint);
      await refuses("server.ts", to("/dev/null"), 1, /not a regular file; pipe it into/);
    }));

  test("a message longer than --max-message, and delivers those before it", () =>
    withFolder(async (folder) => {
      const feed = join(folder, "feed.txt");
      writeFileSync(feed, `short\n${"x".repeat(2000)}\nshort\n`);
      const spill = ["--overflow", "spill", "--spill", join(folder, "queue.db")];
      const args = ["--source", feed, "--frame", "line", ...spill];
      const short = ["--port", "0", "--max-message", "1k"];
      const { status, stderr } = await run(["server.ts", ...args, ...short]);
      assertEquals(status, 1);
      assertMatch(stderr, /^server: invalid data in .*: a line is longer than 1k, the maximum/);
      await serving([...args, "--max-message", "2001", ...json], async (program, port) => {
        await within("the feed's end", 5000, program.saw(/"ended","discarded":0/));
        const reader = await connect(port);
        let text = "";
        reader.setEncoding("utf8").on("data", (chunk) => text += chunk).on(
          "end",
          () => reader.end(),
        );
        assertEquals((await within("its end", 5000, program.ended)).status, 0);
        assertEquals(text.length, 2013);
      });
    }));

  test("a port in use", async () => {
    const busy = createServer();
    await new Promise<void>((done) => busy.listen(0, "127.0.0.1", done));
    const { port } = busy.address() as { port: number };
    try {
      await refuses("server.ts", ["--port", String(port)], 1, new RegExp(`:${port}: .*in use`));
    } finally {
      await new Promise((done) => busy.close(done));
    }
  });

  test("a host that does not resolve, or is not ours", async () => {
    const args = (host: string) => ["--host", host, "--port", "0"];
    await refuses("server.ts", args("192.0.2.1"), 1, /no such address/);
    await refuses("server.ts", args("no.such.invalid"), 1, /does not resolve/);
  });

  test("a log that cannot be written", async () => {
    const args = (file: string) => ["--port", "0", "--log", file];
    await refuses("server.ts", args("/no/such/folder/server.log"), 1, /cannot write the log \/no/);
    await refuses("server.ts", args(tmpdir()), 1, /cannot write the log/);
  });
});

describe("--help", () => {
  for (const file of ["server.ts", "client.ts", "bin/limit.ts"]) {
    test(`of ${file}`, async () => {
      const { status, stdout, stderr } = await run([file, "--help"]);
      assertEquals([status, stderr], [0, ""]);
      assertMatch(stdout, /\nUsage:\n {2}\S+\.ts/);
      const options = file === "server.ts" ? [...Object.keys(wrong), ...files] : [];
      for (const option of [...options, "--json", "--help"]) assertStringIncludes(stdout, option);
    });
  }
});
