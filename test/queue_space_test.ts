/** The disk space of a queue: segments are begun, deleted once they are delivered, and limited. */
import { describe, test } from "node:test";
import { existsSync, readdirSync, readlinkSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import {
  assert,
  assertEquals,
  assertGreater,
  assertGreaterOrEqual,
  assertLess,
  assertLessOrEqual,
  assertRejects,
} from "#std/assert";
import { type Log, QueueFull } from "../src/queue/queue.ts";
import { ReadAhead } from "../src/relay/read_ahead.ts";
import { run, start } from "./process.ts";
import {
  assertBatch,
  assertHolds,
  batchAt,
  fill,
  offsetsOf,
  segmentFiles,
  withFolder,
  withOpen,
  withQueue,
} from "./queue_batches.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

const MS = 20_000;
const MIB = 1 << 20;
const WRITER = "test/fixtures/queue_writer.ts";
/** Segments of 64 KiB, the shortest. */
const SHORT = { maxBytes: 512 * 1024 };
const LENGTH = 40_000;

/** Each in a write of its own: two of them fill one of the shortest segments. */
async function fillSlowly(log: Log, count: number, length = LENGTH): Promise<void> {
  for (let i = 0; i < count; i++) await fill(log, 1, length);
}

/** What the files of its segments have. */
const bytesOf = (folder: string, log: Log) =>
  segmentFiles(folder, log).reduce((sum, file) => sum + statSync(file).size, 0);

describe("segments", () => {
  test("are begun one after the other, and read as one log", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "q");
      await withOpen(folder, async (queue) => {
        const log = await queue.openLog("");
        await fillSlowly(log, 9);
        assertEquals([log.segments, log.start, log.end], [5, 0, 9 * LENGTH]);
        const names = segmentFiles(folder, log).map((file) => file.split("/").at(-1));
        assertEquals(
          names,
          [0, 2, 4, 6, 8].map((i) => `${String(i * LENGTH).padStart(16, "0")}.segment`),
        );
        assertEquals(log.bytes, bytesOf(folder, log));
        await assertHolds(log, 0, 9 * LENGTH, LENGTH);
      }, SHORT);
      await withOpen(folder, async (queue) => {
        const log = await queue.openLog("");
        assertEquals([log.segments, log.start, log.end], [5, 0, 9 * LENGTH]);
        assertEquals(log.bytes, bytesOf(folder, log));
        assertBatch(await log.read(5 * LENGTH + 7), 5 * LENGTH, LENGTH);
        await assertHolds(log, 0, 9 * LENGTH, LENGTH);
        await fillSlowly(log, 2);
        assertEquals([log.segments, log.end], [6, 11 * LENGTH]);
        await assertHolds(log, 0, 11 * LENGTH, LENGTH);
      }, SHORT);
    }));

  test("are deleted once every reader has them, and that is recorded", () =>
    withQueue(async (queue, folder) => {
      const log = await queue.openLog("");
      const [a, b] = [await log.openCursor("a", 0), await log.openCursor("b", 0)];
      await fillSlowly(log, 10);
      a.release(10 * LENGTH);
      await log.settled();
      assertEquals([log.segments, log.start], [5, 0]);
      b.release(4 * LENGTH - 1);
      await log.settled();
      assertEquals([log.segments, log.start], [4, 2 * LENGTH]);
      b.release(4 * LENGTH);
      assertEquals(log.start, 2 * LENGTH, "before it was recorded");
      await log.settled();
      assertEquals([log.segments, log.start], [3, 4 * LENGTH]);
      assertEquals(log.bytes, bytesOf(folder, log));
      // What was delivered is gone: the first that is left.
      assertBatch(await log.read(0), 4 * LENGTH, LENGTH);
      b.release(9 * LENGTH);
      await log.settled();
      assertEquals([log.segments, log.start], [1, 8 * LENGTH]);
      b.release(10 * LENGTH);
      await log.settled();
      assertEquals([log.segments, log.bytes, log.start, log.end], [
        ...[0, 0, 10 * LENGTH, 10 * LENGTH],
      ]);
      assertEquals(log.durableEnd, log.end);
      assertEquals(readdirSync(join(folder, log.stream)), ["key"]);
      assertEquals(await log.read(0), null);
    }, SHORT));

  test("go with a reader that is forgotten, and stay for one that never came back", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "q");
      await withOpen(folder, async (queue) => {
        const log = await queue.openLog("");
        await (await log.openCursor("a", 0)).seek(0);
        await log.openCursor("b", 0);
        await fillSlowly(log, 4);
        log.cursors[0]!.release(4 * LENGTH);
        await log.settled();
        assertEquals(log.segments, 2);
      }, SHORT);
      await withOpen(folder, async (queue) => {
        const log = await queue.openLog("");
        await log.settled();
        assertEquals(log.segments, 2);
        await log.cursors.find(({ name }) => name === "b")!.forget();
        assertEquals([log.segments, log.start, log.end], [0, 4 * LENGTH, 4 * LENGTH]);
      }, SHORT);
    }));

  test("are gone when all is delivered, and offsets go on, also after opening it again", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "q");
      let end = 0;
      for (let round = 0; round < 4; round++) {
        await withOpen(folder, async (queue) => {
          const log = await queue.openLog("");
          assertEquals([log.start, log.end, log.durableEnd, log.bytes], [end, end, end, 0]);
          const cursor = await log.openCursor("a", 0);
          assertEquals(cursor.offset, end);
          for (let i = 0; i < 2; i++) {
            await fillSlowly(log, 3 + round);
            end += (3 + round) * LENGTH;
            await assertHolds(log, cursor.offset, end, LENGTH);
            cursor.release(end);
            await log.settled();
            assertEquals([log.segments, log.start, log.end], [0, end, end]);
            assertEquals(segmentFiles(folder, log), []);
          }
        }, SHORT);
      }
    }));

  test("stay until a first reader that needs none of them is recorded", () =>
    withQueue(async (queue) => {
      const log = await queue.openLog("");
      await fillSlowly(log, 4);
      const settling = log.settled();
      const opening = log.openCursor("new", log.end);
      await settling;
      assertEquals([log.start, log.segments > 0], [0, true]);
      await opening;
      await log.settled();
      assertEquals([log.start, log.segments], [log.end, 0]);
    }, SHORT));

  test("that are being written are not deleted, whatever is delivered meanwhile", () =>
    withQueue(async (queue) => {
      const log = await queue.openLog("");
      const cursor = await log.openCursor("a", 0);
      const appends: Promise<void>[] = [];
      let offset = 0;
      for (let i = 0; i < 300; i++) {
        const at = offset;
        appends.push(log.append(batchAt(at, 1000)).then(() => cursor.release(at + 1000)));
        offset += 1000;
        if (i % 3 === 0) appends.push(log.settled());
        if (i % 7 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      await within("all", MS, Promise.all(appends));
      await fill(log, 1, 1000);
      assertBatch(await log.read(300_000), 300_000, 1000);
      cursor.release(log.end);
      await log.settled();
      assertEquals([log.segments, log.end], [0, 301_000]);
    }, { sync: { intervalMs: 1 } }));

  test("are dropped though a reader needs them, the oldest first", () =>
    withQueue(async (queue, folder) => {
      const log = await queue.openLog("");
      const cursor = await log.openCursor("a", 0);
      await fillSlowly(log, 6);
      assertEquals(await log.dropOldest(), 2 * LENGTH);
      assertEquals([log.start, log.segments, cursor.offset], [2 * LENGTH, 2, 0]);
      assertBatch(await log.read(0), 2 * LENGTH, LENGTH);
      assertEquals(log.bytes, bytesOf(folder, log));
      await log.dropOldest();
      assertEquals(await log.dropOldest(), 6 * LENGTH);
      assertEquals([log.start, log.end, log.segments], [6 * LENGTH, 6 * LENGTH, 0]);
      assertEquals(await log.dropOldest(), 6 * LENGTH);
      await fillSlowly(log, 1);
      assertBatch(await log.read(0), 6 * LENGTH, LENGTH);
    }, SHORT));
});

