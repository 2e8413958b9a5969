/** What becomes of a queue when its process is killed, its disk is full, or fails. */
import { describe, test, type TestContext } from "node:test";
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  assert,
  assertEquals,
  assertGreater,
  assertGreaterOrEqual,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "#std/assert";
import { openDiskQueue } from "../src/queue/disk_queue.ts";
import { type Damage, type Log, QueueError, QueueFull } from "../src/queue/queue.ts";
import { FILE_HEADER } from "../src/queue/segment_format.ts";
import { type Program, run, type RunResult, start } from "./process.ts";
import {
  asKilled,
  assertBatch,
  assertHolds,
  batchAt,
  fill,
  hashes,
  segmentFiles,
  withFolder,
  withOpen,
} from "./queue_batches.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

const MS = 20_000;
const MIB = 1 << 20;
const WRITER = "test/fixtures/queue_writer.ts";
const LENGTH = 300_000;

const queue = (...args: string[]): Promise<RunResult> => run(["bin/queue.ts", ...args]);

/** All that is stored, which must be whole and without gaps; where it starts. */
async function assertWhole(log: Log, length: number): Promise<number> {
  const first = await within("read", MS, log.read(0));
  if (first === null) return log.end;
  for (let offset = first.offset; offset < log.end; offset += length) {
    assertBatch(await within("read", MS, log.read(offset)), offset, length);
  }
  assertEquals(await log.read(log.end), null);
  return first.offset;
}

describe("a process that is killed", () => {
  for (
    const [sync, length, max] of [
      ["always", LENGTH, "Infinity"],
      ["off", 40_000, "1000000"],
      ["30", 7000, "2000000"],
    ] as const
  ) {
    test(`at any moment leaves all that was stored: sync ${sync}, at most ${max}`, () =>
      withFolder(async (parent) => {
        const folder = join(parent, "queue");
        let delivered = 0;
        for (let round = 0; round < 8; round++) {
          const args = [WRITER, folder, sync, "100000", String(length), "churn", max];
          const writer = start(args);
          // A number of batches, and a moment, that differ from round to round.
          const pattern = new RegExp(`^(?:.*\n){${2 + round * round * 3}}`);
          await within("stored", MS, writer.saw(pattern));
          writer.kill("SIGKILL");
          const { stdout, stderr } = await within("killed", MS, writer.ended);
          assertEquals(stderr, "");
          const told = Number(/.*stored (\d+)\n/s.exec(stdout)![1]);
          const damages: Damage[] = [];
          await withOpen(folder, async (opened) => {
            const log = await opened.openLog("");
            assertGreaterOrEqual(log.end, told, "something that was stored is gone");
            assertEquals(log.end % length, 0);
            const from = await assertWhole(log, length);
            const { offset } = log.cursors[0]!;
            assert(from <= offset, `the first is at ${from}, after ${offset}`);
            assertGreaterOrEqual(offset, delivered);
            delivered = offset;
          }, { onDamage: (damage) => damages.push(damage), maxBytes: Number(max) });
          assertEquals(damages, []);
        }
        const check = await queue("check", folder);
        assertEquals([check.status, check.stderr], [0, ""], check.stdout);
      }));
  }

  test("in the middle of a write leaves the batches before it, however little was written", () =>
    withFolder(async (parent) => {
      const made = join(parent, "made");
      const file = await withOpen(made, async (opened) => {
        const log = await opened.openLog("");
        await fill(log, 3, 1000);
        return segmentFiles(made, log)[0]!;
      });
      const damages: Damage[] = [];
      const record = 1032;
      for (const cut of [1, 2, 5, 31, 32, 33, 500, 1031, 1032]) {
        const folder = join(parent, `cut ${cut}`);
        cpSync(made, folder, { recursive: true });
        truncateSync(file.replace(made, folder), FILE_HEADER + 2 * record + cut % record);
        asKilled(folder);
        await withOpen(folder, async (opened) => {
          const log = await opened.openLog("");
          assertEquals(log.end, 2000);
          await fill(log, 2, 1000);
          await assertHolds(log, 0, 4000, 1000);
          assertEquals(log.bytes, FILE_HEADER + 4 * record);
        }, { sync: "off", onDamage: (damage) => damages.push(damage) });
        await withOpen(folder, async (opened) => {
          await assertHolds(await opened.openLog(""), 0, 4000, 1000);
        }, { sync: "off", onDamage: (damage) => damages.push(damage) });
      }
      assertEquals(damages, []);
    }));

  test("while it makes a queue leaves a queue, or nothing", () =>
    withFolder(async (parent) => {
      for (let round = 0; round < 6; round++) {
        const folder = join(parent, String(round));
        const writer = start([WRITER, folder, "always", "1", "1000", "wait"]);
        // Its folder is there long before it says that it is open.
        const names = ["", "lock.db", "queue.db", "queue.db-wal", "queue.db-shm", ""];
        const end = performance.now() + MS;
        while (!existsSync(join(folder, names[round]!)) && performance.now() < end) {
          await new Promise((resolve) => setImmediate(resolve));
        }
        writer.kill("SIGKILL");
        assertEquals((await within("killed", MS, writer.ended)).stderr, "");
        await withOpen(folder, async (opened) => {
          const log = await opened.openLog("");
          await fill(log, 3, 1000);
          await assertWhole(log, 1000);
        });
      }
    }));
});

