/** Where a reader continues: what it claims, what is recorded of it, and who it is. */
import { describe, test } from "node:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Buffer } from "node:buffer";
import { assert, assertEquals, assertGreater, assertLess, assertMatch } from "#std/assert";
import { formatAck, formatResume } from "../src/message/protocol.ts";
import type { ServeOptions } from "../src/relay/serve_options.ts";
import { FileSource } from "../src/source/file_source.ts";
import type { Sink, Source } from "../src/source/source.ts";
import { setTimeout as sleep } from "node:timers/promises";
import {
  NOTHING,
  numbered,
  numberIn,
  type Reader,
  relaying,
  SIZE,
  StoredFor,
  TestSource,
  withQueues,
} from "./relaying.ts";
import { until, within } from "./within.ts";

const MIB = 1 << 20;
const STREAM_OF_OTHERS = 9_007_199_254_740_991;

/** A source that acknowledges, as another server is: it is told what is safe, and can be replaced. */
class Upstream implements Source {
  readonly replayable = true;
  safe = 0;
  from: number | undefined;
  #sink: Sink | undefined;
  readonly #over = Promise.withResolvers<void>();

  get running(): boolean {
    return this.#sink !== undefined;
  }

  async run(sink: Sink, from: number): Promise<void> {
    this.from = from;
    this.#sink = sink;
    await this.#over.promise;
  }

  connected(stream: string, position: number): void {
    this.#sink!.note({
      event: "connected",
      host: "127.0.0.1",
      port: 1,
      stream,
      position,
      missed: 0,
    });
  }

  push(first: number, count: number, position: number): void | Promise<void> {
    return this.#sink!.push(numbered(first, first + count), count, position);
  }

  acknowledge(position: number): void {
    this.safe = position;
  }

  stop(): void {
    this.#over.resolve();
  }
}

describe("a reader that claims more than it was sent", () => {
  const spilling = async (use: (reader: Reader, stream: string) => Promise<string>) => {
    await withQueues(async (open) => {
      const queue = await open();
      const options: Partial<ServeOptions> = { overflow: "spill", queue, ack: "reader" };
      await relaying(options, async ({ connect, saw }) => {
        const first = await connect();
        const { stream } = await first.resume();
        await first.take(100 * SIZE);
        await first.ack();
        const stored = new StoredFor(queue, "reader");
        await until("its place", 5000, () => stored.delivered === 100 * SIZE);
        first.connection.close();
        await saw("closed");
        const liar = await connect(100);
        const says = await use(liar, stream);
        assertMatch((await saw("protocol")).error, new RegExp(says));
        assertEquals((await liar.rest()).reason, "reset");
        await saw("closed", 2);
        assertEquals(stored.delivered, 100 * SIZE);
        const next = await connect(100);
        assertEquals(await next.resume(stream), { offset: 100 * SIZE, stream });
        await next.take(10 * SIZE);
        next.assertUnbroken();
      });
    });
  };

  test("in its resume line is disconnected, and nothing is forgotten", () =>
    spilling(async (reader, stream) => {
      await reader.say(formatResume({ offset: STREAM_OF_OTHERS, stream }));
      return `claims to have ${STREAM_OF_OTHERS} bytes`;
    }));

  test("in an acknowledgement that comes with its first line, too", () =>
    spilling(async (reader, stream) => {
      await reader.say(formatResume({ offset: 100 * SIZE, stream }) + formatAck(STREAM_OF_OTHERS));
      await reader.line();
      return `acknowledges ${STREAM_OF_OTHERS} bytes`;
    }));

  test("also when the server was started again", () =>
    withQueues(async (open) => {
      let stream = "";
      for (const life of [1, 2]) {
        const queue = await open();
        const options: Partial<ServeOptions> = { overflow: "spill", queue, ack: "reader" };
        await relaying(options, async ({ connect, saw }) => {
          if (life === 1) {
            const reader = await connect();
            ({ stream } = await reader.resume());
            await reader.take(10 * SIZE);
            return;
          }
          const liar = await connect();
          await liar.say(formatResume({ offset: 2 ** 40, stream }));
          assertMatch((await saw("protocol")).error, /claims to have 1099511627776 bytes/);
        });
        await queue.close();
      }
    }));
});