describe("a limit", () => {
  test("holds for all logs together; there is room again after what was delivered", () =>
    withQueue(async (queue, folder) => {
      const [a, b] = [await queue.openLog("a"), await queue.openLog("b")];
      const cursor = await a.openCursor("a", 0);
      await b.openCursor("b", 0);
      const refused = async (log: Log) => {
        const error = await assertRejects(() => log.append(batchAt(log.end, LENGTH)), QueueFull);
        assertEquals(error.reason, "max");
        assertEquals(error.message, `the queue ${folder} holds as much as it may`);
      };
      await fillSlowly(b, 4);
      await fillSlowly(a, 9);
      for (let round = 0; round < 5; round++) {
        await refused(a);
        await refused(b);
        assertLessOrEqual(bytesOf(folder, a) + bytesOf(folder, b), SHORT.maxBytes);
        cursor.release(cursor.offset + 2 * LENGTH);
        await a.settled();
        await fillSlowly(a, 2);
      }
      assertEquals(await offsetsOf(b, LENGTH), [0, 1, 2, 3].map((i) => i * LENGTH));
      await assertHolds(a, 10 * LENGTH, 19 * LENGTH, LENGTH);
      // And after what was dropped.
      await refused(b);
      await a.dropOldest();
      await fillSlowly(b, 1);
    }, SHORT));

  test("is the same after opening it again, and a lower one counts at once", () =>
    withFolder(async (folder) => {
      const use = (maxBytes: number, use: (log: Log) => Promise<void>) =>
        withOpen(join(folder, "q"), async (queue) => await use(await queue.openLog("")), {
          maxBytes,
        });
      await use(MIB, async (log) => {
        assertEquals(log.largestBatch, MIB / 8);
        await log.openCursor("a", 0);
        await fillSlowly(log, 10, 100_000);
        await assertRejects(() => log.append(batchAt(log.end, 100_000)), QueueFull);
        await fill(log, 1, 40_000);
      });
      await use(MIB, async (log) => {
        await assertRejects(() => log.append(batchAt(log.end, 10_000)), QueueFull);
        await assertHolds(log, 0, 1_000_000, 100_000).catch(() => {});
      });
      await use(MIB / 2, async (log) => {
        await assertRejects(() => log.append(batchAt(log.end, 1)), QueueFull);
        log.cursors[0]!.release(1_000_000);
        await log.settled();
        await fill(log, 1, 10_000);
        assertBatch(await log.read(1_000_000), 1_000_000, 40_000);
      });
      await use(10 * MIB, (log) => fill(log, 50, 100_000));
    }));

  for (const [name, maxBytes] of [["1M", MIB], ["64K", 65_536], ["300 bytes", 300]] as const) {
    test(`may be small: ${name} holds nearly that, again and again`, () =>
      withQueue(async (queue, folder) => {
        const log = await queue.openLog("");
        const cursor = await log.openCursor("a", 0);
        const length = Math.min(10_000, Math.floor(maxBytes / 4));
        for (let round = 0; round < 3; round++) {
          const before = log.end;
          let full: unknown;
          while (full === undefined) {
            await log.append(batchAt(log.end, length)).catch((error) => full = error);
          }
          assert(full instanceof QueueFull, String(full));
          assertEquals(full.reason, "max");
          const bytes = bytesOf(folder, log);
          assertLessOrEqual(bytes, maxBytes);
          assertGreater(bytes, maxBytes - length - 100);
          await assertHolds(log, before, log.end, length);
          cursor.release(log.end);
          await log.settled();
          assertEquals([log.bytes, bytesOf(folder, log)], [0, 0]);
        }
      }, { maxBytes, sync: "off" }));
  }

  test("of no use to a batch that is longer leaves the queue as it is", () =>
    withQueue(async (queue) => {
      const log = await queue.openLog("");
      await fillSlowly(log, 2);
      for (let i = 0; i < 3; i++) {
        await assertRejects(() => log.append(batchAt(log.end, 600_000)), QueueFull);
      }
      await fillSlowly(log, 2);
      await assertHolds(log, 0, 4 * LENGTH, LENGTH);
    }, SHORT));
});