describe("a disk that is full", () => {
  /** Fills it until it is full, then goes on with what is released. */
  async function assertGoesOn(folder: string, writer: Program): Promise<void> {
    const { status, stdout, stderr } = await within("the writer", 60_000, writer.ended);
    assertEquals([status, stderr], [0, ""], stdout);
    assertMatch(stdout, /^full disk: cannot write the queue \S+: no space$/m);
    const [, tail, stored] = /again (\d+) after (\d+)/.exec(stdout)!;
    assertGreater(Number(tail), Number(stored));
    await withOpen(folder, async (opened) => {
      const log = await opened.openLog("");
      assertEquals(log.end, Number(tail));
      const from = await assertWhole(log, LENGTH);
      const { offset } = log.cursors[0]!;
      assert(from <= offset && offset >= Number(stored) / 2 - LENGTH, `${from} ${offset}`);
    });
    const check = await queue("check", folder);
    assertEquals([check.status, check.stderr], [0, ""], check.stdout);
  }

  const writerArgs = (folder: string, max: string) => [
    ...[WRITER, folder, "always", "1000", String(LENGTH), "full", max],
  ];

  test("loses nothing, and goes on when there is room: a file-size limit", (t) =>
    withFolder(async (parent) => {
      if (spawnSync("prlimit", ["--version"]).error !== undefined) {
        return skip(t, "there is no prlimit here");
      }
      const folder = join(parent, "queue");
      const under = ["prlimit", `--fsize=${16 * MIB}`];
      await assertGoesOn(folder, start(writerArgs(folder, "Infinity"), { under }));
    }));

  /** A disk of so many MiB. */
  async function withDisk(
    t: TestContext,
    mib: number,
    use: (disk: string, remount: (options: string) => void) => Promise<void>,
  ): Promise<void> {
    await withFolder(async (folder) => {
      const disk = join(folder, "disk");
      mkdirSync(disk);
      const mount = (options: string) =>
        spawnSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", disk]).status === 0;
      if (!mount(`size=${mib}m`)) return skip(t, "no disk can be mounted here");
      try {
        await use(disk, (options) => assert(mount(`remount,${options}`)));
      } finally {
        spawnSync("umount", ["-l", disk]);
      }
    });
  }

  test("loses nothing, and goes on when there is room: a small disk", (t) =>
    withDisk(t, 16, async (disk) => {
      const folder = join(disk, "queue");
      await assertGoesOn(folder, start(writerArgs(folder, String(32 * MIB))));
    }));

  /** Every byte of it. */
  function fillDisk(disk: string): void {
    for (let i = 0; i < 10; i++) {
      const { bavail, bsize } = statfsSync(disk);
      try {
        if (bavail > 0) writeFileSync(join(disk, `other ${i}`), new Uint8Array(bavail * bsize));
      } catch {
        // There was less.
      }
    }
    assertEquals(statfsSync(disk).bavail, 0);
  }

  function removeOthers(disk: string): void {
    for (let i = 0; i < 10; i++) rmSync(join(disk, `other ${i}`), { force: true });
  }

  test("by others, to the last byte: all waits, and goes on when they make room", (t) =>
    withDisk(t, 8, async (disk) => {
      const folder = join(disk, "queue");
      await withOpen(folder, async (opened) => {
        const log = await opened.openLog("");
        const cursor = await log.openCursor("a", 0);
        await fill(log, 10, 100_000);
        for (let round = 0; round < 2; round++) {
          fillDisk(disk);
          const end = log.end;
          // The end of the last page may have room.
          let full: unknown;
          while (full === undefined) {
            await log.append(batchAt(log.end, 100_000)).catch((error) => full = error);
          }
          assert(full instanceof QueueFull, String(full));
          assertEquals([full.reason, log.end], ["disk", end]);
          assertBatch(await log.read(end - 1), end - 100_000, 100_000);
          const settled: Promise<unknown>[] = [];
          for (let i = 0; i < 300; i++) settled.push(log.openCursor(`reader ${round} ${i}`, end));
          cursor.release(end - 100_000);
          settled.push(log.settled());
          settled.push(log.reserve(end + 1000 + round));
          await assertRejects(() => log.append(batchAt(end, 100_000)), QueueFull);
          assertBatch(await log.read(end - 1), end - 100_000, 100_000);
          removeOthers(disk);
          await within("recorded", MS, Promise.all(settled));
          assertEquals(cursor.durable, end - 100_000);
          await fill(log, 5, 100_000);
        }
      });
      await withOpen(folder, async (opened) => {
        const log = await opened.openLog("");
        assertEquals([log.end, log.cursors.length, log.reserved], [2_000_000, 601, 1_501_001]);
        await assertWhole(log, 100_000);
      });
    }));

  test("with nothing but the queue: what is delivered makes room", (t) =>
    withDisk(t, 4, async (disk) => {
      const folder = join(disk, "queue");
      await withOpen(folder, async (opened) => {
        const log = await opened.openLog("");
        const cursor = await log.openCursor("a", 0);
        for (let round = 0; round < 4; round++) {
          // To the last byte.
          let length = 100_000;
          while (length > 0) {
            await log.append(batchAt(log.end, length)).catch((error) => {
              assert(error instanceof QueueFull, String(error));
              length = Math.floor(length / 3);
            });
          }
          assertEquals(statfsSync(disk).bavail, 0);
          cursor.release(log.start + 2 * MIB);
          await within("room", MS, log.settled());
          assertGreater(statfsSync(disk).bavail, 0);
          await fill(log, 1, 100_000);
        }
        cursor.release(log.end);
        await within("all", MS, log.settled());
        assertEquals(log.segments, 0);
      }, { maxBytes: 6 * MIB });
    }));

  test("can be closed, and opened again", (t) =>
    withDisk(t, 4, async (disk) => {
      const folder = join(disk, "queue");
      const opened = await openDiskQueue(folder);
      const log = await opened.openLog("");
      const cursor = await log.openCursor("a", 0);
      await fill(log, 10, 100_000);
      fillDisk(disk);
      for (let i = 0; i < 300; i++) log.openCursor(`reader ${i}`, 0).catch(() => {});
      cursor.release(500_000);
      const closed = await within(
        "close",
        MS,
        opened.close().then(() => undefined, (error: Error) => error),
      );
      if (closed !== undefined) {
        assert(closed instanceof QueueFull, String(closed));
        assertMatch(closed.message, /^no disk space for the queue \S+: [^\n]+$/);
      }
      const error = await within("open", MS, openDiskQueue(folder).then(() => {}, (e: Error) => e));
      if (error !== undefined) {
        assert(error instanceof QueueFull || error instanceof QueueError, String(error));
        assert(!error.message.includes("\n"), error.message);
      }
      removeOthers(disk);
      if (error === undefined) return;
      await withOpen(folder, async (again) => {
        const log = await again.openLog("");
        assertEquals(log.end, 1_000_000);
        assert([0, 500_000].includes(log.cursors[0]!.offset));
        await fill(log, 1, 100_000);
        await assertWhole(log, 100_000);
      });
    }));

  test("cannot hold a new queue, which then is none", (t) =>
    withDisk(t, 4, async (disk) => {
      fillDisk(disk);
      const folder = join(disk, "queue");
      const error = await assertRejects(() => openDiskQueue(folder), Error);
      assert(error instanceof QueueFull || error instanceof QueueError, String(error));
      assert(!error.message.includes("\n"), error.message);
      removeOthers(disk);
      await withOpen(folder, async (opened) => fill(await opened.openLog(""), 1, 1000));
    }));

  test("or read-only can be looked at, and is not changed", (t) =>
    withDisk(t, 16, async (disk, remount) => {
      const folder = join(disk, "queue");
      await withOpen(folder, async (opened) => {
        const log = await opened.openLog("");
        await log.openCursor("a", 0);
        await fill(log, 3, 1000);
      });
      remount("ro");
      const before = hashes(folder);
      await assertRejects(() => openDiskQueue(folder), QueueError, "cannot");
      const error = await assertRejects(() => openDiskQueue(`${folder}2`), QueueError);
      assertStringIncludes(error.message, "its file system is read-only");
      for (const command of ["status", "check"]) {
        const { status, stderr } = await queue(command, folder);
        assertEquals([command, status, stderr], [command, 0, ""]);
      }
      const { status, stderr } = await queue("export", folder, "--out", `${folder}.out`);
      assertEquals(status, 1, stderr);
      assertEquals(hashes(folder), before);
    }));
});

