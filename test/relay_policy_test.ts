/** What a relay does when its reader, or its disk, takes no more. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertGreater, assertGreaterOrEqual, assertLess } from "#std/assert";
import { setBufferSize } from "../src/kernel/socket_calls.ts";
import type { ServeOptions } from "../src/relay/serve_options.ts";
import { setTimeout as sleep } from "node:timers/promises";
import {
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
import { until, within } from "./within.ts";

const MIB = 1 << 20;
/** Messages of one push: 64 KiB. */
const PUSH = 1024;

/** Pushes until the reader gets something: until then it is not there. The number of its first. */
async function meet(source: TestSource, reader: Reader): Promise<number> {
  let there = false;
  const met = reader.take(SIZE).then(() => there = true);
  while (!there) {
    await source.push(1);
    await sleep(1);
  }
  await met;
  return numberIn(reader.head);
}

describe("a reader that stops, without a queue", () => {
  test("block: the source has to wait, and nothing is lost", async (t) => {
    if (withoutKernel(t)) return;
    const source = new TestSource();
    const options: Partial<ServeOptions> = { source, overflow: "block", sendBuffer: SMALL };
    await relaying(options, async ({ connect, saw, server }) => {
      const reader = await connect();
      let waiting: Promise<void> | undefined;
      // Both kernels, a megabyte in memory, and no more.
      while (waiting === undefined) {
        ({ waiting } = await source.push(PUSH));
        assertLess(source.messages * SIZE, 64 * MIB);
        await sleep(1);
      }
      let over = false;
      void waiting.then(() => over = true);
      await sleep(100);
      assert(!over, "there was room, and nobody had read");
      const { policy } = await saw("overflow");
      assertEquals(policy, "block");
      const rest = reader.rest();
      await within("room", 5000, waiting);
      await source.push(1);
      source.end();
      assertEquals(await rest, { reason: "eof" });
      reader.assertWhole(source.messages);
      const { messages, dropped } = await within("done", 5000, server.done);
      assertEquals([messages, dropped], [source.messages, 0]);
    });
  });

  test("drop: as many numbers are missing as were dropped", async (t) => {
    if (withoutKernel(t)) return;
    const rate = 100_000;
    const options: Partial<ServeOptions> = {
      overflow: "drop",
      sendBuffer: SMALL,
      rate,
      durationMs: 1000,
    };
    await relaying(options, async ({ connect, saw, server, all }) => {
      const reader = await connect();
      assertEquals((await saw("overflow")).policy, "drop");
      await sleep(300);
      assertEquals(await reader.rest(), { reason: "eof" });
      const { messages, dropped } = await within("done", 5000, server.done);
      const { missing, duplicates, outOfOrder, damaged } = reader.verifier;
      assertGreater(dropped, 0.1 * rate);
      assertEquals({ messages, missing, duplicates, outOfOrder, damaged }, {
        messages: reader.verifier.messages,
        missing: dropped,
        duplicates: 0,
        outOfOrder: 0,
        damaged: 0,
      });
      assertEquals([messages + dropped, reader.verifier.end()], [rate, 0]);
      assertEquals(all("overflow").length, 1);
    });
  });

  test("drop-oldest: gets what it was being sent, then the newest messages; what is between is a gap", async (t) => {
    if (withoutKernel(t)) return;
    const source = new TestSource();
    const options: Partial<ServeOptions> = {
      ...{ source, overflow: "drop-oldest", sendBuffer: SMALL, backlog: 2 * MIB },
    };
    await relaying(options, async ({ connect, saw, all, server }) => {
      const reader = await connect();
      const first = await meet(source, reader);
      // The source never waits.
      const push = async (bytes: number) => {
        const end = source.messages + bytes / SIZE;
        while (source.messages < end) {
          const { waiting } = await source.push(PUSH);
          assertEquals(waiting, undefined);
          await sleep(1);
        }
      };
      // More than both kernels hold.
      while (all("overflow").length === 0) {
        await push(MIB);
        assertLess(source.messages * SIZE, 64 * MIB);
      }
      await push(8 * MIB);
      source.end();
      assertEquals(await reader.rest(), { reason: "eof" });
      const { dropped } = await within("done", 5000, server.done);
      const { missing, duplicates, outOfOrder, damaged } = reader.verifier;
      assertEquals({ missing: missing - first, duplicates, outOfOrder, damaged }, {
        missing: dropped,
        duplicates: 0,
        outOfOrder: 0,
        damaged: 0,
      });
      // The last message came, and what it was sent after the gap is the backlog and a block.
      assertEquals(reader.verifier.end(), 0);
      const gaps = all("gap");
      assert(gaps.every(({ why }) => why === "drop"), JSON.stringify(gaps));
      const lost = gaps.reduce((sum, { from, to }) => sum + to - from, 0);
      assertEquals(lost, dropped * SIZE);
      const after = source.messages * SIZE - gaps.at(-1)!.to;
      assertGreater(after, MIB);
      assertLess(after, 3 * MIB + PUSH * SIZE);
      assertEquals((await saw("overflow")).policy, "drop-oldest");
    });
  });

  test("drop-oldest: a reader that is away gets the newest messages", async () => {
    const source = new TestSource();
    const options: Partial<ServeOptions> = {
      ...{ source, overflow: "drop-oldest", backlog: 2 * MIB, ack: "tcp" },
    };
    await relaying(options, async ({ connect, all }) => {
      const reader = await connect();
      await meet(source, reader);
      reader.connection.close();
      // Only a write tells that nobody reads any more.
      while (all("closed").length === 0) {
        await source.push(1);
        await sleep(1);
      }
      const away = source.messages;
      for (let i = 0; i < 6 * MIB / SIZE / PUSH; i++) {
        assertEquals((await source.push(PUSH)).waiting, undefined);
      }
      const next = await connect();
      source.end();
      assertEquals(await next.rest(), { reason: "eof" });
      const [gap, another] = all("gap");
      assertEquals([gap!.why, another], ["drop", undefined]);
      // What is left of the block that it had received in part, then the newest messages.
      const start = numberIn(next.head);
      assertLess(start, away);
      assertLess(gap!.from, MIB);
      const newest = source.messages * SIZE - gap!.to;
      assertGreater(newest, MIB);
      assertLess(newest, 3 * MIB + PUSH * SIZE);
      const { missing, duplicates, outOfOrder, damaged } = next.verifier;
      assertEquals({ missing, duplicates, outOfOrder, damaged }, {
        missing: start + (gap!.to - gap!.from) / SIZE,
        duplicates: 0,
        outOfOrder: 0,
        damaged: 0,
      });
      assertEquals(next.verifier.end(), 0);
    });
  });

  for (const overflow of ["close", "reset"] as const) {
    test(`${overflow}: is disconnected; the next one gets what is new, from a message's start`, async (t) => {
      if (withoutKernel(t)) return;
      const source = new TestSource();
      const options: Partial<ServeOptions> = { source, overflow, sendBuffer: SMALL };
      await relaying(options, async ({ connect, saw, all }) => {
        const reader = await connect();
        const first = await meet(source, reader);
        while (all("closed").length === 0) {
          await source.push(PUSH);
          await sleep(1);
          assertLess(source.messages * SIZE, 64 * MIB);
        }
        const [overflowed, closed] = [await saw("overflow"), await saw("closed")];
        assertEquals([overflowed.policy, closed.reason], [overflow, "local"]);
        assertGreater(closed.dropped, 0);
        const read = await reader.rest();
        assertEquals(read.reason, overflow === "close" ? "eof" : "reset");
        assertEquals([reader.verifier.missing, reader.verifier.damaged], [first, 0]);
        assertLess(first + reader.offset / SIZE, source.messages);
        // While nobody is there, what comes is nobody's.
        await source.push(PUSH);
        const due = source.messages;
        const next = await connect();
        const fresh = await meet(source, next);
        assertGreaterOrEqual(fresh, due);
        await source.push(10);
        await next.take(10 * SIZE);
        assertEquals([next.verifier.missing, next.verifier.damaged], [fresh, 0]);
      });
    });
  }
});