describe("reading", () => {
  test("of segments that are deleted meanwhile gives those that are left", () =>
    withQueue(async (queue, folder) => {
      const log = await queue.openLog("");
      const cursor = await log.openCursor("a", 0);
      for (let round = 0; round < 15; round++) {
        const from = log.end;
        await fillSlowly(log, 10);
        const reads: Promise<void>[] = [];
        for (let i = 0; i < 40; i++) {
          const at = from + (i % 10) * LENGTH;
          reads.push(
            log.read(at).then((batch) => {
              if (batch === null) return;
              assertBatch(batch, batch.offset, LENGTH);
              assertGreaterOrEqual(batch.offset, at);
            }),
          );
          if (i % 10 === 5) {
            cursor.release(from + (round % 5 + i / 10) * 2 * LENGTH);
            reads.push(log.settled());
          }
          if (i % 4 === round % 4) await new Promise((resolve) => setImmediate(resolve));
        }
        await within("reads", MS, Promise.all(reads));
        const left = await log.read(0);
        assertEquals(left?.offset ?? log.end, log.start);
        cursor.release(log.end);
        await log.settled();
        assertEquals(log.segments, 0);
      }
      assertEquals(openSegments(folder), []);
    }, { ...SHORT, sync: "off" }));

  test("of many at once, from segments that nobody has read since it was opened", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "q");
      await withOpen(folder, async (queue) => fillSlowly(await queue.openLog(""), 12), SHORT);
      const damages: unknown[] = [];
      for (let round = 0; round < 5; round++) {
        await withOpen(folder, async (queue) => {
          const log = await queue.openLog("");
          await Promise.all(Array.from({ length: 48 }, async (_, i) => {
            const at = (i % 12) * LENGTH + i;
            assertBatch(await log.read(at), (i % 12) * LENGTH, LENGTH);
          }));
          await Promise.all([1, 2, 3].map(async () => {
            const all = Array.from({ length: 12 }, (_, i) => i * LENGTH);
            assertEquals(await offsetsOf(log, LENGTH), all);
          }));
        }, { ...SHORT, onDamage: (damage) => damages.push(damage) });
      }
      assertEquals(damages, []);
    }));

  test("ahead goes past gaps, and up to what was appended since", () =>
    withQueue(async (queue) => {
      const log = await queue.openLog("");
      const ahead = new ReadAhead(log);
      assertEquals(await ahead.batch(0), null);
      await fill(log, 20, MIB);
      await log.append(batchAt(30 * MIB, MIB));
      for (let i = 0; i < 20; i++) {
        assertBatch(await ahead.batch(i * MIB), i * MIB, MIB);
        assertBatch(await ahead.batch(i * MIB + 5), i * MIB, MIB);
      }
      assertBatch(await ahead.batch(20 * MIB), 30 * MIB, MIB);
      assertBatch(await ahead.batch(30 * MIB), 30 * MIB, MIB);
      assertEquals(await ahead.batch(31 * MIB), null);
      await fill(log, 3, 1000);
      for (let i = 0; i < 3; i++) {
        assertBatch(await ahead.batch(31 * MIB + i * 1000), 31 * MIB + i * 1000, 1000);
      }
      // A reader that comes back.
      ahead.stop();
      const again = new ReadAhead(log);
      assertBatch(await again.batch(7 * MIB + 1), 7 * MIB, MIB);
      assertBatch(await again.batch(8 * MIB), 8 * MIB, MIB);
      again.stop();
    }, { sync: "off" }));
});