test("a reader that has acknowledged once may say `resume` late: it is waited for", () =>
  withQueues(async (open) => {
    const queue = await open();
    await relaying({ overflow: "spill", queue }, async ({ connect, saw }) => {
      const first = await connect();
      const { stream } = await first.resume();
      await first.take(100 * SIZE);
      await first.ack();
      first.connection.close();
      await saw("closed");
      const late = await connect(100);
      // A plain reader would be sent its messages by now, and what its kernel takes would be delivered.
      await sleep(400);
      assertEquals((await late.resume(stream)).stream, stream);
      await late.take(10 * SIZE);
      late.assertUnbroken();
    });
  }));

describe("with one source for all readers", () => {
  const hello = { overflow: "spill", readerId: "hello", ack: "reader" } as const;

  async function named(reader: Reader, name: string) {
    await reader.say(`${name}\n`);
    return await reader.resume();
  }

  test("a new reader's place is recorded before anything is delivered", () =>
    withQueues(async (open) => {
      const source = new Upstream();
      const queue = await open();
      await relaying({ ...hello, queue, source }, async ({ connect }) => {
        const anna = await connect();
        await named(anna, "anna");
        await until("the source", 5000, () => source.running);
        await source.push(0, 100, 0);
        await anna.take(100 * SIZE);
        const bert = await connect();
        assertEquals((await named(bert, "bert")).offset, 100 * SIZE);
        const [, place] = queue.logs[0]!.cursors;
        assertEquals([place!.name, place!.durable], ["bert", 100 * SIZE]);
      });
    }));

  test("it is stored once, however many readers are away", () =>
    withQueues(async (open) => {
      const source = new TestSource();
      const queue = await open();
      await relaying({ ...hello, queue, source }, async ({ connect, all }) => {
        const names = Array.from({ length: 50 }, (_, i) => `reader-${i}`);
        for (const name of names) {
          const reader = await connect();
          await named(reader, name);
          // Only a reset tells at once that it is away.
          reader.connection.reset();
        }
        await until("all are away", 10_000, () => all("closed").length === 50);
        for (let i = 0; i < 64; i++) await (await source.push(1024)).waiting;
        await until("on disk", 10_000, () => queue.logs[0]!.end >= 4 * MIB);
        assertLess(queue.logs[0]!.bytes, 4.5 * MIB);
        const reader = await connect();
        const at = await named(reader, "reader-7");
        assertEquals(at.offset, 0);
        await reader.take(65_536 * SIZE);
        reader.assertWhole(65_536);
      });
    }));

  test("readers with more names than are kept are refused, and the others are served", () =>
    withQueues(async (open) => {
      const source = new TestSource();
      const queue = await open();
      const options = { ...hello, queue, source, maxReaderNames: 3 };
      await relaying(options, async ({ connect, all, saw }) => {
        for (const name of ["a", "b", "c"]) {
          const reader = await connect();
          await named(reader, name);
          // Only a reset tells at once that it is away.
          reader.connection.reset();
        }
        await saw("closed", 3);
        const fourth = await connect();
        await fourth.say("d\nresume - -\n");
        await fourth.rest();
        const { refused, why } = await saw("closed", 4);
        assertMatch(refused ?? "", /3 names of readers are known, and more are not accepted/);
        assertEquals(why, "names");
        const known = await connect();
        await named(known, "b");
        await source.push(10);
        await known.take(10 * SIZE);
        known.assertUnbroken();
        assertEquals(all("closed").length, 4);
      });
    }));

  test("--start oldest: a new reader gets what is still there, else only what is new", () =>
    withQueues(async (open) => {
      for (const start of ["oldest", "now"] as const) {
        const source = new TestSource();
        const queue = await open({ sync: "off" }, start);
        await relaying({ ...hello, queue, source, start }, async ({ connect, saw }) => {
          const away = await connect();
          await named(away, "away");
          away.connection.reset();
          await saw("closed");
          await source.push(1000);
          const fresh = await connect(start === "oldest" ? 0 : 1000);
          assertEquals((await named(fresh, "fresh")).offset, start === "oldest" ? 0 : 1000 * SIZE);
          await source.push(10);
          await fresh.take((start === "oldest" ? 1010 : 10) * SIZE);
          fresh.assertUnbroken();
        });
      }
    }));

  test("an upstream is told only what is recorded here, and one that is replaced is followed", () =>
    withQueues(async (open) => {
      const [one, other] = ["0000000000000001", "0000000000000002"];
      const queue = await open({ sync: "always" });
      const source = new Upstream();
      await relaying({ ...hello, queue, source }, async ({ connect, saw, all }) => {
        const reader = await connect();
        const { stream } = await named(reader, "anna");
        await until("the source", 5000, () => source.running);
        source.connected(one, 0);
        await source.push(0, 100, 0);
        await reader.take(100 * SIZE);
        await sleep(100);
        // Neither acknowledged nor on disk.
        assertEquals(source.safe, 0);
        await reader.ack();
        await until("safe", 5000, () => source.safe === 100 * SIZE);
        assertEquals(new StoredFor(queue, "anna").log.cursors[0]!.durable, 100 * SIZE);
        // Its positions begin anew.
        source.connected(other, 0);
        const { before, now } = await saw("source-replaced");
        assertEquals([before, now], [one, other]);
        await source.push(100, 50, 0);
        await reader.take(50 * SIZE);
        await reader.ack();
        await until("safe", 5000, () => source.safe === 50 * SIZE);
        reader.assertUnbroken();
        assertEquals([queue.logs[0]!.origin.stream, all("gap")], [other, []]);
        assertEquals(queue.logs[0]!.stream, stream);
      });
      await queue.close();
      const again = new Upstream();
      await relaying({ ...hello, queue: await open(), source: again }, async () => {
        await until("the source", 5000, () => again.running);
        assertEquals(again.from, 50 * SIZE);
      });
    }));

  test("a file that has grown goes on where it was; another one begins anew, and is told of", () =>
    withQueues(async (open, folder) => {
      const path = join(folder, "feed");
      const first = numbered(0, 100);
      let expected = 0;
      for (
        const [content, fresh, replaced] of [
          [first, 100, 0],
          [Buffer.concat([first, numbered(100, 150)]), 50, 0],
          [numbered(150, 180), 30, 1],
        ] as const
      ) {
        writeFileSync(path, content);
        const queue = await open({ sync: "off" });
        const source = new FileSource({ path, frame: { kind: "fixed", size: SIZE } });
        await relaying({ ...hello, queue, source }, async ({ connect, all }) => {
          const connected = await connect(expected);
          const { offset } = await named(connected, "anna");
          assertEquals(offset, expected * SIZE);
          await connected.take(fresh * SIZE);
          connected.assertUnbroken();
          await connected.ack();
          expected += fresh;
          assertEquals(all("source-replaced").length, replaced);
          assertEquals(all("gap"), []);
        });
        await queue.close();
      }
    }));

  test("what a reader gets after the source has ended is recorded as before", () =>
    withQueues(async (open, folder) => {
      const path = join(folder, "feed");
      const queue = await open({ sync: "off" });
      await (await queue.openLog("")).openCursor("anna", 0);
      writeFileSync(path, numbered(0, 30));
      const source = new FileSource({ path, frame: { kind: "fixed", size: SIZE } });
      await relaying({ ...hello, queue, source }, async ({ connect, all }) => {
        await until(
          "its end",
          5000,
          () => all("source").some(({ what }) => what.event === "ended"),
        );
        // Nobody is there: all of it is stored.
        await until("stored", 5000, () => queue.logs[0]!.end === 30 * SIZE);
        const reader = await connect();
        await named(reader, "anna");
        await reader.take(30 * SIZE);
        await reader.ack();
        const [cursor] = queue.logs[0]!.cursors;
        await until("acknowledged", 5000, () => cursor!.offset === 30 * SIZE);
      });
    }));

  test("a file after another source in the same queue is read from its beginning", () =>
    withQueues(async (open, folder) => {
      const path = join(folder, "feed");
      const plain = new TestSource();
      writeFileSync(path, numbered(20, 50));
      let offset = 0;
      // Of the other source there are 20, then 10 more; then the file is read once more.
      const parts = [
        { from: "plain", count: 20, first: 0 },
        { from: "file", count: 30, first: 20 },
        { from: "plain", count: 10, first: 20 },
        { from: "file", count: 30, first: 20 },
      ];
      for (const { from, count, first } of parts) {
        const queue = await open({ sync: "off" });
        let source: Source = new FileSource({ path, frame: { kind: "fixed", size: SIZE } });
        if (from === "plain") {
          const part = new TestSource();
          part.messages = plain.messages;
          source = part;
        }
        await relaying({ ...hello, queue, source }, async ({ connect, all }) => {
          const reader = await connect(first);
          assertEquals((await named(reader, "anna")).offset, offset);
          if (source instanceof TestSource) {
            await source.push(count);
            plain.messages = source.messages;
          }
          await reader.take(count * SIZE);
          reader.assertUnbroken();
          offset += count * SIZE;
          await reader.say(formatAck(offset));
          const [cursor] = queue.logs[0]!.cursors;
          await until("acknowledged", 5000, () => cursor!.offset === offset);
          assertEquals(all("gap"), []);
        });
        await queue.close();
      }
    }));
});

