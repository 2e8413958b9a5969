/** What bench/kill.ts found with many kills, each on its own. */
import { describe, test } from "node:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertEquals, assertGreaterOrEqual } from "#std/assert";
import { loadAdapter } from "../src/net/load.ts";
import type { Connection } from "../src/net/net.ts";
import { openDiskQueue } from "../src/queue/disk_queue.ts";
import type { Log } from "../src/queue/queue.ts";
import { Acknowledger } from "../src/read/acknowledger.ts";
import { Blocks } from "../src/relay/blocks.ts";
import { MemoryBudget } from "../src/relay/memory_budget.ts";
import { serve } from "../src/relay/serve.ts";
import { Spiller } from "../src/relay/spiller.ts";
import { Stream } from "../src/relay/stream.ts";
import { policyOf } from "../src/send/overflow.ts";
import { EMPTY_SOURCE } from "../src/source/empty_source.ts";
import { until, within } from "./within.ts";

function streamOf(log: Log, replayable: boolean): Stream {
  return new Stream({
    log,
    replayable,
    policy: policyOf("spill"),
    bound: 1000,
    resumeBelow: 500,
    whenFull: "block",
    durable: false,
    memory: new MemoryBudget(1 << 20),
    floor: (_, offset) => offset,
    onEvent: () => {},
    onNew: () => {},
    onSafe: () => {},
    onError: (error) => assertEquals(error, undefined),
  });
}

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const parent = mkdtempSync(join(tmpdir(), "speedlimit-found-"));
  try {
    await body(join(parent, "queue"));
  } finally {
    rmSync(parent, { recursive: true, force: true });
  }
}

describe("a server that ends", () => {
  test("stores also what came while the last part was being prepared", () =>
    withFolder(async (folder) => {
      const queue = await openDiskQueue(folder, { sync: "off" });
      const log = await queue.openLog("");
      const blocks = new Blocks(log.largestBatch, () => {});
      const prepared = Promise.withResolvers<void>();
      const spiller = new Spiller({
        log,
        blocks,
        // Readers that are recorded beyond what they have: it waits for the disk.
        beforeRun: () => prepared.promise,
        onStored: () => {},
        onFull: () => {},
        onError: (error) => prepared.reject(error),
      });
      blocks.push(new Uint8Array(100), 1, 1000);
      blocks.last!.sealed = true;
      spiller.start();
      blocks.push(new Uint8Array(50), 1, 1100);
      const flushed = spiller.flush();
      prepared.resolve();
      await within("stored", 5000, flushed);
      assertEquals(log.end, 1150);
      await queue.close();
    }));
});

describe("a server that was killed before it stored anything", () => {
  test("begins where the reader is that has least", () =>
    withFolder(async (folder) => {
      const queue = await openDiskQueue(folder, { sync: "off" });
      const log = await queue.openLog("");
      const ahead = await log.openCursor("ahead", 0);
      await log.openCursor("away", 0);
      ahead.release(500);
      await log.settled();
      await queue.close();
      const again = await openDiskQueue(folder, { sync: "off" });
      const [known] = again.logs;
      assertEquals([known!.start, known!.end], [0, 0]);
      const stream = streamOf(known!, true);
      assertEquals(stream.position, 0);
      await stream.push(new Uint8Array(600), 6, 0);
      await stream.store();
      stream.end();
      assertEquals([known!.start, known!.end], [0, 600]);
      await again.close();
    }));
});

describe("a server of a plain source that was killed", () => {
  test("uses up the offsets of what it had, also if no reader was connected", () =>
    withFolder(async (folder) => {
      const queue = await openDiskQueue(folder, { sync: "off" });
      const log = await queue.openLog("");
      await log.openCursor("away", 0);
      await streamOf(log, false).push(new Uint8Array(1000), 10, 0);
      await until("reserved", 5000, () => log.reserved >= 1000);
      // A killed server stores nothing of it.
      await queue.close();
      const again = await openDiskQueue(folder, { sync: "off" });
      const [known] = again.logs;
      assertEquals(known!.end, 0);
      assertGreaterOrEqual(streamOf(known!, false).tail, 1000);
      await again.close();
    }));
});

describe("a reader that acknowledges whole messages", () => {
  test("counts them from where the server begins, which a gap may have moved", async () => {
    const sent: string[] = [];
    const connection = {
      write: (bytes: Uint8Array) => {
        sent.push(new TextDecoder().decode(bytes));
        return bytes.length;
      },
    };
    const at = { offset: 1001, stream: "0123456789abcdef" };
    const acknowledger = new Acknowledger(connection as unknown as Connection, at, 64, {});
    await acknowledger.processed(200);
    await acknowledger.finish();
    assertEquals(sent, [`ack ${1001 + 192}\n`]);
  });
});