/** The segment files that this process has open. */
function openSegments(folder: string): string[] {
  if (!existsSync("/proc/self/fd")) return [];
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`);
      return path.startsWith(folder) && path.includes(".segment") ? [path] : [];
    } catch {
      return [];
    }
  });
}

test("a queue is small again when all is delivered, whoever is killed in the middle", (t) =>
  withFolder(async (parent) => {
    if (!existsSync("/proc/self/fd")) return skip(t, "there is no /proc here");
    const folder = join(parent, "q");
    const count = 150;
    const max = String(256 * MIB);
    const filled = await run([WRITER, folder, "off", String(count), String(MIB), "close", max]);
    assertEquals([filled.status, filled.stderr], [0, ""]);

    // Killed while it delivers, and then while it deletes what is delivered.
    for (const from of [count / 2, count]) {
      const args = ["test/fixtures/queue_reader.ts", folder, String(from), String(MIB), max];
      const reader = start(args);
      await within("delivered", MS, reader.saw(/^delivered$/m));
      reader.kill("SIGKILL");
      assertEquals((await within("killed", MS, reader.ended)).stderr, "");
    }
    await withOpen(folder, async (queue) => {
      const log = await queue.openLog("");
      assertLess(log.bytes, 65 * MIB);
      await offsetsOf(log, MIB);
      assertLessOrEqual(log.end, count * MIB);
      log.cursors[0]!.release(count * MIB);
      await log.settled();
      assertEquals([log.segments, segmentFiles(folder, log)], [0, []]);
      assertEquals(log.end, count * MIB);
      await fill(log, 2, MIB);
      assertBatch(await log.read(0), count * MIB, MIB);
    });
    const check = await run(["bin/queue.ts", "check", folder]);
    assertEquals([check.status, check.stderr], [0, ""], check.stdout);
    rmSync(folder, { recursive: true });
  }));