describe("a queue that somebody removes while it is open ends: nothing is said to be stored", () => {
  for (
    const [what, remove] of [
      ["the folder", (folder: string) => rmSync(folder, { recursive: true })],
      ["a segment", (folder: string, log: Log) => rmSync(segmentFiles(folder, log)[0]!)],
      ["the database", (folder: string) => rmSync(join(folder, "queue.db"))],
    ] as const
  ) {
    test(what, () =>
      withFolder(async (parent) => {
        const folder = join(parent, "queue");
        const opened = await openDiskQueue(folder);
        const log = await opened.openLog("");
        const cursor = await log.openCursor("a", 0);
        await fill(log, 2, 1000);
        remove(folder, log);
        const use = async () => {
          await log.append(batchAt(2000, 1000));
          cursor.release(1000);
          await log.settled();
        };
        const why = "was removed";
        await assertRejects(() => within("use", MS, use()), QueueError, why);
        await assertRejects(() => opened.openLog("other"), QueueError, why);
        await assertRejects(() => within("close", MS, opened.close()), QueueError, why);
      }));
  }
});

test("a segment that was removed is told of in one line when it is read, and when it is deleted", () =>
  withFolder(async (parent) => {
    const folder = join(parent, "queue");
    const short = { maxBytes: 8 * 65_536, sync: "off" } as const;
    await withOpen(folder, async (opened) => {
      const log = await opened.openLog("");
      await log.openCursor("a", 0);
      for (let i = 0; i < 4; i++) await fill(log, 1, 65_536);
      assertEquals(log.segments, 4);
    }, short);
    const again = await openDiskQueue(folder, short);
    try {
      const log = await again.openLog("");
      const files = segmentFiles(folder, log);
      rmSync(files[0]!);
      const line = (what: string) => (error: Error) => {
        assert(error instanceof QueueError, error.stack);
        assertEquals(
          error.message,
          `cannot ${what} the queue ${folder}: a file or folder is missing (${
            basename(files[0]!)
          })`,
        );
      };
      const failure = (use: Promise<unknown>) =>
        use.then(() => Promise.reject(new Error("it worked")), (error: Error) => error);
      line("read")(await failure(log.read(0)));
      line("read")(await failure(log.read(0)));
      log.cursors[0]!.release(log.end);
      line("delete from")(await failure(log.settled()));
    } finally {
      await within("close", MS, again.close());
    }
  }));

