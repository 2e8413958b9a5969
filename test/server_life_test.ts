/** server.ts as a process that others start, end, and cease to listen to. */
import { describe, test } from "node:test";
import { readFileSync } from "node:fs";
import { type AddressInfo, connect as connectSocket, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { assert, assertEquals, assertGreater, assertGreaterOrEqual } from "#std/assert";
import { runtime } from "../src/kernel/runtime.ts";
import { type Program, run, start } from "./process.ts";
import { connect, json, serving, withFolder } from "./serving.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

/** Connects again and again until the condition holds: so the server has something to print. */
async function connectUntil(
  what: string,
  port: number,
  condition: () => boolean,
  onReader: (reader: Socket) => void = () => {},
): Promise<void> {
  const readers: Socket[] = [];
  let nextMs = 0;
  try {
    await until(what, 10_000, () => {
      if (performance.now() < nextMs) return condition();
      nextMs = performance.now() + 100;
      const reader = connectSocket(port, "127.0.0.1").on("error", () => {}).resume();
      readers.push(reader);
      onReader(reader);
      return condition();
    });
  } finally {
    for (const reader of readers) reader.destroy();
  }
}

/** A new reader gets messages, and the server ends in order. */
async function assertServes(program: Program, port: number): Promise<void> {
  const reader = await connect(port);
  await within("a message", 5000, new Promise((done) => reader.once("data", done)));
  reader.destroy();
  program.kill("SIGTERM");
  assertEquals((await within("its end", 5000, program.ended)).status, 0);
}

describe("a server whose output nobody reads any more", () => {
  test("goes on: standard output", async () => {
    await serving([...json, "--rate", "1k/s"], async (program, port) => {
      program.closeStdout();
      // Our end of the pipe may close only after the first reader has come: so more of them come.
      await connectUntil("the remark", port, () => program.stderr.includes("going on without it"));
      await assertServes(program, port);
      assertEquals(
        program.stderr,
        "server: cannot write to standard output: nobody reads it any more; going on without it\n",
      );
    });
  });

  test("goes on: standard error", async () => {
    const args = ["--rate", "1k/s", "--max-readers", "1"];
    await serving([...json, ...args], async (program, port) => {
      program.closeStderr();
      // The first one stays; each further one is refused, which is printed on standard error.
      const first = await connect(port);
      const refused = () => program.stdout.split('"refused"').length - 1;
      await connectUntil("three refusals", port, () => refused() > 2);
      const closed = () => program.stdout.includes('"closed"');
      first.destroy();
      await until("the end of the first", 5000, closed);
      await assertServes(program, port);
    });
  });

  test("goes on: both", async () => {
    const args = ["--rate", "1k/s", "--max-readers", "1"];
    await serving(args, async (program, port) => {
      program.closeStdout();
      program.closeStderr();
      const first = await connect(port);
      let refused = 0;
      await connectUntil("three refusals", port, () => refused > 2, (reader) => {
        reader.once("close", () => refused++);
      });
      first.destroy();
      // The server may still count the first one.
      let served = false;
      await connectUntil("a message", port, () => served, (reader) => {
        reader.once("data", () => served = true);
      });
      program.kill("SIGTERM");
      assertEquals((await within("its end", 5000, program.ended)).status, 0);
    });
  });
});

describe("SIGHUP", () => {
  test("is ignored by a server that was started to ignore it", async (t) => {
    if (runtime === "node") return skip(t, "Node stops ignoring signals when it starts");
    const under = ["sh", "-c", `trap "" HUP; exec "$@"`, "sh"];
    const program = start(["server.ts", "--port", "0", "--rate", "1k/s"], { under });
    try {
      const [, port] = await within("its start", 10_000, program.saw(/listening on \S+?:(\d+)/));
      program.kill("SIGHUP");
      await assertServes(program, Number(port));
    } finally {
      program.kill("SIGKILL");
    }
  });
});

/** A source that sends the text once, and nothing to those that connect later. */
async function feeding(text: string): Promise<{ name: string; close: () => void }> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    if (sockets.push(socket.on("error", () => {})) === 1) socket.end(text);
  });
  server.listen(0, "127.0.0.1");
  await within("the source", 5000, new Promise((done) => server.once("listening", done)));
  return {
    name: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

describe("a server with a queue that is told to end", () => {
  for (const [signal, expected] of [["SIGTERM", 0], ["SIGHUP", 0], ["SIGINT", 130]] as const) {
    test(`stores what was in memory: ${signal}`, async () => {
      await withFolder(async (folder) => {
        const queue = join(folder, "queue.db");
        // More than the kernels take, less than the backlog in memory: nothing is stored before the end.
        const input = Array.from({ length: 500_000 }, (_, i) => `${i}\n`.padStart(16)).join("");
        const feed = await feeding(input);
        const program = start([
          ...["server.ts", "--port", "0", "--json", "--source", feed.name, "--frame", "line"],
          ...["--overflow", "spill", "--spill", queue, "--backlog", "32M"],
          ...["--reader-id", "address"],
        ]);
        try {
          const [, port] = await within("its start", 10_000, program.saw(/"port":(\d+)/));
          const reader = await connect(Number(port));
          await within("all of the input", 10_000, program.saw(/"disconnected"/));
          assert(!program.stdout.includes('"spilling"'), program.stdout);
          program.kill(signal);
          const { status, stderr } = await within("its end", 10_000, program.ended);
          assertEquals([status, stderr], [expected, ""]);
          const read: Uint8Array[] = [];
          reader.on("data", (chunk: Uint8Array) => read.push(chunk)).on("end", () => reader.end());
          await within("the reader's end", 5000, new Promise((done) => reader.once("close", done)));
          const received = new TextDecoder().decode(await new Blob(read as BlobPart[]).bytes());
          const out = join(folder, "rest");
          const exported = await run(["bin/queue.ts", "export", queue, "--out", out]);
          assertEquals(exported.status, 0, exported.stderr);
          const rest = readFileSync(out, "latin1");
          assertGreater(rest.length, 1 << 20);
          assertGreaterOrEqual(received.length + rest.length, input.length);
          assert(input.startsWith(received), "what was sent is not the beginning of the input");
          assert(input.endsWith(rest), "what was stored is not the end of the input");
        } finally {
          program.kill("SIGKILL");
          feed.close();
        }
      });
    });
  }
});
