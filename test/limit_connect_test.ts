/** bin/limit.ts --connect: readers that listen. */
import { describe, test } from "node:test";
import { createServer } from "node:net";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "#std/assert";
import { runtime } from "../src/kernel/runtime.ts";
import { assertFound, command, kind, LIMIT, limitOf, parse, SOON } from "./limiting.ts";
import { Program, run } from "./process.ts";
import { within } from "./within.ts";

const listening = (behaviour: string, host = "{host}", port = "{port}") =>
  command("test/readers/listening.ts", host, port, behaviour);

/** A port that nobody listens on now. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe(`limit --connect on ${runtime}`, () => {
  test("a reader that is started, and told the port on which it is to listen", async (t) => {
    const reader = await kind(t, "noise", "2000000", "--sd", "0", "--listen", "1");
    if (reader === undefined) return;
    const ran = await limitOf(reader, "--connect", "127.0.0.1:0", "--precision", "2%");
    const result = parse(ran);
    assertFound(result, 2e6, 0.02);
    assertEquals([result.until, result.queueSource], ["worked", "socket"], ran.stderr);
  });

  test("one that runs already, with several connections", async () => {
    const port = await freePort();
    const [program, ...args] = listening("reads", "127.0.0.1", String(port)) as [
      string,
      ...string[],
    ];
    const reader = new Program(program, args, { timeoutMs: 60_000 });
    try {
      await within("listening", 10_000, reader.saw(/listening/));
      const options = ["--connect", `127.0.0.1:${port}`, "--readers", "2", "--max-rate", "1MB/s"];
      const ran = await run([LIMIT, "--json", ...SOON, ...options], { timeoutMs: 60_000 });
      const result = parse(ran);
      assertEquals([ran.status, result.outcome], [0, "generator-limited"], ran.stderr);
      assertEquals([result.reader, result.readers], [`127.0.0.1:${port}`, 2]);
      assert(result.trials.every(({ ended }) => ended === undefined), ran.stderr);
    } finally {
      reader.kill("SIGKILL");
      await within("its end", 5000, reader.ended);
    }
  });

  test("one that does not listen, exits, or closes its connection, is reported with why", async () => {
    const port = await freePort();
    const failed = async (reader: readonly string[], ...options: string[]) => {
      const { status, stdout, stderr } = await limitOf(reader, ...options);
      const { outcome, message } = JSON.parse(stdout);
      assertEquals([status, outcome], [1, "reader-failed"], stderr);
      return message as string;
    };
    const [silent, gone, closing] = await Promise.all([
      failed(["sleep", "60"], "--connect", `127.0.0.1:${port}`),
      failed(["sh", "-c", "echo no such port >&2; exit 3"], "--connect", "127.0.0.1:0"),
      failed(listening("closes after each message"), "--connect", "127.0.0.1:0"),
    ]);
    assertEquals(
      silent,
      `nothing listened on 127.0.0.1:${port} within 10 s: does the command start a reader that ` +
        "listens there?",
    );
    assertEquals(
      gone,
      "the reader exited with status 3 before we could connect to it: no such port",
    );
    assertMatch(closing, /^the reader (closed|reset) its connection$/);
  });

  for (
    const [args, expected] of [
      [["--connect", "127.0.0.1:1", "--attach"], "--connect and --attach exclude each other"],
      [
        ["--connect", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--", "x"],
        "--connect and --listen",
      ],
      [["--connect", "127.0.0.1:0"], "--connect with port 0 needs a command after --"],
      [["--connect", "nowhere"], '--connect "nowhere" must be HOST:PORT'],
    ] as const
  ) {
    test(`refuses ${args.join(" ")}`, async () => {
      const { status, stdout, stderr } = await run([LIMIT, ...args]);
      assertEquals([status, stdout], [2, ""]);
      assertStringIncludes(stderr, expected);
    });
  }
});