test("a disk that fails to sync ends the queue: nothing is said to be stored", (t) =>
  withFolder(async (parent) => {
    const handle = await open(join(parent, "any"), "w");
    const prototype = Object.getPrototypeOf(handle);
    await handle.close();
    const { datasync } = prototype;
    if (typeof datasync !== "function") return skip(t, "datasync cannot be replaced here");
    const folder = join(parent, "queue");
    const opened = await openDiskQueue(folder);
    const log = await opened.openLog("");
    await fill(log, 2, 1000);
    let calls = 0;
    prototype.datasync = () => {
      calls++;
      return Promise.reject(Object.assign(new Error("EIO: i/o error, fdatasync"), { code: "EIO" }));
    };
    try {
      const appends = [0, 1, 2].map((i) => log.append(batchAt(2000 + i * 1000, 1000)));
      const results = await within("appends", MS, Promise.allSettled(appends));
      if (calls === 0) return skip(t, "datasync cannot be replaced here");
      for (const result of results) {
        const { reason } = result as PromiseRejectedResult;
        assert(reason instanceof QueueError, String(reason));
        assertStringIncludes(reason.message, "cannot sync the queue");
        assertStringIncludes(reason.message, "the disk reports an error");
      }
    } finally {
      prototype.datasync = datasync;
    }
    // Also now that it would succeed.
    await assertRejects(() => log.append(batchAt(9000, 1000)), QueueError, "cannot sync");
    await assertRejects(() => opened.openLog("other"), QueueError, "cannot sync");
    assertEquals(log.durableEnd, 2000);
    await assertRejects(() => within("close", MS, opened.close()), QueueError, "cannot sync");
    await withOpen(folder, async (again) => {
      const log = await again.openLog("");
      assertGreaterOrEqual(log.end, 2000);
      await assertWhole(log, 1000);
    });
  }));
