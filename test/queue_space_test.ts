/** What comes out of a queue's pages, and what becomes of them once it is delivered. */
import { describe, test } from "node:test";
import { statSync } from "node:fs";
import { join } from "node:path";
import { assert, assertEquals, assertGreater, assertLess } from "#std/assert";
import { ReadAhead } from "../src/relay/read_ahead.ts";
import { closeFile, loadSqlite, openFile } from "../src/queue/sqlite_file.ts";
import { DataPages } from "../src/queue/sqlite_pages.ts";
import { openSqliteQueue } from "../src/queue/sqlite_queue.ts";
import { run, start } from "./process.ts";
import { assertBatch, batchAt, fill, withFolder } from "./queue_batches.ts";
import { until, within } from "./within.ts";

const MS = 20_000;
const MIB = 1 << 20;
/** What an empty queue's file may have. */
const EMPTY = 3 * MIB;
const WRITER = "test/fixtures/queue_writer.ts";
/** Within a leaf, at its edge, a page more or less, and of many pages. */
const LENGTHS = [1, 100, 8192, 65_400, 65_501, 65_536, 70_000, 131_072, 600_000, MIB, 2 * MIB - 7];

describe("a queue's pages", () => {
  test("hold what SQLite reads from them, in whatever order they lie", () =>
    withFolder(async (folder) => {
      const file = join(folder, "a.queue");
      const queue = await openSqliteQueue(file, { sync: "off" });
      const readers = [await queue.open("a"), await queue.open("b")];
      // Pages that are free again lie between others, and are used again.
      for (let round = 0; round < 4; round++) {
        for (const length of LENGTHS) {
          for (const reader of readers) await fill(reader, 3, length);
        }
        const { tail } = readers[0]!;
        readers[0]!.release(tail - 2 * MIB, 0);
        await until("deleted", MS, () => readers[0]!.stored.bytes < 12 * MIB);
      }
      await within("close", MS, queue.close());

      const sqlite = await loadSqlite();
      const database = openFile(sqlite, file, "off");
      const pages = DataPages.open(database, file)!;
      const into = new ArrayBuffer(MIB + 4096);
      const select = database.prepare("SELECT bytes FROM data WHERE id = ?");
      let found = 0;
      let borrowed = 0;
      for (
        const { id, length } of database.prepare("SELECT id, length(bytes) AS length FROM data")
          .all()
      ) {
        const bytes = pages.read(Number(id), Number(length), into);
        assert(bytes !== undefined, `${length} bytes were not found`);
        assertEquals(compare(bytes, select.get(id!)!.bytes as Uint8Array), 0);
        if (bytes.buffer === into) borrowed++;
        found++;
      }
      assertGreater(found, 100);
      assertGreater(borrowed, found / 2);
      assertEquals(pages.read(1e9, 100), undefined);
      assertEquals(pages.read(1, MIB * 5), undefined);
      closeFile(database);
      pages.close();
    }));

  test("are read ahead, past gaps, and up to what was appended since", () =>
    withFolder(async (folder) => {
      const queue = await openSqliteQueue(join(folder, "a.queue"), { sync: "off" });
      const reader = await queue.open("a");
      const ahead = new ReadAhead(reader);
      assertEquals(await ahead.batch(0), null);
      await fill(reader, 20, MIB);
      await reader.append(batchAt(30 * MIB, MIB));
      for (let i = 0; i < 20; i++) {
        assertBatch(await ahead.batch(i * MIB), i * MIB, MIB);
        assertBatch(await ahead.batch(i * MIB + 5), i * MIB, MIB);
      }
      assertBatch(await ahead.batch(20 * MIB), 30 * MIB, MIB);
      assertBatch(await ahead.batch(30 * MIB), 30 * MIB, MIB);
      assertEquals(await ahead.batch(31 * MIB), null);
      await fill(reader, 3, 1000);
      for (let i = 0; i < 3; i++) {
        assertBatch(await ahead.batch(31 * MIB + i * 1000), 31 * MIB + i * 1000, 1000);
      }
      // A reader that comes back.
      ahead.reset();
      assertBatch(await ahead.batch(7 * MIB + 1), 7 * MIB, MIB);
      assertBatch(await ahead.batch(3 * MIB), 3 * MIB, MIB);
      assertBatch(await ahead.batch(4 * MIB), 4 * MIB, MIB);
      await within("close", MS, queue.close());
    }));
});

describe("a queue's file", () => {
  test("is small again when all is delivered, whoever is killed in the middle", () =>
    withFolder(async (folder) => {
      const file = join(folder, "a.queue");
      const count = 150;
      const filled = await run([WRITER, file, "off", String(count), String(MIB), "close"]);
      assertEquals([filled.status, filled.stderr], [0, ""]);
      assertGreater(statSync(file).size, count * MIB);

      // Killed while it delivers, and then while it gives the space back.
      for (const from of [count / 2, count]) {
        const reader = start(["test/fixtures/queue_reader.ts", file, String(from), String(MIB)]);
        await within("delivered", MS, reader.saw(/^delivered$/m));
        reader.kill("SIGKILL");
        assertEquals((await within("killed", MS, reader.ended)).stderr, "");
      }

      const queue = await within("open", MS, openSqliteQueue(file));
      const reader = await queue.open("a");
      const first = await reader.read(0);
      for (let at = first?.offset ?? count * MIB; at < count * MIB; at += MIB) {
        assertBatch(await reader.read(at), at, MIB);
      }
      reader.release(count * MIB, 0);
      await until("it is small", MS, () => statSync(file).size < EMPTY);
      await fill(reader, 2, MIB);
      await within("close", MS, queue.close());
      const check = await run(["bin/queue.ts", "check", file]);
      assertEquals([check.status, check.stderr], [0, ""], check.stdout);
    }));

  test("is small once it is closed, however soon", () =>
    withFolder(async (folder) => {
      const file = join(folder, "a.queue");
      const queue = await openSqliteQueue(file, { sync: "off" });
      const reader = await queue.open("a");
      await fill(reader, 300, MIB);
      reader.release(300 * MIB, 42);
      await within("close", MS, queue.close());
      assertLess(statSync(file).size, EMPTY);
      const again = await openSqliteQueue(file, { sync: "off" });
      const same = await again.open("a");
      assertEquals([same.delivered, same.deliveredPosition], [300 * MIB, 42]);
      // It goes on, and gives back step by step again.
      await fill(same, 100, MIB);
      assertBatch(await same.read(350 * MIB), 350 * MIB, MIB);
      same.release(400 * MIB, 43);
      await until("it is small", MS, () => statSync(file).size < EMPTY);
      await within("close", MS, again.close());
    }));
});

function compare(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) return 1;
  return a.findIndex((byte, i) => byte !== b[i]) + 1;
}