test("an orderly restart loses nothing of a source that cannot repeat it", () =>
  withQueues(async (open) => {
    let stream: string | undefined;
    let offset = 0;
    const source = new TestSource();
    for (let life = 1; life <= 3; life++) {
      const queue = await open({ sync: { intervalMs: 50 } });
      const part = new TestSource();
      part.messages = source.messages;
      const options: Partial<ServeOptions> = {
        overflow: "spill",
        queue,
        source: part,
        ack: "reader",
      };
      await relaying(options, async ({ connect, all, server }) => {
        await part.push(100);
        const reader = await connect(offset / SIZE);
        const at = await reader.resume(stream);
        assertEquals(at.offset, offset);
        stream = at.stream;
        await reader.take(50 * SIZE);
        await reader.ack();
        offset = reader.offset;
        reader.assertUnbroken();
        await within("its end", 5000, server.stop());
        assertEquals(all("gap"), []);
      });
      source.messages = part.messages;
      await queue.close();
    }
    assertEquals(offset, 150 * SIZE);
  }));

test("single: a reader that acknowledges replaces one that is silent, and no other", () =>
  withQueues(async (open) => {
    const queue = await open();
    const source = new TestSource();
    const options = { overflow: "spill", queue, source, ack: "reader" } as const;
    await relaying(options, async ({ connect, saw }) => {
      const silent = await connect();
      const { stream } = await silent.resume();
      await source.push(10);
      await silent.take(10 * SIZE);
      // It is never silent for a second until it has been told to stop.
      let stopped = false;
      const moving = (async () => {
        while (!stopped) {
          await silent.ack();
          await source.push(1);
          await silent.take(SIZE);
          await sleep(100);
        }
        await silent.ack();
      })();
      const early = await connect();
      await early.say(formatResume({ offset: 0, stream }));
      await early.rest();
      assertEquals((await saw("closed")).refused, "another reader is connected already");
      stopped = true;
      await moving;
      const had = silent.offset;
      await sleep(1200);
      const next = await connect(had / SIZE);
      assertEquals(await next.resume(stream), { offset: had, stream });
      await source.push(10);
      await next.take(10 * SIZE);
      next.assertUnbroken();
      assertEquals((await saw("closed", 2)).reader, 1);
    });
  }));

