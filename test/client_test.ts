/** client.ts as a person runs it: a process, its output, its exit status. */
import { describe, test } from "node:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
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
import { loadAdapter } from "../src/net/load.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { readOffset } from "../src/message/offset_file.ts";
import { fillNumbered, NumberedVerifier } from "../src/message/numbered.ts";
import { formatHostPort } from "../src/text/units.ts";
import { AckPeer, type AckPeerOptions, STREAM } from "./ack_peer.ts";
import { flood, PATTERN, readAll, send, sendAndFinish, withServer } from "./peer.ts";
import { run, type RunOptions, type RunResult, start } from "./process.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

const net = await loadAdapter();
/** Runs the client against a server of this process whose every connection goes to `serve`. */
const served = <T>(
  serve: (connection: Connection) => unknown,
  use: (server: string) => Promise<T>,
  host?: string,
): Promise<T> => withServer(serve, (address) => use(formatHostPort(address)), host);

const client = (args: readonly string[], options?: RunOptions): Promise<RunResult> =>
  run(["client.ts", ...args], options);

/** A port where nobody listens. */
const freePort = (): Promise<string> => served(() => {}, (server) => Promise.resolve(server));

function assertOneLine(text: string): void {
  assertMatch(text, /^[^\n]+\n$/);
}

/** Exits with this status, nothing on stdout, and one line on stderr that says this. */
function assertFails(result: RunResult, status: number, message: string): void {
  assertStringIncludes(result.stderr, message);
  assertEquals([result.status, result.stdout], [status, ""], result.stderr);
  assertOneLine(result.stderr.replace(/^connected to .*\n/, ""));
  assert(result.stderr.split("\n").some((line) => line.startsWith("client: ")), result.stderr);
}

