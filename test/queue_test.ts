/** The durable queue: what is appended, read, and how far its readers have come. */
import { describe, test } from "node:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import {
  assert,
  assertEquals,
  assertGreater,
  assertLess,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "#std/assert";
import { openDiskQueue } from "../src/queue/disk_queue.ts";
import { type Batch, QueueError, QueueFull } from "../src/queue/queue.ts";
import { FILE_HEADER, recordSize } from "../src/queue/segment_format.ts";
import {
  assertBatch,
  assertHolds,
  batchAt,
  batchBytes,
  fill,
  withFolder,
  withOpen,
  withQueue,
} from "./queue_batches.ts";
import { until, within } from "./within.ts";

const MS = 10_000;

describe("a log", () => {
  for (const sync of ["always", { intervalMs: 20 }, "off"] as const) {
    test(`holds what was appended, and gives it back: sync ${JSON.stringify(sync)}`, () =>
      withQueue(async (queue) => {
        const log = await queue.openLog("");
        assertMatch(log.stream, /^[0-9a-f]{16}$/);
        assertEquals([log.start, log.end, log.durableEnd, log.reserved, log.bytes], [
          0,
          0,
          0,
          0,
          0,
        ]);
        assertEquals([log.segments, log.oldestMs, log.oldestSegmentMs], [0, undefined, undefined]);
        assertEquals(await log.read(0), null);
        await fill(log, 20, 100_000);
        assertEquals([log.start, log.end, log.segments], [0, 2_000_000, 1]);
        assertEquals(log.bytes, FILE_HEADER + 20 * recordSize({ bytes: new Uint8Array(100_000) }));
        await assertHolds(log, 0, 2_000_000, 100_000);
        // Within a batch, and behind all.
        assertBatch(await log.read(150_000), 100_000, 100_000);
        assertBatch(await log.read(199_999), 100_000, 100_000);
        assertEquals(await log.read(99e9), null);
        assertLess(Math.abs(log.oldestMs! - Date.now()), 60_000);
        await until("durable", MS, () => log.durableEnd === log.end);
        if (sync === "off") assertEquals(queue.syncs.seconds < 60, true);
        else assertGreater(queue.syncs.count, 0);
        assertGreater(queue.diskFree!, 0);
      }, { sync }));
  }

  test("tells what is durable: with `always` at once, with an interval later, when closed all", () =>
    withFolder(async (folder) => {
      await withOpen(join(folder, "always"), async (queue) => {
        const log = await queue.openLog("");
        await Promise.all(Array.from({ length: 50 }, async (_, i) => {
          await log.append(batchAt(i * 1000, 1000));
          assert(log.durableEnd >= (i + 1) * 1000, `${log.durableEnd} after ${i}`);
        }));
      });
      const later = join(folder, "later");
      await withOpen(later, async (queue) => {
        const log = await queue.openLog("");
        await fill(log, 10, 1000);
        assertEquals([log.end, log.durableEnd], [10_000, 0]);
      }, { sync: { intervalMs: 600_000 } });
      await withOpen(later, async (queue) => {
        const log = await queue.openLog("");
        assertEquals([log.end, log.durableEnd], [10_000, 10_000]);
      });
      await withOpen(join(folder, "off"), async (queue) => {
        const log = await queue.openLog("");
        await fill(log, 10, 1000);
        assertEquals([log.end, log.durableEnd], [10_000, 10_000]);
      }, { sync: "off" });
    }));

  test("tells how much is stored from an offset on: exactly where it knows its batches", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "queue");
      const options = { sync: "off", maxBytes: 1 << 20 } as const;
      await withOpen(folder, async (queue) => {
        const log = await queue.openLog("");
        await log.openCursor("a", 0);
        assertEquals(log.after(0), { bytes: 0, messages: 0 });
        await fill(log, 50, 10_000);
        assertGreater(log.segments, 2);
        // Nothing has these offsets.
        await log.append(batchAt(900_000, 10_000));
        assertEquals(log.after(0), { bytes: 510_000, messages: 510 });
        assertEquals(log.after(485_000), { bytes: 25_000, messages: 25 });
        assertEquals(log.after(489_999), { bytes: 20_001, messages: 21 });
        assertEquals(log.after(500_000), { bytes: 10_000, messages: 10 });
        assertEquals(log.after(899_999), { bytes: 10_000, messages: 10 });
        assertEquals(log.after(910_000), { bytes: 0, messages: 0 });
      }, options);
      await withOpen(folder, async (queue) => {
        const log = await queue.openLog("");
        // Of the first segments, only the lengths of their files are known.
        assertEquals(log.after(0), { bytes: 510_000, messages: 510 });
        assertEquals(log.after(123), { bytes: 509_877, messages: 510 });
        assertEquals(log.after(905_000), { bytes: 5000, messages: 5 });
        assertLess(Math.abs(log.oldestMs! - Date.now()), 60_000);
        assertEquals(log.storedAtMs(0), undefined);
        const { storedAtMs } = (await log.read(0))!;
        assertEquals([log.storedAtMs(0), log.oldestMs], [storedAtMs, storedAtMs]);
        const last = (await log.read(900_000))!.storedAtMs;
        assertEquals([log.storedAtMs(500_000), log.storedAtMs(909_999)], [last, last]);
        assertEquals(log.storedAtMs(910_000), undefined);
        assertEquals(log.after(5000), { bytes: 505_000, messages: 505 });
      }, options);
    }));

  test("goes on where it was", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "queue");
      const stream = await withOpen(folder, async (queue) => {
        const log = await queue.openLog("");
        await fill(log, 10, 1000);
        const cursor = await log.openCursor("a", 500);
        await (await log.openCursor("b", 0)).setAcknowledges();
        await (await log.openCursor("gone", 0)).forget();
        cursor.release(3500);
        await log.reserve(12_345);
        await log.setOrigin({ stream: "0123456789abcdef", shift: -17, since: 42 });
        assertEquals([log.epoch, queue.logs.length], [1, 1]);
        return log.stream;
      });
      assertEquals(readdirSync(folder).sort(), [stream, "lock.db", "queue.db"].sort());

      await withOpen(folder, async (queue) => {
        assertEquals(queue.logs.map(({ key }) => key), [""]);
        // Where it begins is known already.
        const log = await queue.openLog("", 99_999);
        assertEquals([log.stream, log.epoch], [stream, 2]);
        assertEquals([log.start, log.end, log.durableEnd, log.reserved], [
          0,
          10_000,
          10_000,
          12_345,
        ]);
        assertEquals(log.origin, { stream: "0123456789abcdef", shift: -17, since: 42 });
        const cursors = log.cursors.map(({ name, offset, durable, acknowledges }) => [
          ...[name, offset, durable, acknowledges],
        ]);
        assertEquals(cursors.sort(), [["a", 3500, 3500, false], ["b", 0, 0, true]]);
        assertBatch(await log.read(3500), 3000, 1000);
        await fill(log, 1, 1000);
        await log.setOrigin({ shift: 5, since: 11_000 });
        await assertHolds(log, 0, 11_000, 1000);
      });
      await withOpen(folder, async (queue) => {
        const log = await queue.openLog("");
        assertEquals([log.epoch, log.end, log.origin], [3, 11_000, { shift: 5, since: 11_000 }]);
      });
    }));

  test("is one of several, of which each has its own stream", () =>
    withQueue(async (queue) => {
      const logs = await Promise.all(["", "b", "c"].map((key) => queue.openLog(key)));
      assertEquals(new Set(logs.map(({ stream }) => stream)).size, 3);
      await Promise.all(logs.map((log, i) => fill(log, 5 + i, 1000)));
      (await logs[1]!.openCursor("b", 0)).release(6000);
      await logs[1]!.settled();
      assertEquals([logs[1]!.bytes, logs[1]!.segments, logs[1]!.end], [0, 0, 6000]);
      await assertHolds(logs[0]!, 0, 5000, 1000);
      await assertHolds(logs[2]!, 0, 7000, 1000);
      assertEquals(await logs[1]!.read(0), null);
      assertEquals(queue.logs.map(({ key }) => key).sort(), ["", "b", "c"]);
      const [again, same] = await Promise.all([queue.openLog("b"), queue.openLog("d")]);
      assert(again === logs[1], "the same log twice");
      assert(same === await queue.openLog("d"), "the same log twice");
      const [one, other] = await Promise.all([queue.openLog("e"), queue.openLog("e")]);
      assert(one === other, "two of one key");
    }));

  test("begins where it is told to, and has gaps", () =>
    withFolder(async (folder) => {
      await withOpen(join(folder, "q"), async (queue) => {
        const log = await queue.openLog("", 5000);
        assertEquals([log.start, log.end, log.durableEnd, log.reserved], [5000, 5000, 5000, 5000]);
        await log.append(batchAt(5000, 1000));
        await log.append(batchAt(9000, 1000));
        await log.append(batchAt(2 ** 40, 1000));
        assertEquals([log.start, log.end], [5000, 2 ** 40 + 1000]);
      });
      await withOpen(join(folder, "q"), async (queue) => {
        const log = await queue.openLog("");
        assertEquals([log.start, log.end], [5000, 2 ** 40 + 1000]);
        // Before all of them, in one, between them, and after.
        const reads: [at: number, offset: number][] = [
          [0, 5000],
          [5999, 5000],
          [6000, 9000],
          [8999, 9000],
          [10_000, 2 ** 40],
        ];
        for (const [at, offset] of reads) assertBatch(await log.read(at), offset, 1000);
        assertEquals(await log.read(2 ** 40 + 1000), null);
      });
    }));

  test("refuses what cannot be", () =>
    withQueue(async (queue) => {
      const log = await queue.openLog("");
      await fill(log, 2, 1000);
      const refuses = async (batch: Batch, message: string) => {
        const error = await assertRejects(() => log.append(batch), QueueError);
        assertStringIncludes(error.message, message);
        assert(!error.message.includes("\n"), "more than one line");
      };
      await refuses(batchAt(1500, 1000), "a batch at 1500 cannot be stored: the log ends at 2000");
      await refuses({ ...batchAt(2000, 10), offset: -1 }, "cannot be stored");
      await refuses({ ...batchAt(2000, 10), offset: 2000.5 }, "cannot be stored");
      await refuses({ ...batchAt(2000, 10), offset: 2 ** 53 }, "cannot be stored");
      await refuses({ ...batchAt(2000, 10), messages: 0.5 }, "cannot be stored");
      await refuses({ ...batchAt(2000, 10), bytes: new Uint8Array() }, "cannot be stored");
      for (const name of ["a\nb", "\u0000", "x".repeat(201), "\u0085"]) {
        await assertRejects(() => queue.openLog(name), QueueError, "one line");
        await assertRejects(() => log.openCursor(name, 0), QueueError, "one line");
      }
      await assertRejects(() => openDiskQueue("x", { maxBytes: 0 }), RangeError, "above zero");
      const sync = { intervalMs: 0 };
      await assertRejects(() => openDiskQueue("x", { sync }), RangeError, "intervalMs");
      await fill(log, 1, 1000);
      await assertHolds(log, 0, 3000, 1000);
    }));
});

