/** The server in between: readers that are away, that stop, and that come back; and its own restart. */
import { describe, test } from "node:test";
import process from "node:process";
import { assert, assertEquals, assertGreater, assertLess } from "#std/assert";
import type { Adapter } from "../src/net/net.ts";
import type { ServeOptions } from "../src/relay/serve_options.ts";
import type { Sink, Source } from "../src/source/source.ts";
import { setTimeout as sleep } from "node:timers/promises";
import {
  net,
  NOTHING,
  numbered,
  type Reader,
  type Relayed,
  relaying,
  SIZE,
  SMALL,
  StoredFor,
  TestSource,
  withoutKernel,
  withQueues,
} from "./relaying.ts";
import { until, within } from "./within.ts";

const MIB = 1 << 20;
const RATE = 20_000;

/** Reads until nothing waits on disk: what was made before the reader came did. */
async function untilLive(reader: Reader, all: Relayed["all"]): Promise<void> {
  do {
    // At the end it would be asked for ever.
    if (!await reader.read()) throw new Error("the stream ended before it came from memory again");
  } while (all("caught-up").length < all("spilling").length);
}

describe("a reader that is away", () => {
  test("gets all from the first on, then what is new, without a seam; then the server ends", () =>
    withQueues(async (open) => {
      const queue = await open();
      const source = new TestSource();
      const options = { overflow: "spill", queue, source } as const;
      await relaying(options, async ({ server, saw, all, connect }) => {
        const flood = source.flood(RATE);
        await saw("spilling");
        const stored = new StoredFor(queue, "reader");
        await until("on disk", 5000, () => stored.messages > 0.3 * RATE);
        const reader = await connect();
        const caughtUp = saw("caught-up");
        const closed = reader.rest();
        assertGreater((await caughtUp).spilled, 0);
        assertEquals(all("closed"), []);
        source.end();
        await flood;
        const { messages } = source;
        assertEquals(await closed, { reason: "eof" });
        reader.assertWhole(messages);
        const result = await within("done", 5000, server.done);
        assertEquals([result.messages, result.bytes], [messages, messages * SIZE]);
        assertEquals([result.dropped, result.readers], [0, 1]);
        assertEquals([stored.bytes, stored.delivered], [0, messages * SIZE]);
      });
    }));

  test("is waited for when the flood is over: then all of it is on disk", () =>
    withQueues(async (open) => {
      const queue = await open();
      const options = { overflow: "spill", queue, durationMs: 300 } as const;
      await relaying(options, async ({ server, all, connect }) => {
        const stored = new StoredFor(queue, "reader");
        await until("stored", 5000, () => stored.messages === 0.3 * RATE);
        assertEquals(all("done"), []);
        const reader = await connect();
        assertEquals(await reader.rest(), { reason: "eof" });
        reader.assertWhole(0.3 * RATE);
        await within("done", 5000, server.done);
      });
    }));

  test("without a queue is not waited for", async () => {
    const source = new TestSource();
    const options: Partial<ServeOptions> = { overflow: "block", source };
    await relaying(options, async ({ server, connect, all }) => {
      const reader = await connect();
      await source.push(100);
      await reader.take(50 * SIZE);
      reader.connection.close();
      // Only a write tells that nobody reads any more.
      await until("its end", 5000, () => (void source.push(100), all("closed").length > 0));
      source.end();
      await within("done", 5000, server.done);
    });
  });

  test("comes and goes: all of it, each time from where it was acknowledged", () =>
    withQueues(async (open) => {
      const queue = await open();
      const options = { overflow: "spill", queue, durationMs: 1000, ack: "reader" } as const;
      await relaying(options, async ({ server, connect, saw }) => {
        let offset = 0;
        let stream: string | undefined;
        let visits = 0;
        for (let over = false; !over; visits++) {
          const reader = await connect(offset / SIZE);
          const at = await reader.resume(stream);
          assertEquals(at, { offset, stream: stream ?? at.stream });
          stream = at.stream;
          // A part of it, and then the rest.
          const most = visits < 4 ? RATE * SIZE / 8 : Infinity;
          const end = performance.now() + (visits < 4 ? 20 : Infinity);
          while (!over && performance.now() < end && reader.bytes < most) {
            over = !await reader.read();
            await reader.ack();
          }
          reader.connection.close();
          // A message that was cut off comes again.
          offset = reader.offset;
          reader.assertUnbroken();
          await saw("closed", visits + 1);
          if (!over) await sleep(50);
        }
        assertEquals(offset, RATE * SIZE);
        assertGreater(visits, 3);
        await within("done", 5000, server.done);
      });
    }));
});

