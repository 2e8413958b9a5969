/** Who comes back to a relay, what counts as delivered, and so what is sent again. */
import { describe, test } from "node:test";
import { connect as connectSocket, type Socket } from "node:net";
import {
  assert,
  assertEquals,
  assertGreater,
  assertMatch,
  assertStringIncludes,
} from "#std/assert";
import { connectionState, kernelSource } from "../src/kernel/kernel.ts";
import type { ServeOptions } from "../src/relay/serve_options.ts";
import { setTimeout as sleep } from "node:timers/promises";
import {
  numbered,
  numberIn,
  type Reader,
  relaying,
  SIZE,
  SMALL,
  StoredFor,
  TestSource,
  withoutKernel,
  withQueues,
} from "./relaying.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

describe("--reader-id single", () => {
  test("a second one is turned away while the first is here", async () => {
    await relaying({ source: new TestSource(), ack: "none" }, async ({ connect, saw }) => {
      await connect();
      await saw("reader");
      const second = await connect();
      assertEquals(await within("its end", 5000, second.connection.read(10)), null);
      const closed = await saw("closed");
      assertEquals([closed.reader, closed.refused], [2, "another reader is connected already"]);
      assertEquals(closed.why, "connected");
      assertEquals([closed.messages, closed.bytes], [0, 0]);
    });
  });

  test("one that left on a quiet feed keeps nobody out", async () => {
    const source = new TestSource();
    await relaying({ source, ack: "none", overflow: "block" }, async ({ connect, saw }) => {
      const first = await connect();
      await source.push(1);
      await first.take(SIZE);
      first.connection.close();
      // No write tells of it.
      await sleep(50);
      const second = await connect(1);
      const closed = await saw("closed");
      assertEquals([closed.reader, closed.refused], [1, undefined]);
      await source.push(1);
      await second.take(SIZE);
      second.assertWhole(1);
    });
  });
});

describe("--reader-id hello", () => {
  const options: Partial<ServeOptions> = { readerId: "hello", ack: "none", overflow: "spill" };

  test("each name has its own stream, also after a restart", () =>
    withQueues(async (open) => {
      const had = { anna: 0, bert: 0 };
      for (const life of [1, 2]) {
        const queue = await open();
        await relaying({ ...options, queue, rate: 5000 }, async ({ connect, saw, server }) => {
          for (const name of ["anna", "bert"] as const) {
            const reader = await connect(had[name]);
            await reader.say(`${name}\n`);
            await reader.take((name === "anna" ? 100 : 300) * SIZE);
            reader.assertUnbroken();
            had[name] = Math.floor(reader.offset / SIZE);
          }
          await within("stop", 5000, server.stop());
          // What our kernel took of each counts as delivered, and may be more than was read.
          const { messages } = await saw("done");
          assertGreater(messages, 400);
        });
        for (const name of ["anna", "bert"] as const) {
          const { delivered } = new StoredFor(queue, name);
          assert(delivered >= had[name] * SIZE, `${name} in life ${life}: ${delivered}`);
          had[name] = Math.floor(delivered / SIZE);
        }
        assertEquals(queue.logs.map(({ key }) => key).sort(), ["anna", "bert"]);
        await queue.close();
      }
    }));

  test("one that comes again takes over from its own connection that hangs", () =>
    withQueues(async (open) => {
      const queue = await open();
      await relaying({ ...options, ack: "reader", queue }, async ({ connect, saw, all }) => {
        const hanging = await connect();
        await hanging.say("anna\n");
        const { stream } = await hanging.resume();
        await hanging.take(10 * SIZE);
        await hanging.ack();
        const other = await connect();
        await other.say("bert\n");
        await other.resume();
        const stored = new StoredFor(queue, "anna");
        await until("the acknowledgement", 5000, () => stored.delivered === 10 * SIZE);
        const again = await connect(10);
        await again.say("anna\n");
        assertEquals(await again.resume(stream), { offset: 10 * SIZE, stream });
        await again.take(100 * SIZE);
        again.assertUnbroken();
        const closed = await saw("closed");
        assertEquals([closed.reader, closed.reason, closed.refused], [1, "local", undefined]);
        assertEquals([closed.name, closed.replacedBy], ["anna", 3]);
        const named = all("named").map(({ reader, name }) => `${reader} ${name}`);
        assertEquals(named, ["1 anna", "2 bert", "3 anna"]);
        await other.take(100 * SIZE);
        other.assertUnbroken();
      });
    }));

  test("of several connections at the same time one is served, and the others are reset", () =>
    withQueues(async (open) => {
      const source = new TestSource();
      const all: Partial<ServeOptions> = { ...options, ack: "reader", queue: await open(), source };
      await relaying(all, async ({ connect, saw, server }) => {
        const first = await connect();
        await first.say("anna\nresume - -\n");
        await first.line();
        // More than the kernels hold: it has to wait.
        for (let i = 0; i < 20; i++) await source.push(5000);
        for (let round = 1; round <= 3; round++) {
          const readers: Reader[] = [];
          for (let i = 0; i < 5; i++) readers.push(await connect());
          await Promise.all(readers.map((reader) => reader.say("anna\nresume - -\n")));
          await saw("closed", 5 * round);
          const served = await Promise.all(readers.map(async (reader) => {
            try {
              await reader.line();
              await reader.take(50_000 * SIZE);
              reader.assertUnbroken();
              return true;
            } catch {
              return false;
            }
          }));
          assertEquals(served.filter((one) => one).length, 1);
        }
        assertEquals(server.figures!().readers.map(({ connected }) => connected), [true]);
        await within("stop", 10_000, server.stop());
      });
    }));

  const wrong: [said: string, refused: RegExp][] = [
    ["anna bert\n", /first line "anna bert" must be its name/],
    ["\n", /first line "" must be its name/],
    ["x".repeat(65) + "\n", /must be its name: 1 to 64/],
    ["x".repeat(300), /longer than 256 bytes/],
    ["", /disconnected before it sent its name/],
    ["ann", /disconnected before it sent its name/],
  ];
  for (const [said, refused] of wrong) {
    test(`a reader that says ${JSON.stringify(said.slice(0, 12))} is turned away`, async () => {
      const source = new TestSource();
      await relaying(
        { readerId: "hello", source, ack: "none" },
        async ({ connect, saw }) => {
          const reader = await connect();
          await reader.say(said);
          if (!said.endsWith("\n")) await reader.connection.closeWrite();
          assertEquals(await within("its end", 5000, reader.connection.read(10)), null);
          const closed = await saw("closed");
          assertMatch(closed.refused!, refused);
          assertEquals(closed.why, "handshake");
        },
      );
    });
  }
});

