/** A queue that is closed, its files, and what it needs: permissions, and its thread's program. */
import { describe, test } from "node:test";
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import {
  assertEquals,
  assertGreater,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
} from "#std/assert";
import { runtime } from "../src/kernel/runtime.ts";
import { openDiskQueue } from "../src/queue/disk_queue.ts";
import { QueueError } from "../src/queue/queue.ts";
import { Program, ROOT, run } from "./process.ts";
import { assertHolds, batchAt, fill, withFolder, withOpen, withQueue } from "./queue_batches.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

const MS = 10_000;
const WRITER = "test/fixtures/queue_writer.ts";

describe("a queue that is closed", () => {
  for (const sync of ["always", { intervalMs: 60_000 }, "off"] as const) {
    test(`has stored what was appended before: sync ${JSON.stringify(sync)}`, () =>
      withFolder(async (parent) => {
        const folder = join(parent, "queue");
        const queue = await openDiskQueue(folder, { sync });
        const log = await queue.openLog("");
        const cursor = await log.openCursor("a", 0);
        const appends = Array.from({ length: 200 }, (_, i) => log.append(batchAt(i * 1e5, 1e5)));
        cursor.release(1234);
        const closed = [queue.close(), queue.close()];
        await within("appended", MS, Promise.all(appends));
        await within("closed", MS, Promise.all(closed));
        const error = await assertRejects(() => log.append(batchAt(2e7, 1000)), QueueError);
        assertStringIncludes(error.message, "is closed");
        await assertRejects(() => log.read(0), QueueError, "is closed");
        await assertRejects(() => queue.openLog("other"), QueueError, "is closed");
        await assertRejects(() => log.reserve(5e7), QueueError, "is closed");
        await withOpen(folder, async (again) => {
          const log = await again.openLog("");
          assertEquals([log.end, log.cursors[0]!.offset], [2e7, 1234]);
          await assertHolds(log, 0, 2e7, 1e5);
        });
      }));
  }

  test("does not keep a process alive, nor does one that is idle", () =>
    withFolder(async (folder) => {
      for (const then of ["close", "exit", "leave"]) {
        const { status, stdout, stderr } = await run(
          [WRITER, join(folder, then), "always", "3", "1000", then],
        );
        assertEquals([status, stderr], [0, ""]);
        assertStringIncludes(stdout, "stored 3000");
      }
    }));

  test("can be opened again, by any process, and twice not", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "queue");
      for (let round = 0; round < 3; round++) {
        await withOpen(folder, async (queue) => {
          await fill(await queue.openLog(""), 3, 1000);
          const error = await assertRejects(() => openDiskQueue(folder), QueueError);
          assertStringIncludes(error.message, "is already open in this process");
        });
        const { status, stdout, stderr } = await run([WRITER, folder, "off", "3"]);
        assertEquals([status, stderr], [0, ""]);
        assertStringIncludes(stdout, `stored ${6000 * round + 6000}`);
      }
      await withOpen(folder, async (queue) => {
        await assertHolds(await queue.openLog(""), 0, 18_000, 1000);
      });
    }));
});

test("the files of a queue are for its owner alone", async (t) => {
  if (process.platform === "win32") return skip(t, "Windows has no such modes");
  const before = process.umask(0);
  try {
    await withQueue(async (queue, folder) => {
      const log = await queue.openLog("");
      await log.openCursor("a", 0);
      await fill(log, 3, 1000);
      const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);
      assertEquals([mode(folder), mode(join(folder, log.stream))], ["700", "700"]);
      const files = readdirSync(folder, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
      assertGreater(files.length, 4);
      for (const file of files) assertEquals([file, mode(file)], [file, "600"]);
    });
  } finally {
    process.umask(before);
  }
});

test("a queue needs no more than its folder and the program's own", async (t) => {
  if (runtime !== "deno") return skip(t, "only Deno has permissions");
  await withFolder(async (parent) => {
    const folder = join(parent, "queue");
    const permissions = [`--allow-read=${join(ROOT, "src")},${folder}`, `--allow-write=${folder}`];
    const args = [WRITER, folder, "always", "3", "1000", "close"];
    const { status, stderr } = await run(args, { permissions });
    assertEquals([status, stderr], [0, ""]);
    const less = await run(args, { permissions: [`--allow-read=${folder}`, permissions[1]!] });
    assertNotEquals(less.status, 0);
    assertStringIncludes(less.stderr, "cannot read its own program: it needs --allow-read=");
  });
});

test("a queue works in a bundle, of which its thread runs nothing else", () =>
  withFolder(async (folder) => {
    const bundle = join(folder, "writer.js");
    const options = ["--bundle", "--platform=node", "--format=esm", "--target=node22"];
    const define = ["--define:import.meta.main=false", "--log-level=warning"];
    const esbuild = new Program(
      join(ROOT, "node_modules/.bin/esbuild"),
      [WRITER, ...options, ...define, `--outfile=${bundle}`],
      {},
    );
    assertEquals((await within("esbuild", 30_000, esbuild.ended)).status, 0, esbuild.stderr);
    const args = [join(folder, "a"), "always", "3", "1000", "close"];
    const said = "open\nstored 1000\nstored 2000\nstored 3000\n";
    const { status, stdout, stderr } = await run([bundle, ...args], { cwd: folder });
    assertEquals([status, stdout, stderr], [0, said, ""]);
    if (runtime !== "bun") return;
    const program = join(folder, "writer");
    const compile = ["build", "--compile", "writer.js", "--outfile", program];
    const bun = new Program(process.execPath, compile, { cwd: folder });
    assertEquals((await within("bun", 30_000, bun.ended)).status, 0, bun.stderr);
    writeFileSync(bundle, "");
    args[0] = join(folder, "b");
    const compiled = await within("it", MS, new Program(program, args, { cwd: folder }).ended);
    assertEquals([compiled.status, compiled.stdout, compiled.stderr], [0, said, ""]);
  }));
