/** The command that looks into a queue and changes it, and what it and the queue refuse. */
import { describe, test } from "node:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { Buffer } from "node:buffer";
import process from "node:process";
import { DatabaseSync } from "node:sqlite";
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "#std/assert";
import { openDiskQueue } from "../src/queue/disk_queue.ts";
import { checkQueue, queueStatus } from "../src/queue/inspect.ts";
import { QueueError } from "../src/queue/queue.ts";
import { loadSqlite } from "../src/queue/sqlite.ts";
import { run } from "./process.ts";
import { batchAt, batchBytes, fill, hashes, withFolder, withOpen } from "./queue_batches.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

const MS = 10_000;
const LENGTH = 1000;

const queue = (...args: string[]) => run(["bin/queue.ts", ...args]);

describe("a folder or file that is no queue", () => {
  const refused = async (path: string, message: RegExp) => {
    const before = existsSync(path) ? hashes(path) : undefined;
    const error = await assertRejects(
      () => within("open", MS, openDiskQueue(path)),
      QueueError,
    );
    assertMatch(error.message, message);
    assert(!error.message.includes("\n"), "more than one line");
    const sqlite = await loadSqlite();
    await assertRejects(() => checkQueue(sqlite, path), QueueError);
    if (before !== undefined) assertEquals(hashes(path), before, "it was changed");
    else assert(!existsSync(path), "it was made");
  };

  test("is refused and left as it is", () =>
    withFolder(async (parent) => {
      const path = (...names: string[]) => join(parent, ...names);
      await refused(
        path("none", "queue"),
        /cannot create the queue \S+: there is no folder \S+none$/,
      );
      writeFileSync(path("text"), "some text that is none of ours\n".repeat(100));
      await refused(path("text"), /text is a file; a queue is a folder; it was not changed$/);
      writeFileSync(path("empty"), "");
      await refused(path("empty"), /empty is a file; a queue is a folder/);
      const database = new DatabaseSync(path("other.db"));
      database.exec("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
      database.close();
      await refused(path("other.db"), /other\.db is a file; a queue is a folder/);
      mkdirSync(path("folder", "0123456789abcdef"), { recursive: true });
      writeFileSync(path("folder", "a file"), "text");
      await refused(
        path("folder"),
        /is a folder with other files, not a queue; it was not changed$/,
      );
      symlinkSync(path("nowhere"), path("link"));
      const error = await assertRejects(() => openDiskQueue(path("link")), QueueError);
      assertMatch(error.message, /link is a symbolic link to something that does not exist$/);
      if (existsSync("/dev/null")) {
        await assertRejects(() => openDiskQueue("/dev/null"), QueueError, "is not a folder");
      }
    }));

  test("is refused by every command, in one line", () =>
    withFolder(async (folder) => {
      writeFileSync(join(folder, "a file"), "text");
      const before = hashes(folder);
      for (
        const [command, ...args] of [
          ...[["status"], ["check"], ["export"], ["repair"], ["repair", "--apply"]],
          ...[["forget", "a"], ["seek", "a", "now"]],
        ] as [string, ...string[]][]
      ) {
        const none = join(folder, "none");
        const nothing = await queue(command, none, ...args);
        assertEquals([nothing.status, nothing.stdout], [1, ""]);
        assertEquals(nothing.stderr, `queue: there is no queue ${none}\n`);
        const other = await queue(command, folder, ...args);
        assertEquals([other.status, other.stdout], [1, ""]);
        assertMatch(
          other.stderr,
          /^queue: \S+ is a folder with other files, not a queue; [^\n]*\n$/,
        );
      }
      assertEquals(hashes(folder), before);
    }));

  test("or that may not be written is refused", async (t) => {
    if (process.getuid?.() === 0) return skip(t, "root may write everything");
    await withFolder(async (parent) => {
      const folder = join(parent, "queue");
      await withOpen(folder, async (opened) => fill(await opened.openLog(""), 1, LENGTH));
      chmodSync(folder, 0o555);
      await assertRejects(() => openDiskQueue(folder), QueueError, "cannot");
      chmodSync(folder, 0o700);
    });
  });

  test("can be an empty folder, or one that was just begun", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "queue");
      mkdirSync(folder);
      await withOpen(folder, async (opened) => fill(await opened.openLog(""), 1, LENGTH));
      const begun = join(parent, "begun");
      mkdirSync(begun);
      writeFileSync(join(begun, "lock.db"), "");
      await withOpen(begun, async (opened) => fill(await opened.openLog(""), 1, LENGTH));
    }));
});