describe("a reader that does not say what it has to", () => {
  const cases: [
    readerId: "hello" | "single",
    ack: "none" | "reader",
    said: string,
    missing: string,
  ][] = [
    ["hello", "none", "", "its name"],
    ["hello", "none", "ann", "its name"],
    ["hello", "reader", "", "its name"],
    ["hello", "reader", "anna\n", "its offset (a `resume` line)"],
    ["single", "reader", "resume - -", "its offset (a `resume` line)"],
  ];
  for (const [readerId, ack, said, missing] of cases) {
    test(`${readerId}, ack ${ack}, ${JSON.stringify(said)}: is disconnected in time`, async () => {
      const source = new TestSource();
      const handshakeTimeoutMs = 200;
      const options: Partial<ServeOptions> = { source, readerId, ack, handshakeTimeoutMs };
      await relaying({ ...options, overflow: "block" }, async ({ connect, saw }) => {
        const reader = await connect();
        await reader.say(said);
        const startMs = performance.now();
        assertEquals(await within("its end", 5000, reader.connection.read(10)), null);
        const seconds = (performance.now() - startMs) / 1000;
        assert(seconds > 0.15 && seconds < 2, `after ${seconds} s`);
        const closed = await saw("closed");
        assertEquals(closed.refused, `the reader has not sent ${missing} within 200 ms`);
        assertEquals(closed.why, "handshake");
        // And it was in nobody's way.
        const next = await connect();
        await next.say(readerId === "hello" ? "anna\n" : "");
        if (ack === "reader") await next.resume();
        await source.push(1);
        await next.take(SIZE);
        next.assertWhole(1);
      });
    });
  }
});

describe("--reader-id address", () => {
  test("is the address: a second one from it is turned away, one from another is not", async (t) => {
    const source = new TestSource();
    const options: Partial<ServeOptions> = { readerId: "address", source, ack: "none" };
    await relaying({ ...options, overflow: "block" }, async ({ connect, saw, server }) => {
      const reader = await connect();
      await saw("reader");
      await connect();
      assertEquals((await saw("closed")).reader, 2);
      const { port } = server.address;
      const other: Socket = connectSocket({ host: "127.0.0.1", port, localAddress: "127.0.0.2" });
      let came = 0;
      other.on("data", (chunk) => came += chunk.length).on("error", () => {});
      try {
        const third = await saw("reader", 3);
        if (third.host !== "127.0.0.2") return skip(t, "no other address to be had");
        await source.push(10);
        await reader.take(10 * SIZE);
        await until("ten messages", 5000, () => came === 10 * SIZE);
      } finally {
        other.destroy();
      }
    });
  });
});