test("what a kill can destroy is bounded: the source waits while nobody keeps up and the queue is full", () =>
  withQueues(async (open) => {
    const queue = await open({ sync: "off", maxBytes: MIB });
    const source = new TestSource();
    const options = { overflow: "spill", queue, source, backlog: 65_536, ack: "reader" } as const;
    await relaying(options, async ({ saw, all }) => {
      let waiting: Promise<void> | undefined;
      while (waiting === undefined || all("queue-full").length === 0) {
        if (waiting === undefined) ({ waiting } = await source.push(256));
        await sleep(1);
        assertLess(source.messages * SIZE, 64 * MIB);
      }
      await saw("queue-full");
      // Once it is full; until then it may have taken 16 MiB more.
      assertLess(source.messages * SIZE - queue.logs[0]!.end, 17.5 * MIB);
      assertGreater(queue.logs[0]!.end, 0);
    });
  }));

test("--durable: nothing is delivered before it is on disk", () =>
  withQueues(async (open) => {
    const queue = await open({ sync: "always" });
    const source = new TestSource();
    const options = { overflow: "spill", queue, source, durable: true, ack: "tcp" } as const;
    await relaying(options, async ({ connect }) => {
      const reader = await connect();
      for (let i = 0; i < 20; i++) {
        await source.push(10);
        const end = (i + 1) * 10 * SIZE;
        while (reader.bytes < end) {
          await reader.read();
          assert(queue.logs[0]!.durableEnd >= reader.bytes, "delivered before it was stored");
        }
      }
      assertEquals(numberIn(reader.head), 0);
      reader.assertUnbroken();
    });
  }));