describe("a queue that is full", () => {
  test("block: the source waits, queue-full and queue-room are told, nothing is lost", () =>
    withQueues(async (open) => {
      const source = new TestSource();
      const queue = await open({ sync: "off", maxBytes: 4 * MIB });
      const options: Partial<ServeOptions> = {
        ...{ source, overflow: "spill", queue, backlog: MIB, memory: 8 * MIB },
      };
      await relaying(options, async ({ connect, saw, all, server }) => {
        let waiting: Promise<void> | undefined;
        while (waiting === undefined || all("queue-full").length === 0) {
          if (waiting === undefined) ({ waiting } = await source.push(PUSH));
          assertLess(source.messages * SIZE, 64 * MIB);
          await sleep(1);
        }
        const { why, then, reader, name } = await saw("queue-full");
        assertEquals([why, then, reader, name], ["max", "block", 0, "reader"]);
        const stored = new StoredFor(queue, "reader");
        assertGreater(stored.bytes, 2 * MIB);
        const there = await connect();
        const rest = there.rest();
        await within("room for the source", 5000, waiting);
        await saw("queue-room");
        for (let i = 0; i < 100; i++) await (await source.push(PUSH)).waiting;
        source.end();
        assertEquals(await rest, { reason: "eof" });
        there.assertWhole(source.messages);
        assertEquals((await within("done", 5000, server.done)).dropped, 0);
      });
    }));

  test("drop: exactly those are missing that were dropped", () =>
    withQueues(async (open) => {
      const source = new TestSource();
      const queue = await open({ sync: "off", maxBytes: 4 * MIB });
      const options: Partial<ServeOptions> = {
        ...{ overflow: "spill", queue, backlog: MIB, memory: 8 * MIB },
      };
      await relaying(
        { ...options, whenFull: "drop-newest", source },
        async ({ connect, saw, server }) => {
          for (let i = 0; i < 500; i++) {
            await within("no wait", 5000, (await source.push(PUSH)).waiting ?? Promise.resolve());
            if (i % 10 === 0) await sleep(1);
          }
          const { then } = await saw("queue-full");
          assertEquals(then, "drop-newest");
          const reader = await connect();
          const rest = reader.rest();
          await saw("queue-room");
          await until("the queue is empty", 5000, () => reader.bytes > 4 * MIB);
          await sleep(50);
          await (await source.push(PUSH)).waiting;
          source.end();
          assertEquals(await rest, { reason: "eof" });
          await within("done", 5000, server.done);
          const { missing, duplicates, outOfOrder, damaged, messages } = reader.verifier;
          assertEquals([duplicates, outOfOrder, damaged], [0, 0, 0]);
          assertEquals(messages + missing, source.messages);
          // It was away when most were dropped, and no connection counts those. What waits in memory for the
          // disk is kept, up to 16 MiB.
          assertGreaterOrEqual(missing, 100 * PUSH);
          assertGreater(messages * SIZE, 4 * MIB);
        },
      );
    }));

  test("drop: gaps that follow each other are told of as one, and none is forgotten", (t) =>
    withQueues(async (open) => {
      if (withoutKernel(t)) return;
      const source = new TestSource();
      const queue = await open({ sync: "off", maxBytes: 4 * MIB });
      const options: Partial<ServeOptions> = {
        ...{ overflow: "spill", queue, backlog: MIB, memory: 4 * MIB, whenFull: "drop-newest" },
        ...{ source, readerId: "hello", ack: "tcp" },
      };
      await relaying(options, async ({ connect, saw, all, server }) => {
        const gone = await connect();
        await gone.say("gone\n");
        await meet(source, gone);
        gone.connection.reset();
        await saw("closed");
        while (all("queue-full").length === 0) {
          await source.push(PUSH);
          await sleep(1);
        }
        const slow = await connect();
        // Then what is in the server's kernel keeps it from being served from memory.
        const { fd } = slow.connection;
        if (fd !== undefined) setBufferSize(fd, "receive", SMALL);
        await slow.say("slow\n");
        const flooding = source.flood(100_000);
        const figures = () => server.figures!().readers.find(({ name }) => name === "slow");
        const deadline = performance.now() + 60_000;
        while ((figures()?.dropped ?? 0) < 100_000) {
          assertLess(performance.now(), deadline, "too little was dropped");
          await slow.read(16_384);
          await sleep(3);
        }
        source.end();
        await within("the flood's end", 5000, flooding);
        assertEquals(await slow.rest(), { reason: "eof" });
        await saw("closed", 2);
        const gaps = all("gap").filter(({ name }) => name === "slow");
        assertEquals(figures()?.gaps, gaps.length);
        assertEquals(gaps.find(({ why }) => why !== "drop-newest"), undefined);
        const start = Math.min(gaps[0]!.from, numberIn(slow.head) * SIZE);
        const bytes = gaps.reduce((sum, { from, to }) => sum + to - from, 0);
        assertEquals(bytes + slow.bytes, source.messages * SIZE - start);
        gaps.reduce((before, gap) => {
          // One that grows for long is told of once a second.
          if (gap.from === before.to) assertGreater(gap.time - before.time, 0.5);
          return gap;
        });
      });
    }));
});