describe("what was not delivered is sent again", () => {
  test("--ack none: from the first message that our kernel had not taken whole", (t) =>
    withQueues(async (open) => {
      if (withoutKernel(t)) return;
      const queue = await open();
      const options: Partial<ServeOptions> = { overflow: "spill", queue, sendBuffer: SMALL };
      await relaying({ ...options, ack: "none", rate: 100_000 }, async ({ connect, saw }) => {
        const reader = await connect();
        await reader.take(SIZE);
        await sleep(200);
        reader.connection.reset();
        const { bytes } = await saw("closed");
        const again = await connect();
        await again.take(100 * SIZE);
        assertEquals(firstOf(again), Math.floor(bytes / SIZE));
        assertEquals(again.verifier.damaged, 0);
      });
    }));

  test("--ack tcp: from the first message that the reader's kernel had not acknowledged whole", (t) =>
    withQueues(async (open) => {
      if (withoutKernel(t)) return;
      if (kernelSource !== "sock_diag") return skip(t, "the kernel does not tell of the other end");
      const queue = await open();
      const options: Partial<ServeOptions> = { overflow: "spill", queue, sendBuffer: SMALL };
      await relaying({ ...options, ack: "tcp", rate: 100_000 }, async ({ connect, saw }) => {
        let acked = 0;
        for (let visit = 1; visit <= 3; visit++) {
          const reader = await connect();
          // Some odd number of bytes; then it stops, until nothing moves any more.
          await reader.take(100 * SIZE);
          assertEquals(firstOf(reader), Math.floor(acked / SIZE));
          assertEquals(reader.verifier.damaged, 0);
          acked = Math.floor(acked / SIZE) * SIZE + await settledAcks(reader);
          reader.connection.reset();
          await saw("closed", visit);
        }
        assertGreater(acked, 300 * SIZE);
      });
    }));

  test("--ack reader: from the byte that was acknowledged last, even inside a message", () =>
    withQueues(async (open) => {
      const queue = await open();
      const options: Partial<ServeOptions> = { overflow: "spill", queue, ack: "reader" };
      await relaying(options, async ({ connect, saw }) => {
        const bytes = numbered(0, 3);
        let stream = "";
        for (const [visit, [from, to]] of [[0, 100], [100, 101], [101, 130]].entries()) {
          const reader = await connect();
          await reader.say(visit === 0 ? "resume - -\n" : `resume ${from} ${stream}\n`);
          const [, at, name] = (await reader.line()).trimEnd().split(" ");
          assertEquals(at, String(from));
          stream = name!;
          await reader.take(to! - from!);
          // Its number is in the first half of a message; the time before it is another one.
          if (from === 100) assertEquals(reader.head[0], bytes[100]);
          await reader.say(`ack ${to}\n`);
          // With bytes unread its end is a reset, and that may overtake what it has said.
          await taken(reader);
          reader.connection.close();
          await saw("closed", visit + 1);
        }
        // It is not sent again, though the reader asks for it.
        for (const line of ["resume - -\n", `resume 0 ${stream}\n`, `resume 129 ${stream}\n`]) {
          const reader = await connect();
          await reader.say(line);
          assertEquals(await reader.line(), `at 130 ${stream}\n`);
          reader.connection.close();
          await saw("closed");
          await sleep(30);
        }
      });
    }));

  test("--ack reader: a reader of another stream gets the name of ours, and is disconnected", () =>
    withQueues(async (open) => {
      const queue = await open();
      const options: Partial<ServeOptions> = { overflow: "spill", queue, ack: "reader" };
      await relaying(options, async ({ connect, all }) => {
        const { stream } = queue.logs[0]!;
        const reader = await connect();
        await reader.say("resume 640 00c0ffee0123abcd\n");
        assertEquals(await reader.line(), `at 0 ${stream}\n`);
        assertEquals(await within("its end", 5000, reader.connection.read(10)), null);
        reader.connection.close();
        await until("closed", 5000, () => all("closed").length === 1);
        const { refused } = all("closed")[0]!;
        for (const named of ["00c0ffee0123abcd", stream]) assertStringIncludes(refused!, named);
        const right = await connect();
        assertEquals(await right.resume(), { offset: 0, stream });
        await right.take(SIZE);
        right.assertWhole(1);
      });
    }));

  const broken = ["ack 1x\n", "ack -1\n", "hello\n", "ack 99999999999\n"];
  for (const said of broken) {
    test(`--ack reader: one that says ${JSON.stringify(said)} is reset`, async () => {
      const source = new TestSource();
      const options: Partial<ServeOptions> = { source, ack: "reader", overflow: "block" };
      await relaying(options, async ({ connect, saw }) => {
        const reader = await connect();
        await reader.resume();
        await reader.say(said);
        const { error } = await saw("protocol");
        assertMatch(error, /^the reader('s line .* must be "ack OFFSET"| acknowledges \d+ bytes)/);
        assertEquals((await reader.rest()).reason, "reset");
      });
    });
  }
});

/** The number of the first message that it read. */
const firstOf = ({ head }: Reader): number => numberIn(head);

/** Waits until the server's program has taken what the reader has said. */
async function taken({ connection: { local, remote } }: Reader): Promise<void> {
  const left = () => connectionState(local, remote).far?.receiveQueue ?? 0;
  await until("what it said is taken", 5000, () => left() === 0);
  // Taken is not yet acted upon; where the kernel does not tell, this has to do.
  await sleep(20);
}

/** What its kernel acknowledged, once that has not changed for some time. */
async function settledAcks({ connection: { local, remote } }: Reader): Promise<number> {
  let acked = -1;
  let since = performance.now();
  while (true) {
    const { bytesAcked = 0, sendWindow } = connectionState(remote, local).near?.info ?? {};
    if (bytesAcked !== acked) since = performance.now();
    acked = bytesAcked;
    // Into a window that is not quite shut the kernel still sends, whenever its timer probes it.
    const longest = sendWindow === 0 ? 150 : 2000;
    if (performance.now() - since >= longest) return acked;
    await sleep(5);
  }
}
