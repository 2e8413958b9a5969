/** A server that is told to end: no reader that replies loses what it has not read yet to a reset. */
import { describe, test } from "node:test";
import { join } from "node:path";
import { assertEquals, assertGreater, assertLessOrEqual, assertMatch } from "#std/assert";
import type { Closed, Connection } from "../src/net/net.ts";
import { loadAdapter } from "../src/net/load.ts";
import type { ServeEvent } from "../src/relay/serve_event.ts";
import { type Program, run } from "./process.ts";
import { json, serving, withFolder } from "./serving.ts";
import { until, within } from "./within.ts";

/** How often each is repeated, with so many readers. */
const TIMES = 3;
const READERS = 4;
/** More is on its way than a reader takes with one read, but not more than it takes in a second. */
const FAST = [...json, "--rate", "max", "--overflow", "block", "--sndbuf", "64k"];

const net = await loadAdapter();

interface Replying {
  /** Bytes read so far. */
  bytes: number;
  /** How it ended. */
  ended: Promise<Closed>;
}

/** Replies to each read, as the article's reader does, until the end; then it closes its side. */
function replying(
  connection: Connection,
  first: string,
  reply: (bytes: number) => string,
): Replying {
  const reader: Replying = { bytes: 0, ended: read() };
  async function read(): Promise<Closed> {
    if (first !== "") await connection.write(new TextEncoder().encode(first));
    for (let chunk; (chunk = await connection.read(8192)) !== null;) {
      reader.bytes += chunk.length;
      await connection.write(new TextEncoder().encode(reply(reader.bytes)));
    }
    connection.close();
    return await connection.closed;
  }
  return reader;
}

const nameOf = (i: number) => `reader-${i}`;

/** Starts a server and readers, and ends the server while they are reading. */
async function stopping(
  args: readonly string[],
  first: (name: string) => string,
  reply: (bytes: number) => string,
  use: (readers: Replying[], program: Program) => Promise<void> = async () => {},
): Promise<void> {
  await serving(args, async (program, port) => {
    const readers: Replying[] = [];
    for (let i = 0; i < READERS; i++) {
      const to = { host: "127.0.0.1", port };
      const connection = await within("connect", 5000, net.connect(to));
      readers.push(replying(connection, first(nameOf(i)), reply));
    }
    await until("many bytes", 10_000, () => readers.every(({ bytes }) => bytes > 100_000));
    program.kill("SIGTERM");
    for (const { ended } of readers) {
      assertEquals(await within("the reader's end", 5000, ended), { reason: "eof" });
    }
    const { status, stderr } = await within("the server's end", 5000, program.ended);
    assertEquals([status, stderr], [0, ""]);
    await use(readers, program);
  });
}

/** How each reader's connection ended, by its number: of its `closed` event. */
function endsOf({ stdout }: Program): Map<number, string> {
  const events = stdout.trimEnd().split("\n").map((line) => JSON.parse(line) as ServeEvent);
  return new Map(
    events.flatMap((event) => event.event === "closed" ? [[event.reader, event.reason]] : []),
  );
}

const ok = (_bytes?: number) => "ok";
const hello = (name: string) => `${name}\n`;
const nothing = () => "";

