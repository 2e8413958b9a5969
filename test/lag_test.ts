/** How far a reader is behind: what is told is its own, also after a restart and a repair. */
import { describe, test } from "node:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { assert, assertEquals, assertGreaterOrEqual, assertLess, assertMatch } from "#std/assert";
import { rebuildDatabase } from "../src/queue/change.ts";
import type { Queue } from "../src/queue/queue.ts";
import { loadSqlite } from "../src/queue/sqlite.ts";
import type { ReaderFigures } from "../src/relay/figures.ts";
import type { Server } from "../src/relay/serve.ts";
import type { ServeOptions } from "../src/relay/serve_options.ts";
import { policyOf } from "../src/send/overflow.ts";
import { MemoryBudget } from "../src/relay/memory_budget.ts";
import { Stream } from "../src/relay/stream.ts";
import type { StreamOptions } from "../src/relay/stream_options.ts";
import type { StreamEvent } from "../src/relay/stream_event.ts";
import { fill } from "./queue_batches.ts";
import { connect, serving } from "./serving.ts";
import { type Reader, relaying, SIZE, TestSource, withQueues } from "./relaying.ts";
import { until, within } from "./within.ts";

const of = (server: Server, name: string): ReaderFigures =>
  server.figures!().readers.find((reader) => reader.name === name)!;

const amount = ({ lagBytes, lagMessages }: ReaderFigures) => [lagBytes / SIZE, lagMessages];

const storedUpTo = (queue: Queue, messages: number) =>
  until("on disk", 10_000, () => queue.logs[0]!.end >= messages * SIZE);

async function named(reader: Reader, name: string): Promise<void> {
  await reader.say(`${name}\n`);
  await reader.resume();
}

/** How much longer the reader is away that left first; ms. */
const LONGER_MS = 300;

test("each reader has the age of its own oldest message, and its number of messages: after a restart, too", () =>
  withQueues(async (open) => {
    const options: Partial<ServeOptions> = { overflow: "spill", readerId: "hello", ack: "reader" };
    const apart = (server: Server) =>
      1000 * (of(server, "slow").lagSeconds - of(server, "fast").lagSeconds);
    {
      const queue = await open();
      const source = new TestSource();
      await relaying({ ...options, queue, source }, async ({ server, connect, saw }) => {
        const slow = await connect();
        await named(slow, "slow");
        // Only a reset tells at once that it is away.
        slow.connection.reset();
        await saw("closed");
        const fast = await connect();
        await named(fast, "fast");
        await source.push(100);
        await fast.take(100 * SIZE);
        await fast.ack();
        await until("its place", 5000, () => of(server, "fast").deliveredOffset === 100 * SIZE);
        assertEquals([amount(of(server, "fast")), of(server, "fast").lagSeconds], [[0, 0], 0]);
        fast.connection.reset();
        await saw("closed", 2);
        await storedUpTo(queue, 100);
        const startMs = performance.now();
        await until("some time", 5000, () => performance.now() - startMs > LONGER_MS);
        await source.push(50);
        await storedUpTo(queue, 150);
        assertEquals([amount(of(server, "slow")), amount(of(server, "fast"))], [
          [150, 150],
          [50, 50],
        ]);
        assertGreaterOrEqual(apart(server), LONGER_MS);
        await within("its end", 5000, server.stop());
      });
      await queue.close();
    }
    const queue = await open();
    await relaying({ ...options, queue, source: new TestSource() }, async ({ server }) => {
      assertEquals([amount(of(server, "slow")), amount(of(server, "fast"))], [
        [150, 150],
        [50, 50],
      ]);
      await until("the ages", 5000, () => !Number.isNaN(apart(server)));
      // The clock of another process may have been set meanwhile, but not that of one log.
      assertGreaterOrEqual(apart(server), LONGER_MS - 2);
    });
  }));

test("the ages are known of readers whose files were not read for long", () =>
  withQueues(async (open) => {
    const queue = await open({ sync: "off", maxBytes: 1 << 20 });
    const source = new TestSource();
    const options: Partial<ServeOptions> = { overflow: "spill", queue, source, start: "oldest" };
    await relaying(options, async ({ server }) => {
      await until("its reader", 5000, () => of(server, "reader") !== undefined);
      // Segments of 128 KiB: these are several.
      for (let i = 1; i <= 8; i++) {
        await (await source.push(1000)).waiting;
        await storedUpTo(queue, i * 1000);
      }
      assertGreaterOrEqual(queue.logs[0]!.segments, 3);
      assertEquals(amount(of(server, "reader")), [8000, 8000]);
      await until("the age", 5000, () => !Number.isNaN(of(server, "reader").lagSeconds));
      assertLess(of(server, "reader").lagSeconds, 600);
    });
  }));

/** A stream of messages that its source cannot repeat. */
function streamOf(options: Partial<StreamOptions>): Stream {
  return new Stream({
    replayable: false,
    policy: policyOf("drop"),
    bound: 100,
    resumeBelow: 100,
    whenFull: "drop-oldest",
    durable: options.log !== undefined,
    memory: new MemoryBudget(1 << 20),
    floor: (_, offset) => offset,
    onEvent() {},
    onNew() {},
    onSafe() {},
    onError(error) {
      throw error;
    },
    ...options,
  });
}

test("messages that were dropped are no lag", async () => {
  const stream = streamOf({});
  const cursor = await stream.addCursor("a", 0);
  stream.attach(cursor, { blockedSince: performance.now() }, 0);
  for (let i = 0; i < 5; i++) await stream.push(new Uint8Array(SIZE), 1, 0);
  assertEquals(cursor.dropped, 4);
  const { lagBytes, lagMessages } = stream.lagOf(cursor);
  assertEquals([lagBytes, lagMessages], [SIZE, 1]);
});