describe("appends", () => {
  for (const sync of ["always", { intervalMs: 5 }, "off"] as const) {
    test(`in progress together are stored in order: sync ${JSON.stringify(sync)}`, () =>
      withQueue(async (queue) => {
        const log = await queue.openLog("");
        const settled: number[] = [];
        const appends: Promise<unknown>[] = [];
        const lengths = Array.from({ length: 400 }, (_, i) => 1 + (i * 7919) % 50_000);
        let offset = 0;
        for (const length of lengths) {
          const at = offset;
          appends.push(
            log.append(batchAt(at, length)).then(() => {
              assert(log.end >= at + length, "not stored");
              settled.push(at);
            }),
          );
          offset += length;
          // Some come while others are being written.
          if (at % 5 === 0) await new Promise((resolve) => setImmediate(resolve));
        }
        await within("appends", MS, Promise.all(appends));
        assertEquals(settled, [...settled].sort((a, b) => a - b));
        assertEquals([settled.length, log.end], [400, offset]);
        let at = 0;
        for (const length of lengths) {
          assertBatch(await log.read(at), at, length);
          at += length;
        }
      }, { sync }));
  }

  for (const sync of ["always", "off"] as const) {
    test(`fail together with one before them, and then work again: sync ${sync}`, () =>
      withQueue(async (queue) => {
        const log = await queue.openLog("");
        await fill(log, 2, 1000);
        const results = await Promise.allSettled([
          log.append(batchAt(2000, 700_000)),
          // They would fit.
          log.append(batchAt(702_000, 500)),
          log.append(batchAt(702_500, 500)),
        ]);
        for (const result of results) {
          const { reason } = result as PromiseRejectedResult;
          assert(reason instanceof QueueFull, String(reason));
          assertEquals([reason.reason, /\n/.test(reason.message)], ["max", false]);
        }
        assertEquals([log.end, log.durableEnd], [2000, 2000]);
        await fill(log, 3, 1000);
        const wrong = await Promise.allSettled([
          log.append(batchAt(100, 10)),
          log.append(batchAt(5000, 10), 110),
          log.append(batchAt(5000, 1000), 5000),
        ]);
        assertEquals(wrong.map(({ status }) => status), ["rejected", "rejected", "fulfilled"]);
        await fill(log, 1, 1000);
        await assertHolds(log, 0, 7000, 1000);
      }, { sync, maxBytes: 600_000 }));
  }

  test("of the longest batch, and longer", () =>
    withFolder(async (folder) => {
      const length = (2 << 20) - 7;
      await withOpen(join(folder, "q"), async (queue) => {
        const log = await queue.openLog("");
        assertEquals(log.largestBatch, 1 << 20);
        await fill(log, 3, log.largestBatch);
        await fill(log, 2, length);
        await fill(log, 1, 1);
        assertEquals(log.end, (3 << 20) + 2 * length + 1);
      });
      await withOpen(join(folder, "q"), async (queue) => {
        const log = await queue.openLog("");
        for (let i = 0; i < 3; i++) assertBatch(await log.read(i << 20), i << 20, 1 << 20);
        for (const at of [3 << 20, (3 << 20) + length]) assertBatch(await log.read(at), at, length);
        assertBatch(await log.read(log.end - 1), log.end - 1, 1);
      });
    }));
});

