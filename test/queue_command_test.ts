/** The command that looks into a queue, and what it and the queue refuse. */
import { describe, test } from "node:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { Buffer } from "node:buffer";
import process from "node:process";
import { DatabaseSync } from "node:sqlite";
import {
  assert,
  assertEquals,
  assertGreater,
  assertGreaterOrEqual,
  assertLess,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "#std/assert";
import { QueueError } from "../src/queue/queue.ts";
import { type QueueStatus, queueStatus } from "../src/queue/sqlite_check.ts";
import { loadSqlite } from "../src/queue/sqlite_file.ts";
import { openSqliteQueue } from "../src/queue/sqlite_queue.ts";
import { run, start } from "./process.ts";
import { assertHolds, batchAt, batchBytes, fill, hash, withFolder } from "./queue_batches.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

const MS = 10_000;
const WRITER = "test/fixtures/queue_writer.ts";

describe("a file that is no queue", () => {
  const refused = async (file: string, message: string | RegExp) => {
    const before = existsSync(file) && statSync(file).isFile() ? hash(file) : undefined;
    const error = await assertRejects(
      () => within("open", MS, openSqliteQueue(file)),
      QueueError,
    );
    assertMatch(error.message, new RegExp(message));
    assert(!error.message.includes("\n"), "more than one line");
    if (before !== undefined) assertEquals(hash(file), before, "it was changed");
    const { status, stderr } = await run(["bin/queue.ts", "check", file]);
    assertEquals([status, stderr.trim().split("\n").length], [1, 1], stderr);
    if (before !== undefined) assertEquals(hash(file), before, "check has changed it");
  };

  test("is refused and left as it is", () =>
    withFolder(async (folder) => {
      const file = (name: string) => join(folder, name);
      await refused(folder, "is a directory");
      await refused(file("none/a.queue"), "there is no directory");
      writeFileSync(file("text"), "some text that is none of ours\n".repeat(100));
      await refused(file("text"), "is not a queue; it was not changed");
      const database = new DatabaseSync(file("other"));
      database.exec("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
      database.close();
      await refused(file("other"), "is an SQLite database but not a queue");
      await (await openSqliteQueue(file("newer"))).close();
      const newer = new DatabaseSync(file("newer"));
      newer.exec("PRAGMA user_version = 2");
      newer.close();
      await refused(
        file("newer"),
        "a queue of version 2, and this program supports only version 1",
      );
      copyFileSync(file("newer"), file("short"));
      truncateSync(file("short"), 50);
      await refused(file("short"), "is truncated");
    }));

  test("or that may not be written is refused", async (t) => {
    if (process.getuid?.() === 0) return skip(t, "root may write everything");
    await withFolder(async (folder) => {
      const file = join(folder, "a.queue");
      await (await openSqliteQueue(file)).close();
      chmodSync(file, 0o444);
      await assertRejects(() => openSqliteQueue(file), QueueError, "cannot");
    });
  });
});

describe("a queue that is open", () => {
  test("cannot be opened again, and can be looked into", () =>
    withFolder(async (folder) => {
      const file = join(folder, "a.queue");
      const writer = start(
        [WRITER, file, "always", "3", "1000", "wait"],
      );
      await within("stored", MS, writer.saw(/stored 3000/));
      const startMs = performance.now();
      await assertRejects(() => openSqliteQueue(file), QueueError, "is open in another process");
      assertLess(performance.now() - startMs, 2000);
      const check = await run(["bin/queue.ts", "check", file]);
      assertEquals([check.status, check.stdout], [1, ""]);
      assertStringIncludes(check.stderr, "is open in another process");
      const status = await run(["bin/queue.ts", "status", file, "--json"]);
      assertEquals([status.status, status.stderr], [0, ""]);
      const { open, readers } = JSON.parse(status.stdout);
      const { name, batches, bytes, messages, delivered, tail } = readers[0];
      assertEquals([open, readers.length], [true, 1]);
      assertEquals({ name, batches, bytes, messages, delivered, tail }, {
        name: "a",
        batches: 3,
        bytes: 3000,
        messages: 30,
        delivered: 0,
        tail: 3000,
      });
      // The lock goes with the process.
      writer.kill("SIGKILL");
      await within("killed", MS, writer.ended);
      const queue = await within("open", MS, openSqliteQueue(file));
      await assertRejects(
        () => openSqliteQueue(file),
        QueueError,
        "is already open in this process",
      );
      // And that has not given the lock away.
      const other = await run([WRITER, file]);
      assertEquals(other.status, 1);
      assertStringIncludes(other.stderr, "is open in another process");
      await assertHolds(await queue.open("a"), 0, 3000, 1000);
      await queue.close();
    }));
});

describe("status of a queue that is open, under load", () => {
  test("each row is whole, and none goes back: a writer that stores and releases", () =>
    withFolder(async (folder) => {
      const file = join(folder, "a.queue");
      const writer = start([WRITER, file, "off", "1000000", "20000", "churn"]);
      try {
        await within("stored", MS, writer.saw(/stored 400000\n/));
        const sqlite = await loadSqlite();
        let last = { delivered: 0, tail: 0 };
        let looks = 0;
        // For a second, and until the writer has released something.
        const end = performance.now() + 1000;
        while (performance.now() < end || looks <= 10 || last.delivered <= 400_000) {
          looks++;
          const { open, readers, damaged } = await queueStatus(sqlite, file);
          assertEquals([open, readers.length, damaged], [true, 1, 0]);
          const { name, batches, bytes, messages, delivered, tail, oldest } = readers[0]!;
          assertEquals([name, bytes, messages], ["a", batches * 20_000, batches * 10]);
          assertGreaterOrEqual(delivered, last.delivered);
          assertGreaterOrEqual(tail, last.tail);
          // It is looked up after the row: what the row tells of may be delivered by then.
          if (oldest !== undefined) {
            assertLess(Math.abs(Date.now() - Date.parse(oldest)), 60_000);
          }
          last = { delivered, tail };
        }
        assertEquals(writer.stderr, "");
      } finally {
        writer.kill("SIGKILL");
        await within("its end", MS, writer.ended);
      }
    }));

  test("as a command with no more permission than to read, beside a server and its readers", () =>
    withFolder(async (folder) => {
      const file = join(folder, "queue.db");
      const spill = ["--overflow", "spill", "--spill", file, "--sync", "off"];
      const server = start([
        ...["server.ts", "--port", "0", "--rate", "40MB/s", "--reader-id", "hello"],
        ...["--backlog", "64k", "--sndbuf", "64k", ...spill],
      ]);
      const programs = [server];
      try {
        const [, port] = await within("listening", MS, server.saw(/listening on \S+:(\d+)/));
        for (const name of ["anna", "bert"]) {
          // Some 20 MB/s at most: what it does not take goes through the disk.
          const pace = ["--read-size", "20000", "--work", "1ms", "--rcvbuf", "64k"];
          const args = [`127.0.0.1:${port}`, "--hello", name, "--ack", ...pace];
          programs.push(start(["client.ts", ...args], { timeoutMs: 60_000 }));
        }
        await within(
          "spilling",
          MS,
          server.saw(/anna: backlog[^]*bert: backlog|bert: backlog[^]*anna: backlog/),
        );
        const permissions = [`--allow-read`];
        let stored = 0;
        for (let i = 0; i < 8; i++) {
          const status = await run(["bin/queue.ts", "status", file, "--json"], { permissions });
          assertEquals([status.status, status.stderr], [0, ""]);
          const { open, readers } = JSON.parse(status.stdout) as QueueStatus;
          assertEquals([open, readers.map(({ name }) => name).sort()], [true, ["anna", "bert"]]);
          stored = Math.max(stored, ...readers.map(({ bytes }) => bytes));
        }
        assertGreater(stored, 1e6);
        const people = await run(["bin/queue.ts", "status", file], { permissions });
        assertMatch(people.stdout, /; open in another process\nreader +stored/);
        for (const args of [["check"], ["export", "--reader", "anna"], ["repair", "--apply"]]) {
          const [command, ...rest] = args;
          const refused = await run(["bin/queue.ts", command!, file, ...rest]);
          assertEquals([refused.status, refused.stdout], [1, ""]);
          const says =
            "is open in another process: only `queue status` works until that process closes it";
          assertEquals(refused.stderr, `queue: ${file} ${says}\n`);
        }
        assertEquals(server.stderr, "");
      } finally {
        for (const program of programs) program.kill("SIGKILL");
        await within("all ends", MS, Promise.all(programs.map(({ ended }) => ended)));
      }
    }));
});

describe("queue", () => {
  const queue = (...args: string[]) => run(["bin/queue.ts", ...args]);

  test("says what it can do, and what it cannot", async () => {
    const help = await queue("--help");
    assertEquals(help.status, 0);
    assertStringIncludes(help.stdout, "queue.ts repair FILE [OPTIONS]");
    for (
      const [args, message] of [
        [[], "no command: must be status, check, export or repair"],
        [["stats", "x"], 'COMMAND "stats" must be status, check, export or repair'],
        [["status"], "no FILE: which queue?"],
        [["status", "x", "--jsno"], 'unknown option "--jsno"; did you mean --json?'],
      ] as const
    ) {
      const { status, stdout, stderr } = await queue(...args);
      assertEquals([status, stdout], [2, ""]);
      assertStringIncludes(stderr, `queue: ${message}`);
    }
    const { status, stderr } = await queue("status", "nowhere.queue");
    assertEquals([status, stderr], [1, "queue: there is no queue nowhere.queue\n"]);
  });

  test("tells, checks and exports", () =>
    withFolder(async (folder) => {
      const file = join(folder, "a.queue");
      const made = await openSqliteQueue(file);
      await fill(await made.open("a"), 5, 100_000);
      const other = await made.open("other");
      await fill(other, 3, 1000);
      await other.append(batchAt(5000, 1000));
      other.release(1000, 0);
      await made.close();

      const status = await queue("status", file);
      assertMatch(
        status.stdout,
        /not open\nreader +stored +messages +batches +delivered +oldest\n/,
      );
      assertMatch(status.stdout, /\na +500 kB +50 +5 +0 +20\d\d-\S+\nother +3.00 kB +30 +3 +1000 /);
      const check = await queue("check", file);
      assertEquals([check.status, check.stderr], [0, ""]);
      assertMatch(
        check.stdout,
        /gap: reader "other", 2000 bytes at offset 3000 are not stored\nno damage: 8/,
      );

      const which = await queue("export", file);
      assertEquals(which.status, 2);
      assertStringIncludes(which.stderr, "has 2 readers: choose one with --reader: a, other");
      const out = join(folder, "out");
      const exported = await queue("export", file, "--reader", "a", "--out", out);
      assertEquals([exported.status, exported.stdout], [0, ""], exported.stderr);
      assertEquals(exported.stderr, "exported 5 batches, 500 kB, 50 messages\n");
      const parts = Array.from({ length: 5 }, (_, i) => batchBytes(i * 100_000, 100_000));
      assertEquals(readFileSync(out), Buffer.concat(parts));
      const again = await queue("export", file, "--reader", "a", "--out", out);
      assertEquals(again.status, 1);
      assertStringIncludes(again.stderr, "it exists already, and must be a new file");
      const gap = await queue("export", file, "--reader", "other", "--out", join(folder, "gap"));
      assertEquals(gap.stderr.split("\n")[0], "missing: 2000 bytes at offset 3000");
      const piped = await queue("export", file, "--reader", "other");
      assertEquals(Buffer.byteLength(piped.stdout) > 0, true);
      const repair = await queue("repair", file);
      assertEquals([repair.status, repair.stdout], [
        0,
        "no damage: there is nothing to repair\n",
      ]);
    }));
});
