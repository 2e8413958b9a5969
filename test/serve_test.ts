/** serve() as a library: every policy, and what its reader sees of it. */
import { describe, test } from "node:test";
import {
  assert,
  assertEquals,
  assertGreater,
  assertGreaterOrEqual,
  assertLess,
  assertLessOrEqual,
} from "#std/assert";
import { LONGEST_WRITE } from "../src/message/message.ts";
import type { Adapter, Closed, Connection } from "../src/net/net.ts";
import {
  assertUnbroken,
  type Read,
  readAll,
  serving,
  SIZE,
  SMALL,
  withoutSmallBuffers,
} from "./serve_here.ts";
import { until, within } from "./within.ts";
import { setTimeout as sleep } from "node:timers/promises";

/** What comes in a second at 20,000/s. Its reader has the time to reply before the overflow. */
const SECOND = 20_000 * SIZE;

describe("a reader that stops", () => {
  test("close, nothing unread: it gets all that was accepted, then EOF", async (t) => {
    if (withoutSmallBuffers(t)) return;
    await serving({ sendBuffer: SMALL, overflow: "close" }, async ({ net, connect, saw, all }) => {
      const reader = await connect();
      const overflow = await saw("overflow");
      const closed = await saw("closed");
      assertEquals([overflow.policy, overflow.reader], ["close", 1]);
      assertGreater(overflow.backlog, 0);
      assertEquals(overflow.backlog % SIZE, 0);
      assertEquals([closed.reason, closed.overflows, closed.dropped], ["local", 1, 0]);
      assertEquals(Math.floor(closed.bytes / SIZE), closed.messages);
      const read = await readAll(reader);
      assertReceived(net, read, closed);
      assertGreater(read.bytes, 0);
      assertEquals(all("overflow").length, 1);
    });
  });

  test("close with its reply unread: ECONNRESET, as in the article", async (t) => {
    if (withoutSmallBuffers(t)) return;
    await serving(
      { sendBuffer: SMALL, rate: 20_000, backlog: SECOND },
      async ({ connect, saw }) => {
        const reader = await connect();
        assertGreater((await within("the first", 5000, reader.read(10)))!.length, 0);
        assertEquals(await reader.write(new TextEncoder().encode("Hi i got the data")), 17);
        const closed = await saw("closed");
        assertEquals(closed.reason, "local");
        const read = await readAfterReset(reader);
        assertEquals(read, { reason: "reset", errno: "ECONNRESET" });
      },
    );
  });

  test("close with its replies drained: EOF", async (t) => {
    if (withoutSmallBuffers(t)) return;
    const options = {
      sendBuffer: SMALL,
      rate: 20_000,
      backlog: SECOND,
      replies: "drain",
    } as const;
    await serving(options, async ({ net, connect, saw }) => {
      const reader = await connect();
      assertEquals(await reader.write(new TextEncoder().encode("Hi i got the data")), 17);
      const closed = await saw("closed");
      assertReceived(net, await readAll(reader), closed);
    });
  });

  test("reset: ECONNRESET", async (t) => {
    if (withoutSmallBuffers(t)) return;
    await serving({ sendBuffer: SMALL, overflow: "reset" }, async ({ connect, saw }) => {
      const reader = await connect();
      const overflow = await saw("overflow");
      assertEquals(overflow.policy, "reset");
      assertEquals((await saw("closed")).reason, "local");
      assertEquals(await readAfterReset(reader), { reason: "reset", errno: "ECONNRESET" });
    });
  });

  test("block: nothing is lost, all that is owed is delivered after the duration", async (t) => {
    if (withoutSmallBuffers(t)) return;
    const rate = 20_000;
    const options = { sendBuffer: SMALL, overflow: "block", rate, durationMs: 1000 } as const;
    await serving(options, async ({ connect, saw, server, all }) => {
      const reader = await connect();
      const overflow = await saw("overflow");
      assertEquals(overflow.policy, "block");
      // Still stopped when the generating ends: what is owed by then is owed.
      await sleep(1200);
      assertEquals(all("closed"), []);
      const read = await readAll(reader);
      assertEquals(read.closed, { reason: "eof" });
      const result = await within("done", 5000, server.done);
      assertEquals(result.bytes, read.bytes);
      assertEquals(result.messages * SIZE, read.bytes);
      assertEquals([result.dropped, result.readers], [0, 1]);
      assertGreaterOrEqual(result.overflows, 1);
      assertOffered(result.messages, rate);
    });
  });

  test("block: a reader that goes on is sent what it missed", async (t) => {
    if (withoutSmallBuffers(t)) return;
    const rate = 20_000;
    const options = { sendBuffer: SMALL, overflow: "block", rate, durationMs: 1000 } as const;
    await serving(options, async ({ connect, saw, server }) => {
      const reader = await connect();
      await saw("overflow");
      await sleep(300);
      const read = await readAll(reader);
      const result = await within("done", 5000, server.done);
      assertEquals([read.bytes, read.closed.reason], [result.messages * SIZE, "eof"]);
      assertOffered(result.messages, rate);
    });
  });

  test("drop: whole messages are missing, and are counted", async (t) => {
    if (withoutSmallBuffers(t)) return;
    const rate = 100_000;
    const options = { sendBuffer: SMALL, overflow: "drop", rate, durationMs: 1000 } as const;
    await serving(options, async ({ connect, saw, server }) => {
      const reader = await connect();
      assertEquals((await saw("overflow")).policy, "drop");
      await sleep(400);
      const read = await readAll(reader);
      const result = await within("done", 5000, server.done);
      assertEquals(read, { bytes: result.bytes, closed: { reason: "eof" } });
      assertEquals(result.messages * SIZE, result.bytes);
      // The reader was stopped for 0.4 s of messages, less what the kernels hold.
      assertGreater(result.dropped, 0.2 * rate);
      assertOffered(result.messages + result.dropped, rate);
    });
  });

  test("drop: it may stop several times, each is an overflow", async (t) => {
    if (withoutSmallBuffers(t)) return;
    await serving(
      { sendBuffer: SMALL, overflow: "drop" },
      async ({ connect, saw, server, all }) => {
        const reader = await connect();
        await saw("overflow");
        let bytes = 0;
        for (let stop = 0; stop < 3; stop++) {
          await sleep(100);
          // Until it is served live again, with nothing left of what was waiting.
          const end = performance.now() + 100;
          while (performance.now() < end) {
            const chunk = await within("the next bytes", 5000, reader.read(65_536));
            assertUnbroken(bytes, chunk!);
            bytes += chunk!.length;
          }
        }
        const result = await within("stop", 5000, server.stop());
        assertGreaterOrEqual(result.overflows, 2);
        assertEquals(all("overflow").length, 1);
      },
    );
  });
});

