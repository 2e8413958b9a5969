/** What of a stream goes to the queue when that takes only some of it. */
import { test } from "node:test";
import { assert, assertEquals } from "#std/assert";
import { Blocks } from "../src/relay/blocks.ts";
import { Spiller } from "../src/relay/spiller.ts";
import type { DiskQueueOptions } from "../src/queue/disk_queue.ts";
import type { Cursor, Log } from "../src/queue/queue.ts";
import { assertBatch, batchBytes } from "./queue_batches.ts";
import { withQueues } from "./relaying.ts";
import { until, within } from "./within.ts";

/** Of a block: one fills a segment of the shortest kind. */
const SIZE = 64 << 10;

/** The offsets of all batches from `from` on, of this length, but for a last one. */
async function offsetsOf(log: Log, length: number, from: number, last: number): Promise<number[]> {
  const offsets: number[] = [];
  for (let at = from;;) {
    const batch = await log.read(at);
    if (batch === null) return offsets;
    at = batch.offset + batch.bytes.length;
    assertBatch(batch, batch.offset, at === log.end ? last : length);
    offsets.push(batch.offset);
  }
}

test("blocks are small at first, and grow where one does not suffice", () => {
  let counted = 0;
  const blocks = new Blocks(1 << 20, (bytes) => counted += bytes);
  const sizes: number[] = [];
  let offset = 0;
  const push = (length: number) => {
    blocks.push(new Uint8Array(length).fill(offset & 255), 1, offset);
    offset += length;
    if (sizes.at(-1) !== blocks.last!.buffer.length) sizes.push(blocks.last!.buffer.length);
  };
  // A reader that keeps up needs one, again and again the same.
  const { buffer } = (push(1000), blocks.last!);
  for (let i = 0; i < 1000; i++) {
    push(1000);
    blocks.release(offset);
  }
  push(1000);
  assert(blocks.last!.buffer === buffer);
  assertEquals(sizes, [16_384]);
  while (offset < 10_000_000) push(10_000);
  assertEquals(sizes, [14, 15, 16, 17, 18, 19, 20].map((bits) => 2 ** bits));
  assertEquals(blocks.bytes, offset - blocks.first!.offset);
  for (let at = blocks.first!.offset; at < offset;) {
    const block = blocks.at(at)!;
    assertEquals([block.offset, block.bytes.length], [at, block.length]);
    at = block.end;
  }
  push(3_000_000);
  assertEquals(blocks.last!.buffer.length, 3_000_000, "a longer message has a buffer of its own");
  push(10);
  assertEquals(blocks.last!.buffer.length, 2 ** 20);
  blocks.release(offset);
  assertEquals([blocks.bytes, blocks.first, counted], [0, undefined, 0]);
  const large = new Blocks(1 << 20, () => {});
  large.push(new Uint8Array(500_000), 1, 0);
  assertEquals(large.last!.buffer.length, 2 ** 19, "a first message that is longer");
  const short = new Blocks(10_000, () => {});
  for (let i = 0; i < 30; i++) short.push(new Uint8Array(1000), 1, i * 1000);
  assertEquals([0, 10_000, 29_999].map((at) => short.at(at)!.buffer.length), [
    ...[10_000, 10_000, 10_000],
  ]);
});

/** A log with one reader, and a spiller of blocks, of which the test decides what is in them. */
async function spilling(
  options: DiskQueueOptions,
  use: (made: {
    log: Log;
    cursor: Cursor;
    push: (bytes: number) => void;
    /** Leaves a gap, as if messages were dropped. */
    skip: (bytes: number) => void;
    end: () => number;
    spiller: Spiller;
    /** What it told of being full, and its errors. */
    told: unknown[];
    runs: number[];
  }) => Promise<void>,
  makeRoom?: (log: Log) => Promise<boolean>,
): Promise<void> {
  await withQueues(async (open) => {
    const queue = await open(options);
    const log = await queue.openLog("");
    const cursor = await log.openCursor("reader", 0);
    const blocks = new Blocks(log.largestBatch, () => {});
    const told: unknown[] = [];
    const runs: number[] = [];
    let offset = 0;
    const spiller = new Spiller({
      log,
      blocks,
      beforeRun: (start) => {
        runs.push(start);
        return Promise.resolve();
      },
      onStored: () => blocks.release(log.end),
      onFull: (why) => told.push(why),
      makeRoom: makeRoom === undefined ? undefined : () => makeRoom(log),
      onError: (error) => told.push(error),
    });
    await use({
      log,
      cursor,
      spiller,
      told,
      runs,
      push(bytes) {
        blocks.push(batchBytes(offset, bytes), 10, offset);
        blocks.last!.sealed = true;
        offset += bytes;
      },
      skip(bytes) {
        offset += bytes;
      },
      end: () => offset,
    });
    spiller.stop();
    await spiller.flush();
    spiller.end();
  });
}