test("a connected reader misses what is deleted meanwhile: one event, once it is told", () =>
  withQueues(async (open) => {
    const queue = await open({ sync: "off", maxBytes: 8 * MIB });
    const source = new TestSource();
    const options: Partial<ServeOptions> = {
      queue,
      source,
      ack: "reader",
      whenFull: "drop-oldest",
    };
    await relaying(
      { ...options, overflow: "spill", memory: 4 * MIB },
      async ({ connect, all, saw }) => {
        const reader = await connect();
        const { stream } = await reader.resume();
        for (let i = 0; i < 10; i++) await (await source.push(1000)).waiting;
        await reader.take(5000 * SIZE);
        await reader.ack();
        // It stays, and does not read.
        for (let i = 0; i < 400; i++) await (await source.push(1000)).waiting;
        await until("all stored", 10_000, () => queue.logs[0]!.end === 410_000 * SIZE);
        assertEquals(all("gap"), []);
        reader.connection.reset();
        await saw("closed");
        const next = await connect(5000);
        const at = await next.resume(stream);
        const { from, to } = await saw("gap");
        assertEquals([from, to], [5000 * SIZE, at.offset]);
        assertGreater(at.offset, 10_000 * SIZE);
        await next.read();
        next.connection.reset();
        await saw("closed", 2);
        const again = await connect(at.offset / SIZE);
        assertEquals((await again.resume(stream)).offset, at.offset);
        assertEquals(all("gap").length, 1);
      },
    );
  }));

test("--retain: what is too old is deleted, and its reader is told of the gap", () =>
  withQueues(async (open) => {
    const queue = await open({ sync: "off", maxBytes: 8 * MIB });
    const source = new TestSource();
    const options = { overflow: "spill", queue, source, retainMs: 1500, ack: "reader" } as const;
    await relaying(options, async ({ connect, saw }) => {
      for (let i = 0; i < 64; i++) await (await source.push(1024)).waiting;
      await until("on disk", 5000, () => queue.logs[0]!.end >= 4 * MIB);
      const { from, to, why } = await saw("gap");
      assertEquals([from, why], [0, "retain"]);
      const reader = await connect(to / SIZE);
      const at = await reader.resume();
      assertGreater(at.offset, 0);
    });
  }));

test("what only the memory of a killed server had is a gap that says so", () =>
  withQueues(async (open) => {
    const killed = await open();
    const log = await killed.openLog("");
    await log.openCursor("reader", 0);
    await log.reserve(10 * SIZE);
    await killed.close();
    const queue = await open();
    const source = new TestSource();
    const options = { overflow: "spill", queue, source, ack: "tcp" } as const;
    await relaying(options, async ({ connect, saw }) => {
      const reader = await connect();
      await source.push(1);
      await reader.take(SIZE);
      const { from, to, why, atMost } = await saw("gap");
      assertEquals([from, to, why, atMost], [0, 10 * SIZE, "killed", true]);
    });
  }));

test("--retain: with a steady feed too, what is too old is deleted though its segment is not full", () =>
  withQueues(async (open) => {
    const retainMs = 600;
    const queue = await open({ sync: "off", retainMs });
    const source = new TestSource();
    await relaying({ overflow: "spill", queue, source, retainMs }, async ({ saw }) => {
      void source.flood(20_000);
      const { from, to } = await saw("gap", 2);
      assertGreater(from, 0);
      assertGreater(to, from);
      source.end();
    });
  }));

for (const ack of ["none", "reader"] as const) {
  test(`messages that are gone from the end of the queue are a gap, also without a source (${ack})`, () =>
    withQueues(async (open, folder) => {
      const first = await open({ sync: "off", maxBytes: 8 * 65_536 });
      const log = await first.openLog("");
      await log.openCursor("reader", 0);
      for (let i = 0; i < 2; i++) {
        const bytes = numbered(i * 2048, (i + 1) * 2048);
        await log.append({ offset: i * bytes.length, bytes, messages: 2048 });
      }
      await first.close();
      rmSync(join(folder, "queue", log.stream, `${String(2048 * SIZE).padStart(16, "0")}.segment`));
      const queue = await open();
      const options = { overflow: "spill", queue, source: NOTHING, ack } as const;
      await relaying(options, async ({ server, connect, saw }) => {
        const reader = await connect();
        if (ack === "reader") await reader.resume();
        await reader.take(2048 * SIZE);
        if (ack === "reader") {
          await reader.ack();
          await reader.rest();
          const again = await connect(2048);
          assertEquals((await again.resume(log.stream)).offset, 4096 * SIZE);
        }
        const { from, to } = await saw("gap");
        assertEquals([from, to], [2048 * SIZE, 4096 * SIZE]);
        // The server waits for that, unless the reader has acknowledged everything.
        reader.connection.close();
        await within("the end", 10_000, server.done);
      });
    }));
}
