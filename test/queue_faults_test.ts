/** What becomes of a queue when its process is killed, its file is hurt, or its disk is full. */
import { describe, test } from "node:test";
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { Buffer } from "node:buffer";
import process from "node:process";
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
import { runtime } from "../src/kernel/runtime.ts";
import { QueueError, type QueueReader } from "../src/queue/queue.ts";
import { openSqliteQueue } from "../src/queue/sqlite_queue.ts";
import { Program, ROOT, run, type RunResult, start } from "./process.ts";
import { assertBatch, batchAt, hash, withFolder } from "./queue_batches.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

const MS = 20_000;
const MIB = 1 << 20;
const WRITER = "test/fixtures/queue_writer.ts";

const queue = (...args: string[]): Promise<RunResult> => run(["bin/queue.ts", ...args]);
const hashes = (file: string) => [hash(file), hash(`${file}-journal`)];

/** All that is stored, which must be whole and without gaps; where it starts. */
async function assertWhole(reader: QueueReader, length: number): Promise<number> {
  const first = await within("read", MS, reader.read(0));
  if (first === null) return reader.tail;
  for (let offset = first.offset; offset < reader.tail; offset += length) {
    assertBatch(await within("read", MS, reader.read(offset)), offset, length);
  }
  assertEquals(await reader.read(reader.tail), null);
  return first.offset;
}

describe("a process that is killed", () => {
  for (
    const [when, batches] of [["before", 10], ["within", 10], ["after", 30]] as const
  ) {
    test(`${when} a transaction leaves what was stored and nothing half`, () =>
      withFolder(async (folder) => {
        const file = join(folder, "a.queue");
        const died = await run(["test/fixtures/queue_dying.ts", file, when]);
        assertEquals([died.signal, died.stderr], ["SIGKILL", ""]);
        if (when === "within") {
          assertGreater(statSync(file).size, 12 * MIB, "no page of it was in the file");
          const before = hashes(file);
          const plan = await queue("repair", file);
          assertEquals(plan.status, 0);
          assertMatch(plan.stdout, /^plan: roll back an interrupted transaction/);
          assertEquals(hashes(file), before, "the plan has changed it");
        }
        const again = await within("open", MS, openSqliteQueue(file));
        const reader = await again.open("a");
        assertEquals(reader.stored, {
          batches,
          bytes: batches * MIB,
          messages: batches * 10,
        });
        assertEquals(await assertWhole(reader, MIB), 0);
        await reader.append(batchAt(batches * MIB, MIB));
        await again.close();
        const check = await queue("check", file);
        assertEquals([check.status, check.stderr], [0, ""], check.stdout);
      }));
  }

  for (const sync of ["always", "off", "30"]) {
    test(`at any moment leaves all that was stored: sync ${sync}`, () =>
      withFolder(async (folder) => {
        const file = join(folder, "a.queue");
        const length = 300_000;
        for (let round = 0; round < 5; round++) {
          const writer = start([WRITER, file, sync, "100000", String(length), "churn"]);
          // A number of batches, and a moment, that differ from round to round.
          let count = 0;
          for (let seen = 0; count < 7 + round * 5; count++) {
            const pattern = new RegExp(`^(?:.*\n){${seen + 1}}`);
            await within("stored", MS, writer.saw(pattern));
            seen++;
          }
          writer.kill("SIGKILL");
          const { stdout, stderr } = await within("killed", MS, writer.ended);
          assertEquals(stderr, "");
          const told = Number(/.*stored (\d+)\n/s.exec(stdout)![1]);
          const opened = await within("open", MS, openSqliteQueue(file));
          const reader = await opened.open("a");
          assertGreaterOrEqual(reader.tail, told, "something that was stored is gone");
          assertLess(await assertWhole(reader, length), told);
          await opened.close();
        }
        const check = await queue("check", file);
        assertEquals([check.status, check.stderr], [0, ""], check.stdout);
      }));
  }
});