test("what comes behind a block that found no room is not stored before it", () =>
  spilling(
    // As many as are under way at once, of which the last one finds no room; and a small one behind.
    { sync: { intervalMs: 100 }, maxBytes: 15.5 * SIZE },
    async ({ log, cursor, push, end, spiller, told }) => {
      for (let i = 0; i < 16; i++) push(SIZE);
      push(1000);
      spiller.start();
      await until("full", 10_000, () => told.length > 0);
      await until("as much as there is room for", 10_000, () => log.end === 15 * SIZE);
      assertEquals([spiller.full, spiller.stored], ["max", 15 * SIZE]);
      cursor.release(2 * SIZE);
      await log.settled();
      await until("all is stored", 10_000, () => spiller.stored === end());
      assertEquals([told, log.end], [["max", undefined], end()]);
      assertEquals(await offsetsOf(log, SIZE, 2 * SIZE, 1000), [
        ...Array.from({ length: 14 }, (_, i) => (i + 2) * SIZE),
        16 * SIZE,
      ]);
    },
  ));

test("nor is what is appended just when that block is refused", () =>
  spilling(
    { sync: "off", maxBytes: 3.5 * SIZE },
    async ({ log, cursor, push, end, spiller, told }) => {
      const { append } = log;
      // Between the refusal and the spiller's knowledge of it, the source brings another message.
      log.append = (batch, after) => {
        const appended = append.call(log, batch, after);
        if (batch.offset === 3 * SIZE) {
          appended.catch(() => {
            push(1000);
            spiller.appendReady();
          });
        }
        return appended;
      };
      for (let i = 0; i < 4; i++) push(SIZE);
      spiller.start();
      await until("full", 10_000, () => told.length > 0);
      assertEquals([log.end, end()], [3 * SIZE, 4 * SIZE + 1000]);
      log.append = append;
      cursor.release(2 * SIZE);
      await log.settled();
      await until("all is stored", 10_000, () => spiller.stored === end());
      assertEquals([told, log.end], [["max", undefined], end()]);
    },
  ));

test("a queue that is full has room after the oldest segment is dropped", () =>
  spilling({ sync: "off", maxBytes: 8.5 * SIZE }, async ({ log, push, end, spiller, told }) => {
    for (let i = 0; i < 40; i++) push(SIZE);
    spiller.start();
    await until("all is stored", 10_000, () => spiller.stored === end());
    assertEquals(told.every((why, i) => why === (i % 2 === 0 ? "max" : undefined)), true);
    assert(told.length >= 2 && told.at(-1) === undefined, String(told));
    assert(log.start > 30 * SIZE && log.bytes <= 8.5 * SIZE, `${log.start} ${log.bytes}`);
    const left = Array.from({ length: 40 }, (_, i) => i * SIZE).filter((at) => at >= log.start);
    assertEquals(await offsetsOf(log, SIZE, 0, SIZE), left);
  }, async (log) => {
    const before = log.start;
    return await log.dropOldest() > before;
  }));

test("a part that does not continue what is stored is told of before it is stored", () =>
  spilling({ sync: "always" }, async ({ log, push, skip, spiller, runs }) => {
    for (let i = 0; i < 5; i++) push(1000);
    skip(500);
    for (let i = 0; i < 30; i++) push(1000);
    skip(1);
    push(1000);
    await within("flush", 10_000, spiller.flush());
    assertEquals([log.end, runs], [36_501, [5500, 35_501]]);
    assertEquals((await log.read(5000))!.offset, 5500);
    spiller.stop();
    push(1000);
    spiller.appendReady();
    assertEquals([spiller.on, log.end], [false, 36_501]);
    await within("flush", 10_000, spiller.flush());
    assertEquals([log.end, runs.length], [37_501, 2]);
  }));

test("without any room to make, flush ends all the same, with what there is room for", () => {
  let asked = 0;
  return spilling(
    { sync: "off", maxBytes: 3.5 * SIZE },
    async ({ log, push, spiller, told }) => {
      for (let i = 0; i < 5; i++) push(SIZE);
      spiller.start();
      await until("full", 10_000, () => told.length > 0);
      await until("room was asked for", 10_000, () => asked > 0);
      await within("flush", 10_000, spiller.flush());
      assertEquals([log.end, told], [3 * SIZE, ["max"]]);
    },
    async () => {
      asked++;
      await new Promise((resolve) => setImmediate(resolve));
      return false;
    },
  );
});
