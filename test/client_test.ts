/** client.ts as a person runs it: a process, its output, its exit status. */
import { describe, test } from "node:test";
import { join } from "node:path";
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "#std/assert";
import { main } from "../src/cli/client.ts";
import { UsageError } from "../src/cli/command_line.ts";
import type { Connection } from "../src/net/net.ts";
import { runtime } from "../src/kernel/runtime.ts";
import {
  assertFails,
  assertOneLine,
  client,
  freePort,
  net,
  served,
  withFiles,
} from "./client_run.ts";
import { flood, PATTERN, readAll, sendAndFinish } from "./peer.ts";
import { start } from "./process.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

describe(`client.ts on ${runtime}: the command line`, () => {
  const wrong: Record<string, string[][]> = {
    "must be naive or drain": [["--mode", "fast"], ["--mode", "Naive"], ["--mode", "0"]],
    "--mode needs a value": [["--mode"], ["--mode="], ["--mode", ""]],
    "did you mean": [["--mod", "naive"], ["--read-sise", "5"], ["--jsn"], ["--dration=1s"]],
    "unknown option": [["--xyzzy"], ["-z"], ["--5"]],
    "must be a size": [
      ...["--read-size", "--rcvbuf", "--count"].flatMap((option) =>
        ["x", "0", "-1", "1e30", "NaN", "5s", "0.1"].map((value) => [option, value])
      ),
    ],
    "at most 1G": [["--read-size", "2G"]],
    "must be a size such as": [
      ...["x", "0", "-1", "NaN", "5s"].map((value) => ["--verify", "--size", value]),
    ],
    "at least 20": [["--verify", "--size", "19"]],
    "at most 256M": [["--verify", "--size", "257M"], ["--verify", "--size", "1e15"]],
    "--size needs --verify": [["--size", "64"]],
    "must be a name of 1 to 64": [
      ...["a b", "a/b", "é", " ", "x".repeat(65)].map((name) => ["--hello", name]),
    ],
    "--offset-file needs --ack": [["--offset-file", "x"]],
    "must be in a folder that exists": [
      ["--ack", "--offset-file", "no/such/file"],
      ["--ack", "--offset-file", "client.ts/x"],
    ],
    "must be a file: it is a folder": [["--ack", "--offset-file", "src"]],
    "--ack and replies exclude each other": [
      ["--ack", "--mode", "naive"],
      ["--ack", "--reply", "hi"],
    ],
    "must be a duration": [
      ...["abc", "-5s", "1e30s", "600h", "5k"].flatMap((v) => [["--work", v], ["--duration", v]]),
      ["--duration", "0"],
    ],
    "needs a value": [
      "read-size",
      "rcvbuf",
      "count",
      "duration",
      "work",
      "handler",
      "reply",
      "forward",
      "size",
      "hello",
      "offset-file",
    ]
      .map((name) => [`--${name}`]),
    "must be HOST:PORT": [["8000"], ["localhost"], ["::1:80"], ["--forward", "x"], [
      "--forward",
      "0",
    ]],
    "must be a port": [["localhost:0"], ["localhost:65536"], ["--forward", "[::1]:99999999999"]],
    "is one argument too many": [["a:1", "b:2"]],
    "is given twice": [["--json", "--json"], ["--count", "1", "--count", "2"]],
    "takes no value": [["--json=1"], ["--json", "false"], ["--ack=yes"], ["--verify", "true"]],
    "nothing may follow --": [["--json", "--", "python3"], ["--", "python3"]],
  };
  for (const [message, lines] of Object.entries(wrong)) {
    test(`${lines.length} times "${message}"`, async () => {
      // As the command parses it, without a process.
      for (const args of lines) {
        const error = await assertRejects(() => main(args), UsageError, message);
        assert(!error.message.includes("\n"), error.message);
      }
    });
  }

  test("as a process: one line, exit 2", async () => {
    const [option, together] = await Promise.all([
      client(["--mode", "fast"]),
      client(["--ack", "--reply", "hi"]),
    ]);
    assertFails(option, 2, 'client: --mode "fast" must be naive or drain');
    assertFails(together, 2, "client: --ack and replies exclude each other");
    for (const { stderr } of [option, together]) assertMatch(stderr, / \(see --help\)\n$/);
  });

  test("help", async () => {
    const { status, stdout, stderr } = await client(["--help"]);
    assertEquals([status, stderr], [0, ""]);
    for (
      const option of ["HOST:PORT", "mode", "read-size", "reply", "work", "handler", "forward"]
    ) {
      assertStringIncludes(stdout, option);
    }
    const plain = ["rcvbuf", "duration", "count", "json", "help", "verify", "size", "hello", "ack"];
    for (const option of [...plain, "offset-file"]) {
      assertStringIncludes(stdout, `--${option}`);
    }
    for (const line of stdout.split("\n")) assert(line.length <= 100, line);
  });

  test("nobody listens, or the name does not resolve: one line, exit 1", async () => {
    const server = await freePort();
    const [refused, unknown, forward] = await Promise.all([
      client([server]),
      client(["no.such.invalid:80"]),
      served(flood, (other) => client([other, "--forward", server])),
    ]);
    assertFails(refused, 1, `cannot connect to ${server}: nothing listens there (ECONNREFUSED)`);
    assertFails(unknown, 1, "no.such.invalid:80: the host name does not resolve (ENOTFOUND)");
    assertFails(forward, 1, `cannot connect to ${server}: nothing listens there`);
  });
});