describe("after the database was made anew", () => {
  /** A queue with 100 messages, made anew. */
  const repaired = (use: (open: () => Promise<Queue>, folder: string) => Promise<void>) =>
    withQueues(async (open, folder) => {
      const queue = await open();
      const source = new TestSource();
      await relaying({ overflow: "spill", queue, source }, async ({ server }) => {
        await source.push(100);
        await storedUpTo(queue, 100);
        await within("its end", 5000, server.stop());
      });
      await queue.close();
      const own = join(folder, "queue");
      rmSync(join(own, "queue.db"));
      rebuildDatabase(await loadSqlite(), own);
      await use(() => open(), own);
    });

  for (const restarts of [0, 1]) {
    const when = restarts === 0 ? "at once" : "after a restart";
    test(`what was skipped is no lag, and ${when} a gap of which perhaps nothing is lost`, () =>
      repaired(async (open) => {
        const options: Partial<ServeOptions> = { overflow: "spill", start: "oldest", ack: "none" };
        for (let life = 0; life <= restarts; life++) {
          const queue = await open();
          const source = new TestSource();
          source.messages = 100 + 10 * life;
          await relaying({ ...options, queue, source }, async ({ server, connect, all, saw }) => {
            await until("its reader", 5000, () => of(server, "reader") !== undefined);
            const { messages } = source;
            assertEquals(amount(of(server, "reader")), [messages, messages]);
            await source.push(10);
            await storedUpTo(queue, 2 ** 32 / SIZE + 10 * (life + 1));
            assertEquals(amount(of(server, "reader")), [source.messages, source.messages]);
            for (const { backlog } of all("spilling")) assertLess(backlog, 1000 * SIZE);
            if (life === restarts) {
              const reader = await connect();
              await reader.take(source.messages * SIZE);
              reader.assertUnbroken();
              const { from, to, atMost, why } = await saw("gap");
              assertEquals({ from, to, atMost, why }, {
                ...{ from: 100 * SIZE, to: 2 ** 32, atMost: true, why: "repair" },
              });
              await until("all of it", 5000, () => of(server, "reader").lagBytes === 0);
              assertEquals(all("gap").length, 1);
              for (const { backlog } of all("overflow")) assertLess(backlog, 1000 * SIZE);
            }
            await within("its end", 5000, server.stop());
            assertEquals(all("lost"), []);
          });
          await queue.close();
        }
      }));
  }

  test("the gap is a warning for people, and no error", () =>
    repaired(async (open, folder) => {
      const queue = await open();
      const source = new TestSource();
      await relaying({ overflow: "spill", start: "oldest", queue, source }, async ({ server }) => {
        await source.push(10);
        await storedUpTo(queue, 2 ** 32 / SIZE + 10);
        await within("its end", 5000, server.stop());
      });
      await queue.close();
      const args = ["--overflow", "spill", "--spill", folder, "--source", "none"];
      await serving([...args, "--line-format", "journal"], async (program, port) => {
        const reader = await connect(port);
        const ended = new Promise((done) => reader.once("close", done));
        reader.resume();
        await within("its messages", 10_000, ended);
        const { status, stdout, stderr } = await within("its end", 10_000, program.ended);
        assertEquals(status, 0);
        assertEquals(
          stderr,
          "<4>reader: gap: the offsets from 6400 to 4294967296 were skipped when the queue was " +
            "repaired: nobody knows whether they had messages, perhaps nothing was lost\n",
        );
        assertMatch(stdout, /110 messages, 7\.04 kB/);
      });
    }));

  test("a server that gets no messages loses none at its end", () =>
    repaired(async (open) => {
      const queue = await open();
      const source = new TestSource();
      const options: Partial<ServeOptions> = { overflow: "spill", start: "oldest", queue, source };
      await relaying(options, async ({ server, all }) => {
        await until("its reader", 5000, () => of(server, "reader") !== undefined);
        assert(of(server, "reader").lagBytes === 100 * SIZE);
        await within("its end", 5000, server.stop());
        assertEquals(all("lost"), []);
      });
    }));

  for (const deleted of [false, true]) {
    const what = deleted ? "what was deleted as well is" : "only what was skipped is not";
    test(`${what} told of as lost`, () =>
      withQueues(async (open) => {
        const queue = await open({ sync: "off", maxBytes: 1 << 20 });
        const log = await queue.openLog("");
        const gaps: StreamEvent[] = [];
        // So many that the next message begins a segment.
        await fill(log, 14, 10_000);
        await log.reserve(2 ** 32);
        const onEvent = (event: StreamEvent) => void (event.event === "gap" && gaps.push(event));
        const stream = streamOf({ log, policy: policyOf("spill"), onEvent });
        const cursor = await stream.addCursor("a", 0);
        stream.attach(cursor, { blockedSince: undefined }, deleted ? 70_000 : 140_000);
        await stream.push(new Uint8Array(SIZE), 1, 0);
        await until("on disk", 5000, () => log.end === 2 ** 32 + SIZE);
        if (deleted) assert(await stream.dropOldest("drop-oldest"));
        assertEquals(log.start, deleted ? 2 ** 32 : 0);
        const next = await stream.next(cursor);
        assert(typeof next === "number");
        stream.skip(cursor, next);
        await stream.store();
        stream.end();
        const known = { event: "gap", to: 2 ** 32, atMost: true } as const;
        assertEquals(gaps, [
          deleted
            ? { ...known, from: 70_000, why: "drop-oldest" }
            : { ...known, from: 140_000, why: "repair" },
        ]);
      }));
  }
});
