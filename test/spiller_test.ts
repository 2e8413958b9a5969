/** What of a stream goes to the queue when that takes only some of it. */
import { test } from "node:test";
import { assert, assertEquals } from "#std/assert";
import { Blocks } from "../src/relay/blocks.ts";
import { Spiller } from "../src/relay/spiller.ts";
import { withQueues } from "./relaying.ts";
import { until } from "./within.ts";

test("blocks are small at first, and grow where one does not suffice", () => {
  const blocks = new Blocks();
  const sizes: number[] = [];
  let offset = 0;
  const push = (length: number) => {
    blocks.push(new Uint8Array(length).fill(offset & 255), 1, offset, offset);
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
  assertEquals([blocks.bytes, blocks.first], [0, undefined]);
  const large = new Blocks();
  large.push(new Uint8Array(500_000), 1, 0, 0);
  assertEquals(large.last!.buffer.length, 2 ** 19, "a first message that is longer");
});

test("what comes behind a block that found no room is not stored before it", () =>
  withQueues(async (open) => {
    // As many as are under way at once, in one transaction, of which the last one finds no room; and a
    // small one behind.
    const most = 16;
    const size = 64 << 10;
    const queue = await open({ sync: { intervalMs: 100 }, maxBytes: (most - 0.5) * size });
    const reader = await queue.open("reader");
    const blocks = new Blocks();
    let offset = 0;
    const push = (bytes: number) => {
      blocks.push(new Uint8Array(bytes), 1, offset, offset);
      blocks.last!.sealed = true;
      offset += bytes;
    };
    for (let i = 0; i < most; i++) push(size);
    push(1000);
    const told: unknown[] = [];
    const spiller = new Spiller({
      queue: reader,
      blocks,
      positionAfter: ({ end }) => end,
      onStored: () => {},
      onFull: (why) => told.push(why),
      onError: (error) => told.push(error),
    });
    spiller.start();
    await until("full", 10_000, () => told.length > 0);
    reader.release(2 * size, 0);
    await until("all is stored", 10_000, () => spiller.end === offset);
    assertEquals(told, ["max", undefined]);
    const { batches, bytes } = reader.stored;
    assertEquals([batches, bytes], [most - 1, (most - 2) * size + 1000]);
    spiller.stop();
  }));