describe("the journal of a process that was killed", () => {
  const HURTS: [string, (journal: string) => void][] = [
    ["cut in half", (journal) => truncateSync(journal, statSync(journal).size >> 1)],
    ["changed", (journal) => {
      const content = readFileSync(journal);
      for (let at = 1000; at < content.length; at += 40_000) content[at]! ^= 0xff;
      writeFileSync(journal, content);
    }],
    ["gone", (journal) => rmSync(journal)],
  ];
  for (const [what, hurt] of HURTS) {
    test(`${what}, leaves a queue, or one that can be repaired`, () =>
      withFolder(async (folder) => {
        const file = join(folder, "a.queue");
        await run(["test/fixtures/queue_dying.ts", file, "within"]);
        hurt(`${file}-journal`);
        const check = await queue("check", file);
        assertEquals(
          check.stderr.split("\n").length,
          check.status === 0 ? 1 : check.stderr ? 2 : 1,
        );
        if (check.status !== 0) {
          const repair = await queue("repair", file, "--apply");
          assertEquals([repair.status, repair.stderr], [0, ""], repair.stdout);
        }
        console.log(`  ${what}: ${check.stdout.split("\n")[0] || check.stderr.trim()}`);
        const opened = await within("open", MS, openSqliteQueue(file));
        const reader = await opened.open("a");
        assertEquals(reader.stored.batches, 10);
        assertEquals(await assertWhole(reader, MIB), 0);
        await opened.close();
      }));
  }
});

describe("a file that is hurt", () => {
  /** A queue of 20 batches, closed in order, and then hurt. */
  async function withHurt(
    hurt: (file: string) => void,
    use: (file: string) => Promise<void>,
  ): Promise<void> {
    await withFolder(async (folder) => {
      const file = join(folder, "a.queue");
      const made = await openSqliteQueue(file);
      const reader = await made.open("a");
      for (let i = 0; i < 20; i++) await reader.append(batchAt(i * 300_000, 300_000));
      await made.close();
      hurt(file);
      await use(file);
    });
  }

  /** What all commands say of it, which must not change it. */
  async function assertBroken(file: string): Promise<void> {
    const before = hashes(file);
    const check = await queue("check", file);
    assertEquals(check.status, 1);
    assertMatch(check.stdout + check.stderr, /broken: |damaged/);
    const plan = await queue("repair", file);
    assertStringIncludes(plan.stdout, "plan: copy all that is intact into a new file");
    assertEquals(hashes(file), before, "it was changed");
  }

  test("by being cut short is refused, and repaired", () =>
    withHurt((file) => truncateSync(file, 4_000_000), async (file) => {
      const before = hash(file);
      const error = await assertRejects(() => openSqliteQueue(file), QueueError);
      assertMatch(error.message, /is damaged \(.*\): `queue check` lists the damage/);
      await assertBroken(file);
      const out = `${file}.out`;
      assertEquals((await queue("export", file, "--out", out)).status, 0);
      const repair = await queue("repair", file, "--apply");
      assertEquals([repair.status, repair.stderr], [0, ""], repair.stdout);
      const kept = `${file}.damaged`;
      assertStringIncludes(repair.stdout, `the old file is ${kept}`);
      assertEquals(hash(kept), before);
      const opened = await openSqliteQueue(file);
      const reader = await opened.open("a");
      const { batches } = reader.stored;
      assert(batches >= 5 && batches < 20, `${batches} batches were saved`);
      assertEquals(statSync(out).size, batches * 300_000);
      for (let i = 0; i < batches; i++) {
        assertBatch(await reader.read(i * 300_000), i * 300_000, 300_000);
      }
      await reader.append(batchAt(6_000_000, 300_000));
      await opened.close();
    }));

  test("in SQLite's own pages is not used, and repaired", () =>
    withHurt((file) => {
      const content = readFileSync(file);
      // The page with the numbers of all batches: of the last one's place and length.
      const numbers = Buffer.alloc(6);
      numbers.writeUIntBE(19 * 300_000, 0, 3);
      numbers.writeUIntBE(300_000, 3, 3);
      const page = Math.floor(content.indexOf(numbers) / 65_536) * 65_536;
      assertGreater(page, 0);
      content.fill(0xff, page, page + 100);
      writeFileSync(file, content);
    }, async (file) => {
      const error = await assertRejects(async () => {
        const opened = await openSqliteQueue(file);
        const reader = await opened.open("a");
        await reader.read(0).finally(() => opened.close());
      }, QueueError);
      assertMatch(
        error.message,
        /`queue check` lists the damage, `queue repair` saves what is intact/,
      );
      await assertBroken(file);
      const repair = await queue("repair", file, "--apply");
      assertEquals([repair.status, repair.stderr], [0, ""], repair.stdout);
      assertMatch(repair.stdout, /^broken: reader "a" should have 20 batches but has 0$/m);
      const opened = await openSqliteQueue(file);
      const reader = await opened.open("a");
      await reader.append(batchAt(6_000_000, 300_000));
      assertEquals(await assertWhole(reader, 300_000), 6_000_000);
      await opened.close();
    }));

  test("in the row of a reader is not used, and repaired", () =>
    withHurt((file) => {
      const content = readFileSync(file);
      const number = Buffer.alloc(3);
      // `tail` and `tail_position`, one behind the other.
      number.writeUIntBE(6_000_000, 0, 3);
      const at = content.lastIndexOf(Buffer.concat([number, number]));
      assertGreater(at, 0);
      content[at]! ^= 0x40;
      writeFileSync(file, content);
    }, async (file) => {
      await assertRejects(() => openSqliteQueue(file), QueueError, "numbers are inconsistent");
      await assertBroken(file);
      assertEquals((await queue("repair", file, "--apply")).status, 0);
      const opened = await openSqliteQueue(file);
      const reader = await opened.open("a");
      assertEquals([reader.stored.batches, reader.tail], [20, 6_000_000]);
      assertEquals(await assertWhole(reader, 300_000), 0);
      await opened.close();
    }));
});

