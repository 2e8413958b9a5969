/** A queue that another  has open: it is locked, and can be looked into. */
import { describe, test } from "node:test";
import { join } from "node:path";
import {
  assertEquals,
  assertGreater,
  assertGreaterOrEqual,
  assertLess,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "#std/assert";
import { openDiskQueue } from "../src/queue/disk_queue.ts";
import { checkQueue, type QueueStatus, queueStatus } from "../src/queue/inspect.ts";
import { QueueError } from "../src/queue/queue.ts";
import { loadSqlite } from "../src/queue/sqlite.ts";
import { run, start } from "./process.ts";
import { assertHolds, withFolder, withOpen } from "./queue_batches.ts";
import { within } from "./within.ts";

const MS = 10_000;
const WRITER = "test/fixtures/queue_writer.ts";
const LENGTH = 1000;

const queue = (...args: string[]) => run(["bin/queue.ts", ...args]);

describe("a queue that is open", () => {
  test("cannot be opened again, and can be looked into", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "queue");
      const writer = start([WRITER, folder, "always", "3", String(LENGTH), "wait"]);
      await within("stored", MS, writer.saw(/stored 3000/));
      const startMs = performance.now();
      const error = await assertRejects(() => openDiskQueue(folder), QueueError);
      assertEquals(error.message, `the queue ${folder} is open in another process`);
      assertLess(performance.now() - startMs, 8000);
      const other = await run([WRITER, folder]);
      assertEquals(other.status, 1);
      assertStringIncludes(other.stderr, "is open in another process");
      const check = await queue("check", folder);
      assertEquals([check.status, check.stderr], [0, ""]);
      assertEquals(check.stdout, "no damage: 3 batches, 3.00 kB\n");
      for (const args of [["forget", folder, "a"], ["seek", folder, "a", "now"]]) {
        const { status, stdout, stderr } = await queue(...args);
        assertEquals([status, stdout], [1, ""]);
        assertEquals(stderr, `queue: the queue ${folder} is open in another process\n`);
      }
      const status = await queue("status", folder, "--json");
      assertEquals([status.status, status.stderr], [0, ""]);
      const { open, bytes, streams, readers } = JSON.parse(status.stdout) as QueueStatus;
      assertEquals([open, bytes, streams.length, readers.length], [true, 3128, 1, 1]);
      const { stream, oldest, ...numbers } = streams[0]!;
      const expected = { start: 0, end: 3000, bytes: 3128, segments: 1 };
      assertEquals(numbers, { key: "", ...expected, upstream: null });
      assertLess(Math.abs(Date.now() - Date.parse(oldest!)), 60_000);
      const delivery = { delivered: 0, bytes: 3000, messages: 30, acknowledges: false };
      assertEquals(readers[0]!, { name: "a", stream, ...delivery });
      // The lock goes with the process.
      writer.kill("SIGKILL");
      await within("killed", MS, writer.ended);
      await withOpen(folder, async (opened) => {
        await assertRejects(
          () => openDiskQueue(folder),
          QueueError,
          "is already open in this process",
        );
        // And that has not given the lock away.
        const other = await run([WRITER, folder]);
        assertEquals(other.status, 1);
        assertStringIncludes(other.stderr, "is open in another process");
        await assertHolds(await opened.openLog(""), 0, 3 * LENGTH, LENGTH);
      });
    }));
});

describe("status of a queue that is open, under load", () => {
  test("is whole, and nothing in it goes back: a writer that stores and deletes", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "queue");
      const writer = start([WRITER, folder, "off", "1000000", "20000", "churn", "1000000"]);
      try {
        await within("stored", MS, writer.saw(/stored 400000\n/));
        const sqlite = await loadSqlite();
        let last = { delivered: 0, end: 0 };
        let looks = 0;
        // For a second, and until the writer has released something.
        const end = performance.now() + 1000;
        while (performance.now() < end || looks <= 10 || last.delivered <= 400_000) {
          looks++;
          const { open, streams, readers } = await queueStatus(sqlite, folder);
          assertEquals([open, streams.length, readers.length], [true, 1, 1]);
          const { name, bytes, messages, delivered } = readers[0]!;
          assertEquals([name, messages], ["a", 10 * Math.ceil(bytes / 20_000)]);
          assertGreaterOrEqual(delivered, last.delivered);
          // All may be delivered and deleted for a moment.
          if (streams[0]!.segments > 0) assertGreaterOrEqual(streams[0]!.end, last.end);
          last = { delivered, end: Math.max(last.end, streams[0]!.end) };
          if (looks === 5) assertEquals((await checkQueue(sqlite, folder)).damages, []);
        }
        assertEquals(writer.stderr, "");
      } finally {
        writer.kill("SIGKILL");
        await within("its end", MS, writer.ended);
      }
    }));

  test("as a command with no more permission than to read, beside a server and its readers", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "queue");
      const spill = ["--overflow", "spill", "--spill", folder, "--sync", "off"];
      const server = start([
        ...["server.ts", "--port", "0", "--rate", "10MB/s", "--reader-id", "hello"],
        ...["--backlog", "64k", "--sndbuf", "64k", ...spill],
      ]);
      const programs = [server];
      try {
        const [, port] = await within("listening", MS, server.saw(/listening on \S+:(\d+)/));
        for (const name of ["anna", "bert"]) {
          // Some 4 MB/s at most: what it does not take goes through the disk.
          const pace = ["--read-size", "20000", "--work", "5ms", "--rcvbuf", "64k"];
          const args = [`127.0.0.1:${port}`, "--hello", name, "--ack", ...pace];
          programs.push(start(["client.ts", ...args], { timeoutMs: 60_000 }));
        }
        // On a busy machine it may be spilling before its reader is connected.
        for (const name of ["anna", "bert"]) {
          const spills = new RegExp(`${name}\\)?: (backlog|is not connected)`);
          await within("spilling", MS, server.saw(spills));
        }
        const permissions = [`--allow-read`];
        let stored = 0;
        for (let i = 0; i < 4; i++) {
          const status = await run(["bin/queue.ts", "status", folder, "--json"], { permissions });
          assertEquals([status.status, status.stderr], [0, ""]);
          const { open, readers } = JSON.parse(status.stdout) as QueueStatus;
          assertEquals([open, readers.map(({ name }) => name).sort()], [true, ["anna", "bert"]]);
          stored = Math.max(stored, ...readers.map(({ bytes }) => bytes));
        }
        assertGreater(stored, 1e6);
        const people = await run(["bin/queue.ts", "status", folder], { permissions });
        assertMatch(people.stdout, /: a server has it open|; a server has it open\n/);
        const check = await run(["bin/queue.ts", "check", folder], { permissions });
        assertEquals([check.status, check.stderr], [0, ""], check.stdout);
        const seek = await queue("seek", folder, "anna", "now");
        assertEquals(seek.stderr, `queue: the queue ${folder} is open in another process\n`);
        assertEquals(server.stderr, "");
      } finally {
        for (const program of programs) program.kill("SIGKILL");
        await within("all ends", MS, Promise.all(programs.map(({ ended }) => ended)));
      }
    }));
});