test("caught up: what was spilled for others does not count", (t) =>
  withQueues(async (open) => {
    if (withoutKernel(t)) return;
    const queue = await open();
    const source = new TestSource();
    const options = { overflow: "spill", queue, source, readerId: "hello", ack: "tcp" } as const;
    await relaying(options, async ({ all, connect }) => {
      const flood = source.flood(100_000);
      const come = async (name: string) => {
        const reader = await connect();
        await reader.say(`${name}\n`);
        await reader.take(SIZE);
        return reader;
      };
      for (const name of ["gone", "back"]) {
        const reader = await come(name);
        const before = all("spilling").length;
        reader.connection.reset();
        const spilling = () => all("spilling").slice(before).find((event) => event.name === name);
        await until(`${name} is spilled for`, 5000, () => spilling()?.why === "absent");
        if (name === "back") break;
        await until("4 MiB on disk", 10_000, () => queue.logs[0]!.end > 4 * MIB);
      }
      const before = all("caught-up").length;
      const back = await come("back");
      const caughtUp = () => all("caught-up").slice(before).find(({ name }) => name === "back");
      while (caughtUp() === undefined) await back.read();
      source.end();
      await flood;
      await back.rest();
      // What it had not got of them: less than all that was stored.
      const { spilled } = caughtUp()!;
      assertLess(spilled, 2 * MIB);
    });
  }));

describe("a reader that stops", () => {
  test("is spilled for, and from memory again once it has caught up: all of it in order", (t) =>
    withQueues(async (open) => {
      if (withoutKernel(t)) return;
      const queue = await open();
      const source = new TestSource();
      const options: Partial<ServeOptions> = {
        overflow: "spill",
        queue,
        source,
        sendBuffer: SMALL,
        backlog: 64 << 10,
      };
      await relaying(options, async ({ server, saw, all, connect }) => {
        const flood = source.flood(100_000);
        const reader = await connect();
        await untilLive(reader, all);
        const before = all("spilling").length;
        const { name, reader: number, backlog } = await saw("spilling", before + 1);
        assertEquals([number, name], [1, "reader"]);
        // What both kernels took, and what may wait.
        assertLess(backlog, 8 * MIB);
        const stored = new StoredFor(queue, "reader");
        await until("2 MiB on disk", 5000, () => stored.bytes > 2 * MIB);
        const closed = reader.rest();
        // Sockets that grow may let it catch up for a moment: the last one counts.
        const caughtUp = await saw("caught-up", all("spilling").length);
        assertGreater(caughtUp.spilled, 2 * MIB);
        source.end();
        await flood;
        assertEquals(await closed, { reason: "eof" });
        reader.assertWhole(source.messages);
        const result = await within("done", 5000, server.done);
        assertEquals([result.messages, result.dropped], [source.messages, 0]);
        assertGreater(all("overflow").length, 0);
        assertEquals(all("gap"), []);
      });
    }));

  /** How often the queue was read for a reader that stopped until so many bytes were on disk. */
  async function readsAfterStop(rate: number, onDisk: number): Promise<number> {
    let reads = 0;
    await withQueues(async (open) => {
      const queue = await open();
      const log = await queue.openLog("");
      const read = log.read.bind(log);
      log.read = (offset) => (reads++, read(offset));
      const source = new TestSource();
      const options: Partial<ServeOptions> = {
        ...{ overflow: "spill", queue, source, sendBuffer: SMALL, backlog: 64 << 10 },
      };
      await relaying(options, async ({ server, saw, all, connect }) => {
        const flood = source.flood(rate);
        const reader = await connect();
        await untilLive(reader, all);
        await saw("spilling", all("spilling").length + 1);
        const stored = new StoredFor(queue, "reader");
        await until("enough on disk", 5000, () => stored.bytes > onDisk);
        reads = 0;
        source.end();
        await flood;
        assertEquals(await reader.rest(), { reason: "eof" });
        reader.assertWhole(source.messages);
        await within("done", 5000, server.done);
      });
    });
    return reads;
  }

  test("for a moment only: goes on from memory, though all of it is on disk", async (t) => {
    if (withoutKernel(t)) return;
    assertEquals(await readsAfterStop(100_000, 2 * MIB), 0);
  });

  test("for long: what is on disk is not kept in memory as well", async (t) => {
    if (withoutKernel(t)) return;
    assertGreater(await readsAfterStop(300_000, 20 * MIB), 0);
  });

  test("may do so several times", (t) =>
    withQueues(async (open) => {
      if (withoutKernel(t)) return;
      const queue = await open();
      const source = new TestSource();
      const options: Partial<ServeOptions> = {
        overflow: "spill",
        queue,
        source,
        sendBuffer: SMALL,
        backlog: 32 << 10,
      };
      await relaying(options, async ({ saw, all, connect }) => {
        const flood = source.flood(50_000);
        const reader = await connect();
        for (let stop = 1; stop <= 3; stop++) {
          await untilLive(reader, all);
          await saw("spilling", all("spilling").length + 1);
          await sleep(100);
        }
        source.end();
        await flood;
        await reader.rest();
        reader.assertWhole(source.messages);
      });
    }));

  test("costs no memory, whatever waits for it", (t) =>
    withQueues(async (open) => {
      if (withoutKernel(t)) return;
      const queue = await open();
      const size = 16 << 10;
      const all = 12_000;
      const options: Partial<ServeOptions> = {
        message: { numbered: true, size },
        overflow: "spill",
        queue,
        backlog: MIB,
        rate: all,
        durationMs: 1000,
      };
      await relaying(options, async ({ saw, connect }) => {
        const before = process.memoryUsage().rss;
        let most = 0;
        const sampling = setInterval(() => most = Math.max(most, process.memoryUsage().rss), 20);
        const reader = await connect();
        await saw("spilling");
        const stored = new StoredFor(queue, "reader");
        await until("150 MB on disk", 15_000, () => stored.bytes > 150e6);
        clearInterval(sampling);
        console.log(`  ${((most - before) / 1e6).toFixed(0)} MB more for 150 MB that wait`);
        assertLess(most - before, 128e6);
        let bytes = 0;
        while (true) {
          const chunk = await within("the rest", 10_000, reader.connection.read(65_536));
          if (chunk === null) break;
          bytes += chunk.length;
        }
        assertEquals(bytes, all * size);
      });
    }));
});