describe(`client.ts on ${runtime}: the ends`, () => {
  test("the server's end: two lines for people, exit 0", async () => {
    const serve = (connection: Connection) => sendAndFinish(connection, 1_000_000);
    const { status, stdout, stderr } = await served(serve, (server) => client([server]));
    assertEquals(status, 0, stderr);
    assertMatch(stdout, /^ended by eof after 1\.00 MB\n[\d.]+ .?B\/s for .+ reads of up to 64k/);
    assertEquals(stdout.trimEnd().split("\n").length, 2);
    assertMatch(stderr, /^connected to 127\.0\.0\.1:\d+\n$/);
  });

  test("--json prints one object and nothing else", async () => {
    const { status, stdout, stderr } = await served(
      flood,
      (server) => client([server, "--json", "--count", "3M", "--mode=naive", "--read-size", "1k"]),
    );
    const { seconds, bytesPerSecond, ...rest } = JSON.parse(stdout);
    const { reads } = rest;
    assertEquals(rest, {
      schema: "speedlimit/drain@2",
      ended: "count",
      mode: "naive",
      readSize: 1024,
      bytes: 3 << 20,
      reads,
      replies: reads,
      runtime,
      readAhead: { deno: 0, bun: 524_288, node: 1024 }[runtime],
    });
    assert(reads >= 3072 && seconds > 0 && bytesPerSecond === rest.bytes / seconds);
    assertEquals([status, stderr], [0, ""]);
    assertOneLine(stdout);
  });

  test("--duration and --work", async () => {
    const args = ["--duration", "300ms", "--work", "1ms", "--json"];
    const { status, stdout } = await served(flood, (server) => client([server, ...args]));
    const { ended, seconds, reads } = JSON.parse(stdout);
    assertEquals([status, ended], [0, "time"]);
    assert(seconds >= 0.29 && seconds < 3, stdout);
    assert(reads > 0 && reads <= seconds * 1000 + 1, stdout);
  });

  test("a reset is an errno and exit 1", async (t) => {
    if (!net.canReset) return skip(t, "this runtime has no way to send RST without libc");
    const serve = async (connection: Connection) => {
      // Its first reply says that it has read.
      void connection.write(PATTERN.subarray(0, 10));
      await connection.read(100);
      connection.reset();
    };
    const { status, stdout } = await served(serve, (server) => client([server, "--mode", "naive"]));
    assertMatch(stdout, /^ended by reset \(ECONNRESET\) after 10 B\n/);
    assertEquals(status, 1);
  });

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    test(`${signal}: what is known, exit 130`, async () => {
      const pattern = /connected to/;
      const { status, stdout } = await served(
        (connection) => void connection.write(PATTERN.subarray(0, 10)),
        (server) => client([server], { signalAfter: { pattern, signal } }),
      );
      assertMatch(stdout, /^interrupted after (0|10) B\n/);
      assertEquals(status, 130);
    });
  }

  test("SIGINT under full load", async () => {
    for (const mode of ["naive", "drain"]) {
      const result = await served(flood, async (server) => {
        const child = start(["client.ts", server, "--mode", mode]);
        await within("its start", 10_000, child.saw(/connected to/));
        await new Promise((resolve) => setTimeout(resolve, 200));
        child.kill("SIGINT");
        return await within("the end", 5000, child.ended);
      });
      assertMatch(result.stdout, /^interrupted after [\d.]+ .?B\n/);
      assertEquals(result.status, 130);
    }
  });

  test("a standard output that closes early is no error", async () => {
    const result = await served(flood, async (server) => {
      const child = start(["client.ts", server]);
      await within("its start", 10_000, child.saw(/connected to/));
      child.closeStdout();
      child.kill("SIGINT");
      return await within("the end", 5000, child.ended);
    });
    assertMatch(result.stderr, /^connected to .*\n$/);
    assertEquals(result.signal, undefined);
  });

  test("--reply TEXT and none", async () => {
    const replies = Promise.withResolvers<string>();
    const serve = async (connection: Connection) => {
      await sendAndFinish(connection, 20);
      replies.resolve(new TextDecoder().decode(await readAll(connection)));
    };
    const common = ["--mode=naive", "--reply"];
    const { status } = await served(
      serve,
      (server) => client([server, ...common, "né!", "--json"]),
    );
    assertEquals(status, 0);
    assertMatch(await within("the replies", 2000, replies.promise), /^(né!){2,}$/);
    const { stdout } = await served(
      (connection) => sendAndFinish(connection, 20),
      (server) => client([server, ...common, "none", "--json"]),
    );
    assertEquals(JSON.parse(stdout).replies, 0);
  });

  test("--rcvbuf is set, or one line says why not", async () => {
    const serve = (connection: Connection) => sendAndFinish(connection, 100_000);
    const result = await served(serve, (server) => client([server, "--rcvbuf", "64k", "--json"]));
    if (result.status === 0) assertEquals(JSON.parse(result.stdout).bytes, 100_000);
    else assertFails(result, 1, "client: cannot set the receive buffer to 64k: ");
  });

  test("IPv6", async () => {
    const serve = (connection: Connection) => sendAndFinish(connection, 100);
    const { status, stdout, stderr } = await served(serve, (server) => client([server]), "::1");
    assertMatch(stderr, /^connected to \[::1\]:\d+\n$/);
    assertMatch(stdout, /^ended by eof after 100 B\n/);
    assertEquals(status, 0);
  });
});