/** Up to EOF, all that was accepted; Node's chunk in flight is not counted, and some of it may arrive. */
function assertReceived(net: Adapter, { bytes, closed }: Read, counted: { bytes: number }): void {
  assertEquals(closed, { reason: "eof" });
  assertGreaterOrEqual(bytes, counted.bytes);
  assertLessOrEqual(bytes, counted.bytes + (net.name === "node" ? LONGEST_WRITE : 0));
}

/** What was offered in one second. */
function assertOffered(messages: number, rate: number): void {
  assert(Math.abs(messages - rate) <= 1, `${messages} messages in 1 s at ${rate}/s`);
}

/** Takes what is left for it, up to the reset that must come. */
async function readAfterReset(reader: Connection): Promise<Closed> {
  while (await within("the end", 5000, reader.read(65_536)) !== null);
  return await within("closed", 2000, reader.closed);
}

describe("the bound of the backlog", () => {
  const rate = 20_000;
  const backlog = 400_000;

  test("close acts once more than that waits, and not before", async (t) => {
    if (withoutSmallBuffers(t)) return;
    await serving({ sendBuffer: SMALL, rate, backlog }, async ({ connect, saw }) => {
      const reader = await connect();
      const overflow = await saw("overflow");
      assertGreater(overflow.backlog, backlog - SIZE);
      const since = overflow.time - (await saw("reader")).time;
      assertGreater(since, (backlog - SIZE) / SIZE / rate);
      // All that the schedule made is either accepted or waiting.
      const offered = overflow.messages + overflow.backlog / SIZE;
      assertLessOrEqual(offered, since * rate + 1);
      assertGreater(offered, (since - 0.1) * rate);
      await readAll(reader);
    });
  });

  test("drop keeps that much, and no more", async (t) => {
    if (withoutSmallBuffers(t)) return;
    const options = {
      sendBuffer: SMALL,
      rate,
      backlog,
      overflow: "drop",
      durationMs: 800,
    } as const;
    await serving(options, async ({ connect, saw, server }) => {
      const reader = await connect();
      const overflow = await saw("overflow");
      await sleep(1000);
      const read = await readAll(reader);
      const result = await within("done", 5000, server.done);
      assertGreater(result.dropped, 0);
      assertEquals(read.bytes, result.bytes);
      // What waited, and what the kernel found room for after all.
      const waited = result.bytes - overflow.messages * SIZE;
      assertLess(waited, backlog + 65_536);
      assertGreater(waited, backlog - 65_536);
    });
  });
});

describe("a reader that keeps up", () => {
  for (const rate of [1, 500, 100_000]) {
    test(`is offered rate times duration: ${rate}/s`, async () => {
      await serving({ rate, durationMs: 1000 }, async ({ connect, server }) => {
        const read = await readAll(await connect());
        const result = await within("done", 5000, server.done);
        assertEquals(read, { bytes: result.bytes, closed: { reason: "eof" } });
        assertEquals([result.dropped, result.overflows, result.readers], [0, 0, 1]);
        assertOffered(result.messages, rate);
      });
    });
  }

  test("is never offered more than is due, whatever its first message is", async () => {
    const options = { rate: 1000, sentEveryMs: 5 };
    await serving(options, async ({ connect, all, saw }) => {
      const reader = await connect();
      const reading = readAll(reader);
      const { time: start } = await saw("reader");
      await until("some messages", 5000, () => (all("sent").at(-1)?.messages ?? 0) >= 500);
      for (const { time, messages } of all("sent")) {
        assertLessOrEqual(messages, (time - start) * 1000 + 1);
      }
      reader.close();
      await reading;
    });
  });

  test("at rate max is sent as much as it takes", async () => {
    const options = { rate: Infinity, overflow: "block", durationMs: 300 } as const;
    await serving(options, async ({ connect, server }) => {
      const read = await readAll(await connect());
      const result = await within("done", 5000, server.done);
      assertEquals(read.bytes, result.bytes);
      assertEquals(result.messages * SIZE, result.bytes);
      assertGreater(result.bytes, 1e6);
    });
  });
});