describe("a cursor", () => {
  test("only goes forth with `release`, and also back with `seek`", () =>
    withQueue(async (queue) => {
      const log = await queue.openLog("");
      await fill(log, 10, 1000);
      const cursor = await log.openCursor("a", 2000);
      assertEquals([cursor.name, cursor.offset, cursor.durable], ["a", 2000, 2000]);
      assert(cursor === await log.openCursor("a", 7000), "the same cursor twice");
      cursor.release(4000);
      cursor.release(1000);
      assertEquals([cursor.offset, cursor.durable], [4000, 2000]);
      await within("settled", MS, log.settled());
      assertEquals([cursor.offset, cursor.durable], [4000, 4000]);
      await cursor.seek(1000);
      assertEquals([cursor.offset, cursor.durable], [1000, 1000]);
      await cursor.seek(9000);
      assertEquals([cursor.offset, cursor.durable, cursor.acknowledges], [9000, 9000, false]);
      await cursor.setAcknowledges();
      assert(cursor.acknowledges);
      await cursor.forget();
      assertEquals(log.cursors, []);
      const anew = await log.openCursor("a", 10_000);
      assertEquals([anew.offset, anew.acknowledges], [10_000, false]);
    }));

  test("that goes back keeps what it needs, whatever is settled meanwhile", () =>
    withQueue(async (queue) => {
      const log = await queue.openLog("");
      const cursor = await log.openCursor("a", 0);
      for (let i = 0; i < 10; i++) await fill(log, 1, 50_000);
      assertGreater(log.segments, 3);
      for (let round = 0; round < 5; round++) {
        cursor.release(450_000);
        // It is not known yet whether the release has been recorded.
        const settled = log.settled();
        await cursor.seek(0);
        await within("settled", MS, settled);
        assertEquals(cursor.durable, 0);
        await log.settled();
        assertBatch(await log.read(0), 0, 50_000);
      }
    }, { maxBytes: 600_000 }));

  test("has a name of odd characters, as a log has", () =>
    withFolder(async (folder) => {
      const names = [
        ...["a b", " a ", "../../etc", "a/b", "'; DROP TABLE cursors; --", '"', "%", "%s", "\\"],
        ...["é", "🦊", "e\u0301", "\u202e", "constructor", "__proto__", "-", "x".repeat(200)],
      ];
      await withOpen(join(folder, "q"), async (queue) => {
        const shared = await queue.openLog("");
        await Promise.all(names.map((name, i) => shared.openCursor(name, i)));
        for (const name of names) await fill(await queue.openLog(name), 1, 1000);
      });
      await withOpen(join(folder, "q"), async (queue) => {
        assertEquals(queue.logs.map(({ key }) => key).sort(), ["", ...names].sort());
        const shared = await queue.openLog("");
        const cursors = shared.cursors.map(({ name, offset }) => [name, offset]);
        const expected = names.map((name, i) => [name, i]);
        assertEquals(cursors.sort(), expected.sort());
        for (const name of names) await assertHolds(await queue.openLog(name), 0, 1000, 1000);
      });
      // All of it is in the folder of the queue.
      assertEquals(readdirSync(folder), ["q"]);
      for (const name of readdirSync(join(folder, "q"))) {
        assertMatch(name, /^([0-9a-f]{16}|lock\.db|queue\.db)$/);
      }
    }));
});

test("what is appended may be a part of a larger buffer", () =>
  withQueue(async (queue) => {
    const log = await queue.openLog("");
    const large = new Uint8Array(5000);
    large.set(batchBytes(0, 3000), 100);
    await Promise.all([0, 1000, 2000].map((offset) =>
      log.append({ offset, messages: 10, bytes: large.subarray(100 + offset, 1100 + offset) })
    ));
    // It is the caller's again, and what is read is the caller's alone.
    large.fill(0);
    await assertHolds(log, 0, 3000, 1000);
    (await log.read(0))!.bytes.fill(0);
    await assertHolds(log, 0, 3000, 1000);
    const { bytes } = (await log.read(0))!;
    assertEquals([bytes.length, log.end], [1000, 3000]);
  }));