describe("a restart on the same queue", () => {
  for (const when of ["while nobody is there", "while its reader reads"]) {
    test(`${when}: the flood goes on at its number, nothing is lost or doubled`, () =>
      withQueues(async (open) => {
        let offset = 0;
        let stream: string | undefined;
        const lives = 4;
        for (let life = 1; life <= lives; life++) {
          const queue = await open({ sync: life % 2 === 0 ? "off" : { intervalMs: 20 } });
          const options: Partial<ServeOptions> = {
            overflow: "spill",
            queue,
            backlog: 64 << 10,
            ack: "reader",
            rate: 100_000,
            ...(life === lives ? { source: NOTHING } : {}),
          };
          await relaying(options, async ({ server, connect }) => {
            const meet = async () => {
              const reader = await connect(offset / SIZE);
              const at = await reader.resume(stream);
              assertEquals(at.offset, offset);
              stream = at.stream;
              return reader;
            };
            if (when.startsWith("while nobody")) {
              await sleep(150);
              if (life < lives) return;
            }
            const reader = await meet();
            const reading = (async () => {
              while (await reader.read()) await reader.ack();
            })();
            await (life === lives ? reading : sleep(150));
            if (life === lives - 1) {
              // Something has to be left, or the last life ends before it is asked.
              reader.connection.close();
              await sleep(50);
            }
            if (life < lives) await within("its end", 5000, server.stop());
            await reading;
            reader.connection.close();
            offset = reader.offset;
            reader.assertUnbroken();
            if (life === lives) await within("done", 5000, server.done);
          });
          await queue.close();
        }
        const last = new StoredFor(await open(), "reader");
        assertEquals([last.bytes, last.delivered], [0, offset]);
        assertGreater(offset / SIZE, 30_000);
      }));
  }

  test("its stream keeps its name, and another queue has another", () =>
    withQueues(async (open) => {
      const names: string[] = [];
      for (const file of ["a", "a", "b"]) {
        const queue = await open(undefined, file);
        const options = { overflow: "spill", queue, ack: "reader" } as const;
        await relaying(options, async ({ connect }) => {
          const reader = await connect();
          names.push((await reader.resume()).stream);
        });
        await queue.close();
      }
      assertEquals(names[0], names[1]);
      assert(names[0] !== names[2]);
    }));
});

test("a reader that has everything is not asked what it acknowledged; one that has not is", async (t) => {
  if (withoutKernel(t)) return;
  let asked = 0;
  const counting: Adapter = {
    ...net,
    listen: ({ onConnection, ...rest }) =>
      net.listen({
        ...rest,
        onConnection: (connection) =>
          onConnection(
            new Proxy(connection, {
              get(target, key) {
                if (key === "fd") asked++;
                const value: unknown = Reflect.get(target, key, target);
                return typeof value === "function" ? value.bind(target) : value;
              },
            }),
          ),
      }),
  };
  let sink: Sink | undefined;
  let safe = 0;
  const ended = Promise.withResolvers<void>();
  const source: Source = {
    replayable: true,
    run: (given) => {
      sink = given;
      return ended.promise;
    },
    stop: () => ended.resolve(),
    acknowledge: (position) => safe = position,
  };
  const options = { source, ack: "tcp", overflow: "block", adapter: counting } as const;
  await relaying(options, async ({ connect, saw }) => {
    const reader = await connect();
    await saw("reader");
    await until("the source", 5000, () => sink !== undefined);
    for (const from of [0, 10]) {
      await sink!.push(numbered(from, from + 10), 10, from * SIZE);
      await until("acknowledged", 5000, () => safe === (from + 10) * SIZE);
      const before = asked;
      assert(before > 0);
      // Some ticks, of which each tenth or so would ask.
      await sleep(150);
      assertEquals(asked, before);
    }
    assertEquals(reader.bytes, 0);
  });
});
