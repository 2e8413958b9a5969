/** The durable queue in SQLite. */
import { describe, test } from "node:test";
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "#std/assert";
import { type Queue, QueueError, QueueFull, type QueueReader } from "../src/queue/queue.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { openSqliteQueue, type SqliteQueueOptions, takeBuffer } from "../src/queue/sqlite_queue.ts";
import { Program, ROOT, run } from "./process.ts";
import {
  assertBatch,
  assertHolds,
  batchAt,
  batchBytes,
  fill,
  withFolder,
} from "./queue_batches.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

const MS = 10_000;
const MIB = 1 << 20;
const WRITER = "test/fixtures/queue_writer.ts";

/** A queue for the test alone, closed whatever happens. */
async function withQueue(
  use: (queue: Queue, file: string) => Promise<void>,
  options: SqliteQueueOptions = {},
): Promise<void> {
  await withFolder(async (folder) => {
    const file = join(folder, "a.queue");
    const queue = await within("open", MS, openSqliteQueue(file, options));
    try {
      await within("the test", 60_000, use(queue, file));
    } finally {
      await within("close", MS, queue.close());
    }
  });
}

describe("a queue", () => {
  for (const sync of ["always", { intervalMs: 20 }, "off"] as const) {
    test(`holds what was appended, and gives it back: sync ${JSON.stringify(sync)}`, () =>
      withQueue(async (queue) => {
        const reader = await queue.open("a");
        assertEquals([reader.delivered, reader.tail, reader.reserved], [0, 0, 0]);
        assertEquals(await reader.read(0), null);
        await fill(reader, 20, 100_000);
        assertEquals(reader.stored, { batches: 20, bytes: 2_000_000, messages: 200 });
        assertEquals([reader.tail, reader.tailPosition], [2_000_000, 2_000_000]);
        await assertHolds(reader, 0, 2_000_000, 100_000);
        assertBatch(await reader.read(150_000), 100_000, 100_000);
      }, { sync }));
  }

  test("goes on where it was", () =>
    withFolder(async (folder) => {
      const file = join(folder, "a.queue");
      const queue = await openSqliteQueue(file);
      const first = await queue.open("a");
      assertMatch(first.stream, /^[0-9a-f]{16}$/);
      await fill(first, 10, 1000);
      first.release(3500, 42);
      await first.reserve(12_345);
      await within("close", MS, queue.close());
      assertEquals(readdirSync(folder), ["a.queue"]);

      const again = await openSqliteQueue(file);
      assertEquals(again.names, ["a"]);
      const second = await again.open("a");
      assertEquals(second.stream, first.stream);
      assertEquals([second.delivered, second.deliveredPosition], [3500, 42]);
      assertEquals([second.tail, second.tailPosition, second.reserved], [10_000, 10_000, 12_345]);
      assertEquals(second.stored, { batches: 7, bytes: 7000, messages: 70 });
      assertBatch(await second.read(0), 3000, 1000);
      await fill(second, 1, 1000);
      await assertHolds(second, 3000, 11_000, 1000);
      await within("close", MS, again.close());
    }));

  test("keeps readers apart", () =>
    withQueue(async (queue) => {
      const readers = await Promise.all(["a", "b", "c"].map((name) => queue.open(name)));
      assertEquals(new Set(readers.map(({ stream }) => stream)).size, 3);
      await Promise.all(readers.map((reader, i) => fill(reader, 5 + i, 1000)));
      readers[1]!.release(6000, 0);
      assertEquals(readers[1]!.stored, { batches: 0, bytes: 0, messages: 0 });
      await assertHolds(readers[0]!, 0, 5000, 1000);
      await assertHolds(readers[2]!, 0, 7000, 1000);
      assertEquals([readers[1]!.delivered, readers[1]!.tail], [6000, 6000]);
      assertEquals(await readers[1]!.read(6000), null);
      assertEquals([...queue.names].sort(), ["a", "b", "c"]);
      assert(await queue.open("a") === readers[0], "the same reader twice");
    }));

  test("takes buffers over, or copies", () =>
    withQueue(async (queue) => {
      const reader = await queue.open("a");
      const whole = batchBytes(0, 1000);
      const large = new Uint8Array(5000);
      large.set(batchBytes(1000, 1000), 100);
      const taken = takeBuffer(1000);
      taken.set(batchBytes(2000, 1000));
      const numbers = (offset: number) => ({ offset, messages: 10, position: offset + 1000 });
      await Promise.all([
        reader.append({ ...numbers(0), bytes: whole }),
        reader.append({ ...numbers(1000), bytes: large.subarray(100, 1100) }),
        reader.append({ ...numbers(2000), bytes: taken }),
      ]);
      assertEquals([whole.length, large.length, taken.length], [0, 5000, 0]);
      await assertHolds(reader, 0, 3000, 1000);
    }));

  test("has gaps, and starts where it is told to", () =>
    withQueue(async (queue) => {
      const reader = await queue.open("a");
      reader.release(5000, 7);
      assertEquals([reader.delivered, reader.tail, reader.tailPosition], [5000, 5000, 7]);
      // A part of it is delivered, and then all of it.
      await reader.append(batchAt(4500, 1000));
      await reader.append(batchAt(9000, 1000));
      assertBatch(await reader.read(5000), 4500, 1000);
      assertBatch(await reader.read(5500), 9000, 1000);
      reader.release(11_000, 8);
      await reader.append(batchAt(10_000, 1000));
      assertEquals(reader.stored.batches, 0);
      await fill(reader, 1, 1000);
      assertBatch(await reader.read(0), 11_000, 1000);
    }));

  test("refuses what cannot be", () =>
    withQueue(async (queue) => {
      const reader = await queue.open("a");
      await fill(reader, 2, 1000);
      const refuses = async (batch: Parameters<QueueReader["append"]>[0], message: string) => {
        const error = await assertRejects(() => reader.append(batch), QueueError);
        assertStringIncludes(error.message, message);
      };
      await refuses(batchAt(1500, 1000), "the last batch ends at 2000");
      await refuses({ ...batchAt(2000, 10), offset: -1 }, "offset must be a whole number");
      await refuses({ ...batchAt(2000, 10), bytes: new Uint8Array() }, "at least 1 byte");
      await assertRejects(() => queue.open("a\nb"), QueueError, "one line");
      await assertRejects(() => openSqliteQueue("x", { maxBytes: 0 }), RangeError, "above zero");
      await fill(reader, 1, 1000);
      await assertHolds(reader, 0, 3000, 1000);
    }));

  test("holds no more than it may, and all that comes behind waits too", () =>
    withQueue(async (queue) => {
      const [a, b] = [await queue.open("a"), await queue.open("b")];
      await fill(b, 1, 2000);
      const results = await Promise.allSettled([
        a.append(batchAt(0, 2000)),
        a.append(batchAt(2000, 2000)),
        // It would fit.
        a.append(batchAt(4000, 500)),
        b.append(batchAt(2000, 500)),
      ]);
      assertEquals(results.map(({ status }) => status), [
        "fulfilled",
        "rejected",
        "rejected",
        "fulfilled",
      ]);
      for (const result of results.slice(1, 3)) {
        const { reason } = result as PromiseRejectedResult;
        assert(reason instanceof QueueFull, String(reason));
        assertEquals(reason.reason, "max");
      }
      assertEquals(a.tail, 2000);
      a.release(2000, 2000);
      await fill(a, 1, 2000);
      await assertHolds(a, 2000, 4000, 2000);
    }, { maxBytes: 5000 }));

  test("gives space back", () =>
    withQueue(async (queue, file) => {
      const reader = await queue.open("a");
      await fill(reader, 100, MIB);
      const full = statSync(file).size;
      // The file does not grow while there are free pages.
      reader.release(40 * MIB, 0);
      await until("deleted", MS, () => reader.stored.batches === 60);
      await fill(reader, 20, MIB);
      assert(statSync(file).size <= full, "free pages were not used");
      reader.release(110 * MIB, 0);
      await until("over half of it is free", MS, () => statSync(file).size < 64 * MIB + full / 10);
      await assertHolds(reader, 110 * MIB, 120 * MIB, MIB);
      reader.release(120 * MIB, 0);
      await until("it is empty", MS, () => statSync(file).size < 3 * MIB);
      await fill(reader, 1, MIB);
      assertBatch(await reader.read(0), 120 * MIB, MIB);
    }, { sync: "off" }));

  test("closes once, after what was asked before", () =>
    withFolder(async (folder) => {
      const queue = await openSqliteQueue(join(folder, "a.queue"), {
        sync: { intervalMs: 60_000 },
      });
      const reader = await queue.open("a");
      const appended = reader.append(batchAt(0, 1000));
      const closed = [queue.close(), queue.close()];
      await within("appended", MS, appended);
      await within("closed", MS, Promise.all(closed));
      await assertRejects(() => reader.append(batchAt(1000, 1000)), QueueError, "is closed");
    }));

  test("does not keep a process alive that closed it, nor while idle", () =>
    withFolder(async (folder) => {
      for (const then of ["close", "exit", "leave"]) {
        const file = join(folder, `${then}.queue`);
        const { status, stdout, stderr } = await run(
          [WRITER, file, "always", "3", "1000", then],
        );
        assertEquals([status, stderr], [0, ""]);
        assertStringIncludes(stdout, "stored 3000");
      }
    }));
});