describe("a disk that is full", () => {
  /** Fills it until it is full, then goes on with what is released. */
  async function assertGoesOn(file: string, writer: Program): Promise<void> {
    const { status, stdout, stderr } = await within("the writer", 60_000, writer.ended);
    assertEquals([status, stderr], [0, ""], stdout);
    assertMatch(stdout, /^full disk: no disk space for the queue /m);
    const [, tail, stored] = /again (\d+) after (\d+)/.exec(stdout)!;
    assertGreater(Number(tail), Number(stored));
    const opened = await openSqliteQueue(file);
    const reader = await opened.open("a");
    assertEquals(reader.tail, Number(tail));
    const length = 300_000;
    assertEquals(await assertWhole(reader, length), reader.delivered);
    await opened.close();
    assertEquals((await queue("check", file)).status, 0);
  }

  const writerArgs = (file: string) => [WRITER, file, "always", "1000", "300000", "full"];

  test("loses nothing, and goes on when there is room: a file-size limit", (t) =>
    withFolder(async (folder) => {
      if (spawnSync("prlimit", ["--version"]).error !== undefined) {
        return skip(t, "there is no prlimit here");
      }
      const file = join(folder, "a.queue");
      const [program, ...rest] = writerArgs(file);
      const flags = {
        deno: ["run", "--node-modules-dir=manual", "-A"],
        bun: [],
        node: ["--no-warnings"],
      }[runtime];
      const limited = [`--fsize=${16 * MIB}`, process.execPath, ...flags, resolve(ROOT, program!)];
      await assertGoesOn(
        file,
        new Program("prlimit", [...limited, ...rest], { timeoutMs: 60_000 }),
      );
    }));

  test("loses nothing, and goes on when there is room: a small disk", (t) =>
    withFolder(async (folder) => {
      const disk = join(folder, "disk");
      mkdirSync(disk);
      const mount = ["-t", "tmpfs", "-o", "size=16m", "tmpfs", disk];
      if (spawnSync("mount", mount).status !== 0) return skip(t, "no disk can be mounted here");
      try {
        const file = join(disk, "a.queue");
        await assertGoesOn(file, start(writerArgs(file), { timeoutMs: 60_000 }));
      } finally {
        spawnSync("umount", ["-l", disk]);
      }
    }));

  test("and may be read-only", (t) =>
    withFolder(async (folder) => {
      const disk = join(folder, "disk");
      mkdirSync(disk);
      const mount = (options: string) =>
        spawnSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", disk]).status === 0;
      if (!mount("size=16m")) return skip(t, "no disk can be mounted here");
      try {
        const file = join(disk, "a.queue");
        await (await openSqliteQueue(file)).close();
        assert(mount("remount,ro"));
        const before = hash(file);
        await assertRejects(() => openSqliteQueue(file), QueueError, "read-only");
        await assertRejects(
          () => openSqliteQueue(`${file}2`),
          QueueError,
          "cannot create the queue",
        );
        assertEquals((await queue("status", file)).status, 0);
        assertEquals(hash(file), before);
      } finally {
        spawnSync("umount", ["-l", disk]);
      }
    }));
});