describe("a server that ends before its source is where a killed one was", () => {
  test("still knows how much its readers may have", () =>
    withFolder(async (folder) => {
      const queue = await openDiskQueue(folder, { sync: "off" });
      const log = await queue.openLog("");
      await log.openCursor("reader", 0);
      // Sent, and the server was killed.
      await log.reserve(5000);
      const stream = streamOf(log, true);
      await stream.push(new Uint8Array(1000), 10, stream.position);
      await stream.store();
      stream.end();
      await queue.close();
      const again = await openDiskQueue(folder, { sync: "off" });
      assertEquals([again.logs[0]!.end, again.logs[0]!.reserved], [1000, 5000]);
      await again.close();
    }));
});

describe("what bench/model.ts found: a server that is killed", () => {
  test("has recorded which offsets it may have sent, also while it records more", () =>
    withFolder(async (folder) => {
      const queue = await openDiskQueue(folder, { sync: "off" });
      const log = await queue.openLog("");
      await log.reserve(1990);
      const stream = streamOf(log, false);
      assertEquals(stream.tail, 1990);
      // Its record is on its way then.
      void stream.push(new Uint8Array(20), 2, 0);
      const waits = stream.reserve(2000);
      assertEquals([log.reserved, waits instanceof Promise], [1990, true]);
      await within("the record", 5000, waits);
      assertGreaterOrEqual(log.reserved, 2000);
      await queue.close();
    }));

  test("has not told the source that it may delete what only a reader not yet recorded has passed", () =>
    withFolder(async (folder) => {
      const queue = await openDiskQueue(folder, { sync: "off" });
      const log = await queue.openLog("");
      const stream = streamOf(log, true);
      await stream.push(new Uint8Array(350), 35, 0);
      assertEquals(stream.safePosition, undefined);
      const adding = stream.addCursor("reader", stream.tail);
      assertEquals(stream.safePosition, undefined);
      await adding;
      assertEquals(stream.safePosition, 350);
      await queue.close();
    }));

  test("continues at the start of a message, where a reader has more than came again", () =>
    withFolder(async (folder) => {
      const queue = await openDiskQueue(folder, { sync: "off" });
      const log = await queue.openLog("");
      await log.openCursor("reader", 320);
      // The server before had sent more, and had not recorded it.
      await log.reserve(5000);
      const stream = streamOf(log, true);
      const cursor = stream.cursorOf("reader")!;
      stream.acknowledge(cursor, 1047);
      await stream.push(new Uint8Array(100), 10, stream.position);
      await stream.record();
      assertEquals([stream.tail, log.cursors[0]!.durable], [420, 420]);
      await stream.push(new Uint8Array(680), 68, stream.position);
      await stream.record();
      assertEquals([stream.tail, log.cursors[0]!.durable], [1100, 1047]);
      await stream.store();
      stream.end();
      await queue.close();
    }));
});

describe("a reader that comes while the queue is being opened", () => {
  test("gets what is stored for it", () =>
    withFolder(async (folder) => {
      const queue = await openDiskQueue(folder, { sync: "off" });
      const log = await queue.openLog("reader");
      await log.openCursor("reader", 0);
      await log.append({ offset: 0, bytes: new Uint8Array(640).fill(7), messages: 10 });
      await queue.close();
      const again = await openDiskQueue(folder, { sync: "off" });
      const connected = Promise.withResolvers<void>();
      const received = Promise.withResolvers<number>();
      const server = await serve({
        port: 0,
        source: EMPTY_SOURCE,
        overflow: "spill",
        ack: "none",
        queue: {
          logs: again.logs,
          diskFree: undefined,
          syncs: again.syncs,
          // As slow as a disk may be.
          openLog: (key) => connected.promise.then(() => again.openLog(key)),
          close: () => again.close(),
        },
        onEvent(event) {
          if (event.event === "reader") connected.resolve();
          if (event.event === "listening") void readAll(event).then(received.resolve);
        },
      });
      try {
        assertEquals(await within("received", 5000, received.promise), 640);
        await within("the end", 5000, server.done);
      } finally {
        await server.stop();
        await again.close();
      }
    }));
});

/** Bytes until the server ends the connection. */
async function readAll({ host, port }: { host: string; port: number }): Promise<number> {
  const connection = await (await loadAdapter()).connect({ host, port });
  let bytes = 0;
  for (let chunk; (chunk = await connection.read(65_536)) !== null;) bytes += chunk.length;
  connection.close();
  return bytes;
}

describe("a reader that comes for the first time, and begins at the oldest message", () => {
  test("does not begin with a part on disk that what is in memory does not continue", () =>
    withFolder(async (folder) => {
      const queue = await openDiskQueue(folder, { sync: "off" });
      const log = await queue.openLog("");
      await log.append({ offset: 0, bytes: new Uint8Array(100), messages: 1 });
      await log.openCursor("ahead", 500);
      const stream = streamOf(log, true);
      assertEquals([log.start, log.end, stream.tail, stream.oldest], [0, 100, 500, 500]);
      await queue.close();
    }));
});