describe("zero-window-timeout", () => {
  const zeroWindowTimeoutMs = 300;

  test("a reader that stops for good is reset, and what it had not taken is kept", (t) =>
    withQueues(async (open) => {
      if (withoutKernel(t)) return;
      const queue = await open();
      const options: Partial<ServeOptions> = { overflow: "spill", queue, sendBuffer: SMALL };
      const spill = {
        ...options,
        zeroWindowTimeoutMs,
        rate: 100_000,
        backlog: SMALL,
        ack: "tcp",
      } as const;
      await relaying(spill, async ({ connect, saw }) => {
        const reader = await connect();
        await reader.take(SIZE);
        const dead = await saw("dead");
        assert(dead.why === "window");
        assertGreaterOrEqual(dead.seconds, zeroWindowTimeoutMs / 1000);
        assertLess(dead.seconds, 5);
        assertEquals([dead.reader, dead.name], [1, "reader"]);
        assertEquals((await saw("closed")).reason, "local");
        const had = reader.offset;
        assertEquals((await reader.rest()).reason, "reset");
        // From what its kernel had not acknowledged; a reset takes that from its program.
        const next = await connect();
        await next.take(1000 * SIZE);
        const first = numberIn(next.head);
        assertGreaterOrEqual(first * SIZE, had);
        const { missing, duplicates, damaged } = next.verifier;
        assertEquals([missing, duplicates, damaged], [first, 0, 0]);
      });
    }));

  test("one that is slow is not, and gets it all", (t) =>
    withQueues(async (open) => {
      if (withoutKernel(t)) return;
      const queue = await open();
      const options: Partial<ServeOptions> = { overflow: "spill", queue, sendBuffer: SMALL };
      // 1.6 MB, which it takes 2 s for, and a second is many of its reads, also on a busy machine.
      const flood = { zeroWindowTimeoutMs: 1000, rate: 50_000, durationMs: 500 };
      await relaying({ ...options, ...flood, backlog: SMALL }, async ({ connect, all }) => {
        const reader = await connect();
        // Its kernel tells of room when half of its buffer is free: of a large one too late.
        const { fd } = reader.connection;
        if (fd !== undefined) setBufferSize(fd, "receive", SMALL);
        const end = performance.now() + 2 * flood.zeroWindowTimeoutMs;
        while (performance.now() < end) {
          await reader.read(16_384);
          await sleep(20);
        }
        assertEquals(await reader.rest(), { reason: "eof" });
        reader.assertWhole(25_000);
        assertEquals([all("dead"), all("closed").length <= 1], [[], true]);
      });
    }));

  test("nor one to whom nothing is sent", async () => {
    const source = new TestSource();
    await relaying(
      { source, overflow: "block", zeroWindowTimeoutMs: 50 },
      async ({ connect, all }) => {
        const reader = await connect();
        await sleep(300);
        await source.push(1);
        await reader.take(SIZE);
        assertEquals(all("dead"), []);
      },
    );
  });
});