describe(`client.ts on ${runtime}: handlers`, () => {
  const common = ["--count", "1000000", "--json"];

  test("a TypeScript module gets the chunks, and what it returns is forwarded", async () => {
    const handler = `
      let calls: number = 0;
      export default async function (chunk: Uint8Array): Promise<Uint8Array | undefined> {
        await null;
        return calls++ === 0 ? new TextEncoder().encode(\`first of \${chunk.length > 0}\`) : undefined;
      }`;
    const far = Promise.withResolvers<string>();
    const forward = async (connection: Connection) => {
      far.resolve(new TextDecoder().decode(await readAll(connection)));
      connection.close();
    };
    const result = await withFiles(
      { "handler.ts": handler },
      (folder) =>
        served(
          forward,
          (to) =>
            served(flood, (server) =>
              client([server, "--handler", "handler.ts", "--forward", to, ...common], {
                runtime,
                cwd: folder,
              })),
        ),
    );
    assertEquals(result.status, 0, result.stderr);
    const { bytes, forwarded } = JSON.parse(result.stdout);
    assertEquals([bytes, forwarded], [1_000_000, 13]);
    assertEquals(await within("what is forwarded", 2000, far.promise), "first of true");
  });

  const handlers: Record<string, [text: string, status: number, message: string]> = {
    "throws.ts": [
      `export default () => { throw new Error("out of\\ncheese"); }`,
      1,
      "client: the handler failed after 10 B: out of cheese\n",
    ],
    "rejects.ts": [
      `export default async () => { throw new TypeError("no cheese"); }`,
      1,
      "client: the handler failed after 10 B: no cheese\n",
    ],
    "later.ts": [
      `export default () => { setTimeout(() => { throw new Error("late cheese"); }, 1); }`,
      1,
      "client: late cheese\n",
    ],
    "none.ts": ["export const x = 1;", 2, "must export a function as its default"],
    "number.ts": ["export default 5;", 2, "must export a function as its default"],
    "loading.ts": [`throw new Error("not today");`, 1, "cannot be loaded: not today"],
    "syntax.ts": ["export default (", 1, "cannot be loaded: "],
    "imports.ts": [`import "./not_there.ts";`, 1, "cannot be loaded: "],
  };
  for (const [name, [text, status, message]] of Object.entries(handlers)) {
    test(`${name} exits ${status}`, async () => {
      const result = await withFiles(
        { [name]: text },
        (folder) =>
          served(
            flood,
            (server) => client([server, "--handler", join(folder, name), "--read-size", "10"]),
          ),
      );
      assertFails(result, status, message);
    });
  }

  test("a file that does not exist, a folder: exit 2", async () => {
    assertFails(
      await client(["--handler", "no/such.ts"]),
      2,
      '--handler "no/such.ts" does not exist',
    );
    assertFails(await client(["--handler", "src"]), 2, '--handler "src" is not a file');
  });
});
