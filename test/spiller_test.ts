/** What of a stream goes to the queue when that takes only some of it. */
import { test } from "node:test";
import { assertEquals } from "#std/assert";
import { Blocks } from "../src/relay/blocks.ts";
import { Spiller } from "../src/relay/spiller.ts";
import { withQueues } from "./relaying.ts";
import { until } from "./within.ts";

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