/** A queue with two readers of a shared stream, with a gap, and one with a stream of its own. */
async function withMade(use: (folder: string) => Promise<void>): Promise<void> {
  await withFolder(async (parent) => {
    const folder = join(parent, "queue");
    await withOpen(folder, async (opened) => {
      const shared = await opened.openLog("");
      const [a] = [await shared.openCursor("a", 0), await shared.openCursor("b", 3500)];
      await a.setAcknowledges();
      await fill(shared, 3, LENGTH);
      await shared.append(batchAt(5000, LENGTH));
      const own = await opened.openLog("own one");
      await own.openCursor("own one", 0);
      await fill(own, 5, 100_000);
    });
    await use(folder);
  });
}

describe("queue", () => {
  test("says what it can do, and what it cannot", async () => {
    const help = await queue("--help");
    assertEquals(help.status, 0);
    assertStringIncludes(help.stdout, "queue.ts repair FOLDER");
    for (
      const [args, message] of [
        [[], "no command: must be status, check, export, forget, seek, repair"],
        [["stats", "x"], 'COMMAND "stats" must be status, check, export, forget, seek or repair'],
        [["status"], "no FOLDER: which queue?"],
        [["status", "x", "--jsno"], 'unknown option "--jsno"; did you mean --json?'],
        [["forget", "x"], "no NAME: which reader?"],
        [["seek", "x", "a"], "no NAME or no place"],
        [["seek", "x", "a", "then"], 'PLACE "then" must be now, oldest or an offset in bytes'],
        [["seek", "x", "a", "1.5"], 'PLACE "1.5" must be now, oldest or an offset in bytes'],
      ] as const
    ) {
      const { status, stdout, stderr } = await queue(...args);
      assertEquals([status, stdout], [2, ""], stderr);
      assertStringIncludes(stderr, `queue: ${message}`);
    }
  });

  test("tells of a queue that is just being made, or was not finished", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "queue");
      mkdirSync(folder);
      writeFileSync(join(folder, "lock.db"), "");
      const begun = await queue("status", folder);
      assertEquals([begun.status, begun.stdout], [1, ""]);
      assertMatch(begun.stderr, /^queue: the queue \S+ is not made yet: [^\n]+\n$/);
      const database = new DatabaseSync(join(folder, "queue.db"));
      for (
        const made of ["", "PRAGMA journal_mode = WAL", "BEGIN IMMEDIATE; CREATE TABLE logs (a)"]
      ) {
        database.exec(made);
        const { status, stdout, stderr } = await queue("status", folder);
        assertEquals([status, stderr], [0, ""], made);
        assertEquals(
          stdout,
          `${folder}: 0 B on disk; not open\nempty: no server has stored anything yet\n`,
        );
      }
      database.close();
    }));

  test("tells where a stream goes on of which nothing is stored", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "queue");
      const made = await openDiskQueue(folder, { sync: "off" });
      const log = await made.openLog("");
      const cursor = await log.openCursor("a", 0);
      await log.append({ offset: 0, bytes: new Uint8Array(1000), messages: 10 });
      cursor.release(1000);
      await log.settled();
      await made.close();
      const { stdout } = await queue("status", folder);
      assertMatch(stdout, /^all readers +[0-9a-f]{16} +0 B +0 +1000-1000 +-$/m);
    }));

  test("tells, checks and exports", () =>
    withMade(async (folder) => {
      const before = hashes(folder);
      const status = await queue("status", folder);
      assertEquals([status.status, status.stderr], [0, ""]);
      const lines = status.stdout.trimEnd().split("\n");
      assertMatch(lines[0]!, /queue: 504 kB on disk; not open$/);
      assertMatch(lines[1]!, /^stream of +stream +on disk +segments +offsets +oldest$/);
      assertMatch(status.stdout, /^all readers +[0-9a-f]{16} +4\.16 kB +1 +0-6000 +20\d\d-\S+$/m);
      assertMatch(status.stdout, /^own one +[0-9a-f]{16} +500 kB +1 +0-500000 +20\d\d-\S+$/m);
      assertMatch(status.stdout, /^reader +stored +messages +delivered +acknowledges$/m);
      assertMatch(status.stdout, /^a +4\.00 kB +40 +0 +yes$/m);
      assertMatch(status.stdout, /^b +1\.00 kB +10 +3500 +no$/m);
      assertMatch(status.stdout, /^own one +500 kB +50 +0 +no$/m);
      const check = await queue("check", folder);
      assertEquals([check.status, check.stderr], [0, ""]);
      assertEquals(check.stdout, "no damage: 9 batches, 504 kB\n");

      const which = await queue("export", folder);
      assertEquals(which.status, 2);
      assertStringIncludes(which.stderr, "has 3 readers: choose one with --reader: a, b, own one");
      const out = `${folder}.out`;
      const exported = await queue("export", folder, "--reader", "own one", "--out", out);
      assertEquals([exported.status, exported.stdout], [0, ""], exported.stderr);
      assertEquals(exported.stderr, "exported 5 batches, 500 kB\n");
      const parts = Array.from({ length: 5 }, (_, i) => batchBytes(i * 100_000, 100_000));
      assertEquals(Buffer.compare(readFileSync(out), Buffer.concat(parts)), 0);
      const again = await queue("export", folder, "--reader", "own one", "--out", out);
      assertEquals(again.status, 1);
      assertStringIncludes(again.stderr, "it exists already, and must be a new file");
      const gap = await queue("export", folder, "--reader", "a", "--out", `${folder}.gap`);
      assertEquals(
        gap.stderr,
        "missing: 2000 bytes from offset 3000 on: they are not stored\n" +
          "exported 4 batches, 4.00 kB\n",
      );
      assertEquals(statSync(`${folder}.gap`).size, 4000);
      const unknown = await queue("export", folder, "--reader", "c");
      assertEquals(unknown.status, 1);
      assertStringIncludes(unknown.stderr, 'has no reader "c": it has a, b, own one');
      const piped = await queue("export", folder, "--reader", "a");
      assertEquals(Buffer.byteLength(piped.stdout) > 0, true);
      const repair = await queue("repair", folder, "--apply");
      assertEquals([repair.status, repair.stdout], [
        0,
        "no damage: there is nothing to repair\n",
      ]);
      assertEquals(hashes(folder), before, "it was changed");
    }));

  test("counts messages that belong to the bytes, also in the middle of a batch", () =>
    withMade(async (folder) => {
      const counts: [offset: number, bytes: number, messages: number][] = [
        ...[[999, 3001, 31], [1000, 3000, 30], [1234, 2766, 28], [1500, 2500, 25]],
        ...[[3000, 1000, 10], [5900, 100, 1], [5999, 1, 1], [6000, 0, 0]],
      ] as [number, number, number][];
      for (const [offset, bytes, messages] of counts) {
        await withOpen(folder, async (opened) => {
          const { cursors } = await opened.openLog("");
          await cursors.find(({ name }) => name === "a")!.seek(offset);
        });
        const { readers } = await queueStatus(await loadSqlite(), folder);
        const a = readers.find(({ name }) => name === "a")!;
        assertEquals([a.delivered, a.bytes, a.messages], [offset, bytes, messages]);
      }
    }));

  test("exports a batch that is delivered in part: from an acknowledged offset on, or all of it", () =>
    withMade(async (folder) => {
      await withOpen(folder, async (opened) => {
        const shared = await opened.openLog("");
        await shared.openCursor("plain", 0);
        for (const cursor of shared.cursors) if (cursor.name !== "b") cursor.release(1234);
      });
      const said = "begins at offset 1000, where a message is known to begin: the reader has " +
        "received the first 234 bytes\n";
      for (const [name, from, first] of [["a", 1234, ""], ["plain", 1000, said]] as const) {
        const out = `${folder}.${name}`;
        const { status, stderr } = await queue("export", folder, "--reader", name, "--out", out);
        const bytes = Buffer.concat([batchBytes(from, 3000 - from), batchBytes(5000, 1000)]);
        assertEquals(Buffer.compare(readFileSync(out), bytes), 0);
        const missing = "missing: 2000 bytes from offset 3000 on: they are not stored\n";
        const count = `exported 3 batches, ${(bytes.length / 1000).toFixed(2)} kB\n`;
        assertEquals([status, stderr], [0, `${first}${missing}${count}`]);
      }
    }));

  test("forgets a reader, and what only it needs is deleted", () =>
    withMade(async (folder) => {
      const before = hashes(join(folder, "queue.db"));
      const wrong = await queue("forget", folder, "A");
      assertEquals([wrong.status, wrong.stdout], [1, ""]);
      assertEquals(wrong.stderr, `queue: ${folder} has no reader "A": it has a, b, own one\n`);
      assertEquals(Object.keys(hashes(join(folder, "queue.db"))), Object.keys(before));
      for (const name of ["a", "own one"]) {
        const { status, stdout, stderr } = await queue("forget", folder, name);
        assertEquals([status, stdout, stderr], [0, `forgotten: ${name}\n`, ""]);
      }
      await withOpen(folder, async (opened) => {
        const shared = await opened.openLog("");
        assertEquals(shared.cursors.map(({ name }) => name), ["b"]);
        shared.cursors[0]!.release(6000);
        await shared.settled();
        assertEquals(shared.segments, 0);
        const own = await opened.openLog("own one");
        assertEquals(own.cursors, []);
        await own.settled();
        assertEquals(own.segments, 0);
      });
      assertEquals((await queue("forget", folder, "b")).status, 0);
      const none = await queue("forget", folder, "b");
      assertEquals(none.stderr, `queue: ${folder} has no reader "b": it has none\n`);
      assertMatch((await queue("status", folder)).stdout, /\nno readers yet\n$/);
    }));

  test("seeks: to the end, to the oldest message, or to an offset", () =>
    withMade(async (folder) => {
      for (
        const [name, place, offset] of [
          ["a", "now", 6000],
          ["a", "oldest", 0],
          ["b", "oldest", 0],
          ["b", "5000", 5000],
          // Only at the start of a batch is a message known to begin.
          ["a", "1999", 1000],
          ["own one", "123456", 100_000],
          // Between two batches nothing is stored.
          ["a", "4000", 5000],
          ["a", "0", 0],
          ["own one", "500000", 500_000],
        ] as const
      ) {
        const { status, stdout, stderr } = await queue("seek", folder, name, place);
        const said = `${name}: is sent its messages from offset ${offset} on\n`;
        assertEquals([status, stdout, stderr], [0, said, ""]);
      }
      for (
        const [name, place, message] of [
          [
            "a",
            "6001",
            "a cannot be moved to offset 6001: the queue has its messages from 0 to 6000",
          ],
          ["own one", "999999999999999", "own one cannot be moved to offset 999999999999999: "],
          ["c", "now", `${folder} has no reader "c": it has a, b, own one`],
        ] as const
      ) {
        const { status, stdout, stderr } = await queue("seek", folder, name, place);
        assertEquals([status, stdout], [1, ""]);
        assertStringIncludes(stderr, `queue: ${message}`);
        assertEquals(stderr.trimEnd().split("\n").length, 1);
      }
      await withOpen(folder, async (opened) => {
        const shared = await opened.openLog("");
        const places = shared.cursors.map((cursor) => [
          ...[cursor.name, cursor.offset, cursor.acknowledges],
        ]);
        assertEquals(places.sort(), [["a", 0, true], ["b", 5000, false]]);
        assertEquals((await opened.openLog("own one")).cursors[0]!.offset, 500_000);
      });
    }));

  test("leaves nothing behind in a queue that only it has opened", () =>
    withMade(async (folder) => {
      const names = readdirSync(folder).sort();
      for (
        const args of [["status"], ["check"], ["repair"], ["seek", "a", "now"], ["forget", "a"]]
      ) {
        const [command, ...rest] = args;
        assertEquals((await queue(command!, folder, ...rest)).status, 0);
        assertEquals([command, readdirSync(folder).sort()], [command, names]);
      }
      rmSync(folder, { recursive: true });
    }));
});