test("a queue needs no more than its file and the program's own folder", async (t) => {
  if (runtime !== "deno") return skip(t, "only Deno has permissions");
  await withFolder(async (folder) => {
    const file = join(folder, "a.queue");
    const permissions = [`--allow-read=${join(ROOT, "src")},${file}`, `--allow-write=${file}`];
    const args = [WRITER, file, "always", "3", "1000", "close"];
    const { status, stderr } = await run(args, { permissions });
    assertEquals([status, stderr], [0, ""]);
    const less = await run(args, { permissions: [`--allow-read=${file}`, permissions[1]!] });
    assertStringIncludes(less.stderr, "cannot read its own program: it needs --allow-read=");
  });
});

test("a queue works in a bundle, of which its thread runs nothing else", () =>
  withFolder(async (folder) => {
    const bundle = join(folder, "writer.js");
    const options = ["--bundle", "--platform=node", "--format=esm", "--target=node20"];
    const define = ["--define:import.meta.main=false", "--log-level=warning"];
    const esbuild = new Program(
      join(ROOT, "node_modules/.bin/esbuild"),
      [WRITER, ...options, ...define, `--outfile=${bundle}`],
      {},
    );
    assertEquals((await within("esbuild", 30_000, esbuild.ended)).status, 0, esbuild.stderr);
    const args = [join(folder, "a.queue"), "always", "3", "1000", "close"];
    const said = "open\nstored 1000\nstored 2000\nstored 3000\n";
    const { status, stdout, stderr } = await run([bundle, ...args], { cwd: folder });
    assertEquals([status, stdout, stderr], [0, said, ""]);
    if (runtime !== "bun") return;
    const program = join(folder, "writer");
    const compile = ["build", "--compile", "writer.js", "--outfile", program];
    const bun = new Program(process.execPath, compile, { cwd: folder });
    assertEquals((await within("bun", 30_000, bun.ended)).status, 0, bun.stderr);
    writeFileSync(bundle, "");
    args[0] = join(folder, "b.queue");
    const compiled = await within("it", MS, new Program(program, args, { cwd: folder }).ended);
    assertEquals([compiled.status, compiled.stdout, compiled.stderr], [0, said, ""]);
  }));