/** Handlers, each a file in a folder that is there only while `use` runs. */
async function withFiles<T>(
  files: Record<string, string>,
  use: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-client-"));
  try {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

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

describe(`client.ts on ${runtime}: numbered messages`, () => {
  const numbered = (first: number, count: number, size: number): Uint8Array => {
    const bytes = new Uint8Array(count * size);
    fillNumbered(bytes, { first, count, size, plannedMs: Date.now(), everyMs: 0 });
    return bytes;
  };
  const sending = (parts: Uint8Array[], args: string[]): Promise<RunResult> =>
    served(async (connection) => {
      for (const part of parts) await send(connection, part);
      await connection.closeWrite();
    }, (server) => client([server, ...args]));

  test("all is well: a line for people, an object in the JSON, exit 0", async () => {
    const [people, json] = await Promise.all([
      sending([numbered(0, 1000, 64)], ["--verify"]),
      sending([numbered(0, 1000, 1024)], ["--verify", "--size", "1k", "--json"]),
    ]);
    assertMatch(people.stdout, /\nall 1000 messages arrived in order\n$/);
    assertMatch(people.stderr, /^connected to [^\n]*\n$/);
    const none = { missing: 0, duplicates: 0, outOfOrder: 0, damaged: 0 };
    assertEquals(JSON.parse(json.stdout).verified, { messages: 1000, ...none });
    assertEquals([people.status, json.status, json.stderr], [0, 0, ""]);
  });

  test("anything wrong: the result, one line, exit 1", async () => {
    const damaged = numbered(14, 1, 64);
    damaged[40]! ^= 4;
    const wrong = [[0, 10], [9, 1], [12, 2], [11, 1]].map(([first, count]) =>
      numbered(first!, count!, 64)
    );
    const all = [...wrong, damaged];
    const { stdout, stderr, status } = await sending(all, ["--verify", "--json"]);
    const counts = { missing: 1, duplicates: 1, outOfOrder: 1, damaged: 1 };
    assertEquals(JSON.parse(stdout).verified, { messages: 15, ...counts });
    const said = "15 messages received: 1 missing, 1 duplicate, 1 out of order, 1 damaged";
    assertEquals([stderr, status], [`client: ${said}\n`, 1]);
    for (const part of wrong.slice(1)) {
      const { status } = await sending([numbered(0, 10, 64), part], ["--verify"]);
      assertEquals(status, 1);
    }
  });

  test("bytes that are no numbered messages: exit 1", async () => {
    const serve = (connection: Connection) => sendAndFinish(connection, 6400);
    const { stdout, stderr, status } = await served(
      serve,
      (to) => client([to, "--verify", "--json"]),
    );
    assertEquals([JSON.parse(stdout).verified.damaged, status], [100, 1]);
    assertStringIncludes(
      stderr,
      "does the server run with --message numbered and the same --size?",
    );
  });
});

describe(`client.ts on ${runtime}: acknowledgements`, () => {
  const SIZE = 64;
  const VERIFY = ["--ack", "--verify", "--json"];
  const withPeer = async <T>(
    options: Omit<AckPeerOptions, "size">,
    use: (server: string, peer: AckPeer) => Promise<T>,
  ): Promise<T> => {
    const peer = new AckPeer({ size: SIZE, ...options });
    return await served(peer.serve, async (server) => {
      const result = await use(server, peer);
      await within("the server's end", 5000, peer.ended);
      return result;
    });
  };
  const fileOf = (folder: string) => join(folder, "offset");

  test("an offset file: made, gone on from, and nothing else beside it", async () => {
    await withFiles({}, async (folder) => {
      const file = fileOf(folder);
      for (const [from, end] of [[0, 20_000 * SIZE], [20_000 * SIZE, 50_000 * SIZE]] as const) {
        await withPeer({ end, hello: true }, async (server, peer) => {
          const more = ["--hello", "me", "--offset-file", file];
          const { stdout, stderr, status } = await client([server, ...VERIFY, ...more]);
          const { bytes, stored, missed, verified } = JSON.parse(stdout);
          assertEquals([bytes, missed, stderr, status], [end - from, 0, "", 0]);
          assertEquals(stored, { offset: end, stream: STREAM });
          assertEquals([verified.messages, verified.missing], [(end - from) / SIZE, 0]);
          assertEquals(peer.asked, [from === 0 ? undefined : { offset: from, stream: STREAM }]);
          assertEquals([peer.names, peer.acked], [["me"], end]);
        });
        assertEquals(readFileSync(file, "utf8"), `${end} ${STREAM}\n`);
      }
      assertEquals(readdirSync(folder), ["offset"]);
    });
  });

  test("for people: how far it is stored", async () => {
    const { stdout, status } = await withPeer(
      { end: 100 * SIZE },
      (server) => client([server, "--ack"]),
    );
    assertMatch(stdout, new RegExp(`\nstored up to offset ${100 * SIZE} of stream ${STREAM}\n$`));
    assertEquals(status, 0);
  });

  test("a malformed offset file: exit 1, untouched", async () => {
    const texts = ["", "\n", "5", `5 ${STREAM}`, `x ${STREAM}\n`, `5 ${STREAM}\n\n`, "5 5\n"];
    const files = Object.fromEntries(texts.map((text, i) => [`${i}`, text]));
    await withFiles(files, async (folder) => {
      for (const [name, text] of Object.entries(files)) {
        const file = join(folder, name);
        await withPeer({}, async (server, peer) => {
          const result = await client([server, "--ack", "--offset-file", file]);
          assertFails(result, 1, `the offset file ${file} must contain one line "OFFSET STREAM"`);
          assertEquals([peer.asked, readFileSync(file, "utf8")], [[], text]);
        });
      }
    });
  });

  test("another stream: one line that says what to do, exit 1, the file untouched", async () => {
    const text = `6400 ${"a".repeat(16)}\n`;
    await withFiles({ offset: text }, async (folder) => {
      const file = fileOf(folder);
      const answer = () => `at 0 ${STREAM}\n`;
      const result = await withPeer(
        { answer },
        (server) => client([server, "--ack", "--offset-file", file]),
      );
      assertFails(result, 1, `the server's stream is ${STREAM}, not ${"a".repeat(16)}: `);
      assertStringIncludes(result.stderr, `${file} was not changed: delete it to read`);
      assertEquals(readFileSync(file, "utf8"), text);
    });
  });

  test("what the server no longer has: in messages or in bytes, one line, exit 1", async () => {
    const end = 100 * SIZE;
    const answer = () => `at ${30 * SIZE} ${STREAM}\n`;
    for (const verify of [true, false]) {
      await withFiles({ offset: `${20 * SIZE} ${STREAM}\n` }, async (folder) => {
        const args = ["--ack", "--json", "--offset-file", fileOf(folder)];
        const { stdout, stderr, status } = await withPeer(
          { end, answer },
          (server) => client([server, ...args, ...(verify ? ["--verify"] : [])]),
        );
        const { verified, missed, stored } = JSON.parse(stdout);
        assertEquals([missed, verified?.missing], [10 * SIZE, verify ? 10 : undefined]);
        assertStringIncludes(stderr, verify ? "10 missing, 0 duplicates" : "640 bytes are missing");
        assertEquals([stored.offset, status], [end, 1]);
        assertOneLine(stderr);
        assertEquals(readOffset(fileOf(folder)), { offset: end, stream: STREAM });
      });
    }
  });

  test("SIGINT: the offset file is what the result says, and the next one misses nothing", async () => {
    await withFiles({}, async (folder) => {
      const file = fileOf(folder);
      const args = [...VERIFY, "--offset-file", file];
      let from: number | undefined;
      for (let round = 0; round < 3; round++) {
        await withPeer({}, async (server, peer) => {
          const child = start(["client.ts", server, ...args]);
          await until("an acknowledgement", 10_000, () => peer.acks.length > 0);
          child.kill("SIGINT");
          const { stdout, stderr, status } = await within("its end", 5000, child.ended);
          const { stored, verified, ended } = JSON.parse(stdout);
          assertEquals([ended, status, stderr], ["interrupted", 130, ""]);
          assertEquals(verified.missing + verified.duplicates + verified.outOfOrder, 0);
          assertEquals(peer.asked[0]?.offset, from);
          assertEquals(readOffset(file), stored);
          from = stored.offset as number;
        });
      }
    });
  });

  test("an offset file that cannot be written: one line, exit 1, nothing acknowledged", async () => {
    await withFiles({}, async (folder) => {
      // What is to be written beside it cannot be: root may write anywhere else.
      mkdirSync(`${fileOf(folder)}.new`);
      await withPeer({}, async (server, peer) => {
        const result = await client([server, "--ack", "--offset-file", fileOf(folder)]);
        assertFails(result, 1, `cannot write the offset file ${fileOf(folder)}: `);
        assertEquals(peer.acks, []);
      });
    });
  });

  test("killed at any moment, ten times: nothing is lost between it and where it forwards", async () => {
    await withFiles({}, async (folder) => {
      const file = fileOf(folder);
      const peer = new AckPeer({ size: SIZE, hello: true });
      let received = 0;
      let sink = new NumberedVerifier(SIZE);
      let sunk: Promise<void> = Promise.resolve();
      const onForward = (connection: Connection) => {
        sunk = (async () => {
          for (let chunk; (chunk = await connection.read(65_536)) !== null;) {
            received += chunk.length;
            sink.push(chunk);
          }
        })();
      };
      await served(onForward, (forward) =>
        served(peer.serve, async (server) => {
          const args = [server, ...VERIFY, "--hello", "me", "--offset-file", file];
          for (let round = 0; round < 10; round++) {
            const before = readOffset(file);
            const from = before?.offset ?? 0;
            received = 0;
            sink = new NumberedVerifier(SIZE, from / SIZE);
            const acks = peer.acks.length;
            const child = start(["client.ts", ...args, "--forward", forward]);
            await until("an acknowledgement", 10_000, () => peer.acks.length > acks);
            await new Promise((resolve) => setTimeout(resolve, Math.random() * 60));
            child.kill("SIGKILL");
            const { signal } = await within("its end", 5000, child.ended);
            await within("the far end", 5000, sunk);
            await within("the server's end", 5000, peer.ended);
            assertEquals([signal, peer.names.length], ["SIGKILL", round + 1]);
            assertEquals(peer.asked.at(-1), before);
            // Never torn, never behind what was acknowledged, never ahead of what was handed on.
            const stored = readOffset(file)!;
            assertEquals([stored.stream, stored.offset % SIZE], [STREAM, 0]);
            assert(stored.offset >= peer.acked, `${stored.offset} after ack ${peer.acked}`);
            assert(stored.offset <= from + received, `${stored.offset} of ${from + received}`);
            const { messages, missing, duplicates, outOfOrder, damaged } = sink;
            assertEquals([missing, duplicates, outOfOrder, damaged], [0, 0, 0, 0]);
            assert(messages > 0);
          }
          const last = await client([...args, "--count", "1M"]);
          const { verified, missed } = JSON.parse(last.stdout);
          assertEquals([missed, verified.messages, last.status], [0, (1 << 20) / SIZE, 0]);
        }));
    });
  });
});

describe("client.ts on Deno", () => {
  test("asks for no more permissions than it needs", async (t) => {
    if (runtime !== "deno") return skip(t, "only Deno has permissions");
    const serve = (connection: Connection) => sendAndFinish(connection, 100_000);
    const run = (permissions: string[], ...args: string[]) =>
      served(serve, (server) => client([server, "--json", ...args], { permissions }));
    const least = await run(["--allow-net", "--allow-ffi"]);
    assertEquals([least.status, least.stderr], [0, ""]);
    const handler = await run(["--allow-net", "--allow-ffi"], "--handler", "mod.ts");
    assertFails(handler, 1, "--allow-read");
    await withFiles({}, async (folder) => {
      const permissions = ["--allow-net", "--allow-ffi", `--allow-read=${folder}`];
      const peer = new AckPeer({ size: 64, end: 6400 });
      const { status, stderr } = await served(
        peer.serve,
        (server) =>
          client([server, "--json", "--ack", "--offset-file", join(folder, "offset")], {
            permissions: [...permissions, `--allow-write=${folder}`],
          }),
      );
      assertEquals([status, stderr, peer.acked], [0, "", 6400]);
    });
    const nothing = await run([]);
    assertEquals([nothing.status, nothing.stdout], [1, ""]);
    assertOneLine(nothing.stderr);
  });
});