describe("at SIGTERM a reader that replies to each read reads to the end", () => {
  test("of a flood whose replies are drained: of whole messages", async () => {
    for (let i = 0; i < TIMES; i++) {
      const args = [...FAST, "--replies", "drain", "--size", "1000"];
      await stopping(args, nothing, ok, (readers, program) => {
        for (const { bytes } of readers) {
          assertEquals(bytes % 1000, 0);
          assertMatch(program.stdout, new RegExp(`"closed".*"bytes":${bytes},`));
        }
        return Promise.resolve();
      });
    }
  });

  for (const ack of ["tcp", "none"]) {
    test(`of a relay, with --ack ${ack}`, async () => {
      const args = ["--ack", ack, "--message", "numbered", "--reader-id", "hello"];
      for (let i = 0; i < TIMES; i++) await stopping([...FAST, ...args], hello, ok);
    });
  }

  // All of it stays in memory, where each message can be delivered by itself, and not only each batch.
  const SPILLING = [
    ...[...json, "--rate", "50MB/s", "--overflow", "spill", "--backlog", "256M"],
    ...["--sndbuf", "64k", "--reader-id", "hello"],
  ];
  const AT = `at 0 ${"0".repeat(16)}\n`.length;
  /** Each with what precedes the stream on its connection. */
  const queues: Record<string, [first: typeof hello, reply: typeof ok, before: number]> = {
    tcp: [hello, ok, 0],
    reader: [
      (name) => `${name}\nresume - -\n`,
      (bytes = 0) => `ack ${Math.max(0, bytes - AT)}\n`,
      AT,
    ],
  };
  for (const [ack, [first, reply, before]] of Object.entries(queues)) {
    test(`of a queue, and what is acknowledged until then is delivered: --ack ${ack}`, async () => {
      await withFolder(async (folder) => {
        for (let i = 0; i < TIMES; i++) {
          const queue = join(folder, `${i}.db`);
          await stopping(
            [...SPILLING, "--spill", queue, "--ack", ack],
            first,
            reply,
            async (readers, program) => {
              const ends = endsOf(program);
              const status = await run(["bin/queue.ts", "status", queue, "--json"]);
              assertEquals([status.status, status.stderr], [0, ""]);
              const { readers: rows } = JSON.parse(status.stdout) as {
                readers: { name: string; delivered: number }[];
              };
              for (const [i, { bytes }] of readers.entries()) {
                const { delivered } = rows.find(({ name }) => name === nameOf(i))!;
                // What was not on disk then is rounded down to the start of a message.
                const whole = (bytes - before) - (bytes - before) % 64;
                // On a busy machine our readers may need more than the second for which the server waits.
                if (ends.get(i + 1) === "eof") assertEquals(delivered - delivered % 64, whole);
                else assertLessOrEqual(delivered, whole);
              }
            },
          );
        }
      });
    });
  }
});

describe("at SIGTERM the server does not wait", () => {
  /** Connects a reader that never reads. */
  const withStalled = (
    args: readonly string[],
    use: (program: Program, reader: Connection) => Promise<void>,
  ) =>
    serving([...FAST, ...args], async (program, port) => {
      const reader = await within("connect", 5000, net.connect({ host: "127.0.0.1", port }));
      try {
        await within("the reader", 5000, program.saw(/"event":"reader"/));
        await use(program, reader);
      } finally {
        reader.reset();
      }
    });

  test("longer than a second for a reader that does not close", async () => {
    for (const args of [["--replies", "drain"], ["--ack", "tcp"]]) {
      await withStalled(args, async (program) => {
        const before = performance.now();
        program.kill("SIGTERM");
        const { status } = await within("its end", 5000, program.ended);
        assertEquals(status, 0);
        assertGreater(performance.now() - before, 900);
      });
    }
  });

  test("after a second signal", async () => {
    // The reader takes everything, and so sees the FIN that follows the first signal.
    await serving([...FAST, "--replies", "drain"], async (program, port) => {
      const reader = await within("connect", 5000, net.connect({ host: "127.0.0.1", port }));
      try {
        await within("the first bytes", 5000, reader.read(8192));
        program.kill("SIGTERM");
        while (await within("the next bytes", 5000, reader.read(65_536)) !== null);
        // The first one alone would end it with 0.
        program.kill("SIGTERM");
        const { status } = await within("its end", 5000, program.ended);
        assertEquals(status, 130);
      } finally {
        reader.reset();
      }
    });
  });

  test("where replies are ignored: the connection is reset, as in the article", async () => {
    const args = [...json, "--replies", "ignore", "--rate", "1k/s"];
    await serving(args, async (program, port) => {
      const connection = await within("connect", 5000, net.connect({ host: "127.0.0.1", port }));
      const reader = replying(connection, "", ok);
      await until("the first replies", 10_000, () => reader.bytes > 100);
      program.kill("SIGTERM");
      assertEquals((await within("the reader's end", 5000, reader.ended)).reason, "reset");
      assertEquals((await within("its end", 5000, program.ended)).status, 0);
    });
  });
});
