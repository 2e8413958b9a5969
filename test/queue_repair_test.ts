/** A queue whose database was made anew: its messages are there until a reader has received them. */
import { describe, test } from "node:test";
import { chmodSync, chownSync, lstatSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { assertEquals, assertGreater, assertMatch, assertStringIncludes } from "#std/assert";
import { openDiskQueue } from "../src/queue/disk_queue.ts";
import { EMPTY_SOURCE } from "../src/source/empty_source.ts";
import { run } from "./process.ts";
import { skip } from "./skip.ts";
import { withFolder, withOpen } from "./queue_batches.ts";
import { numbered, relaying, SIZE, TestSource } from "./relaying.ts";
import { until, within } from "./within.ts";

const COUNT = 1000;
const queue = (...args: string[]) => run(["bin/queue.ts", ...args]);

/** A queue of a shared stream, whose database was lost and made anew; what `repair` printed. */
async function withRepaired(use: (folder: string, printed: string) => Promise<void>) {
  await withFolder(async (parent) => {
    const folder = join(parent, "queue");
    await withOpen(folder, async (opened) => {
      const log = await opened.openLog("");
      await log.openCursor("lost", 0);
      await log.append({ offset: 0, bytes: numbered(0, COUNT), messages: COUNT });
    });
    rmSync(join(folder, "queue.db"));
    const { status, stdout, stderr } = await queue("repair", folder, "--apply");
    assertEquals([status, stderr], [0, ""]);
    await use(folder, stdout);
  });
}

describe("a queue that was repaired", () => {
  test("says that there was no database, and what to do", () =>
    withRepaired((_, printed) => {
      assertStringIncludes(printed, "made anew; there was no old one\n");
      assertMatch(printed, /a reader that comes is sent all that is stored/);
      return Promise.resolve();
    }));

  test("is exported as a whole, as it has no readers", () =>
    withRepaired(async (folder) => {
      const out = `${folder}.out`;
      const { status, stderr } = await queue("export", folder, "--out", out);
      assertEquals([status, stderr], [0, "exported 1 batches, 64.0 kB\n"]);
      const { stdout } = await queue("status", folder, "--json");
      const { streams: [{ stream }] } = JSON.parse(stdout);
      const named = await queue("export", folder, "--stream", stream, "--out", `${out}2`);
      assertEquals([named.status, named.stderr], [0, "exported 1 batches, 64.0 kB\n"]);
      const wrong = await queue("export", folder, "--stream", "x");
      assertMatch(wrong.stderr, new RegExp(`has no stream "x": it has ${stream}\n`));
      const both = await queue("export", folder, "--stream", stream, "--reader", "a");
      assertMatch(both.stderr, /--reader and --stream exclude each other/);
    }));

  for (const readerId of ["single", "hello"] as const) {
    test(`delivers all of it to whoever comes first (${readerId})`, () =>
      withRepaired(async (folder) => {
        // One that ends before anybody has come deletes nothing, nor one that ends soon after that.
        for (let round = 0; round < 2; round++) {
          await withOpen(folder, async (opened) => {
            const options = { overflow: "spill", queue: opened, source: new TestSource() } as const;
            await relaying({ ...options, readerId }, async ({ connect }) => {
              if (round === 0) return;
              const reader = await connect();
              if (readerId === "hello") await reader.say("anna\n");
              await until("the reader", 5000, () => opened.logs[0]!.cursors.length > 0);
              reader.connection.reset();
            });
            assertGreater(opened.logs[0]!.bytes, COUNT * SIZE);
          });
        }
        const opened = await openDiskQueue(folder);
        try {
          const options = { overflow: "spill", queue: opened, source: EMPTY_SOURCE } as const;
          await relaying({ ...options, readerId, ack: "none" }, async ({ connect }) => {
            const reader = await connect();
            if (readerId === "hello") await reader.say("anna\n");
            await reader.take(COUNT * SIZE);
            reader.assertUnbroken();
          });
        } finally {
          await within("close", 5000, opened.close());
        }
      }));
  }

  test("is like any other once that reader has it", () =>
    withRepaired(async (folder) => {
      await withOpen(folder, async (opened) => {
        const [log] = opened.logs;
        const source = new TestSource();
        const options = { overflow: "spill", queue: opened, source, readerId: "hello" } as const;
        await relaying({ ...options, ack: "none" }, async ({ connect }) => {
          const first = await connect();
          await first.say("anna\n");
          await first.take(COUNT * SIZE);
          await until("its record", 5000, () => log!.segments === 0);
          const second = await connect();
          await second.say("bert\n");
          await until("the reader", 5000, () => log!.cursors.length === 2);
          assertGreater(log!.cursors[1]!.offset, COUNT * SIZE - 1);
        });
      });
    }));
});

test("a lock that is no database is made anew: it holds nothing", () =>
  withFolder(async (parent) => {
    const folder = join(parent, "queue");
    await withOpen(folder, (opened) => opened.openLog(""));
    for (const text of ["x".repeat(5000), "short", ""]) {
      writeFileSync(join(folder, "lock.db"), text);
      await withOpen(folder, async () => {
        // It is locked.
        const { status, stderr } = await queue("forget", folder, "a");
        assertEquals([status, stderr], [
          1,
          `queue: the queue ${folder} is open in another process\n`,
        ]);
      });
      writeFileSync(join(folder, "lock.db"), text);
      const { stderr } = await queue("forget", folder, "a");
      assertEquals(stderr, `queue: ${folder} has no reader "a": it has none\n`);
    }
  }));

describe("the queue of another user", () => {
  const OTHER = 65_534;
  /** A queue of that user, which root has just repaired. */
  const withOther = (use: (folder: string) => Promise<void>) =>
    withFolder(async (parent) => {
      chmodSync(parent, 0o755);
      const folder = join(parent, "queue");
      await withOpen(folder, async (opened) => {
        await (await opened.openLog("")).append({ offset: 0, bytes: numbered(0, 1), messages: 1 });
      });
      const chown = (path: string) => {
        chownSync(path, OTHER, OTHER);
        if (lstatSync(path).isDirectory()) readdirSync(path).forEach((n) => chown(join(path, n)));
      };
      chown(folder);
      await use(folder);
    });

  test("is still that user's once root has repaired it", async (t) => {
    if (process.getuid?.() !== 0) return skip(t, "only root may repair it");
    await withOther(async (folder) => {
      for (const name of ["queue.db", "lock.db"]) rmSync(join(folder, name));
      assertEquals((await queue("repair", folder, "--apply")).status, 0);
      for (const name of readdirSync(folder)) {
        const { uid, gid } = lstatSync(join(folder, name));
        assertEquals([name, uid, gid], [name, OTHER, OTHER]);
      }
    });
  });

  test("names the file that may not be used, and whose it is", async (t) => {
    if (process.getuid?.() !== 0) return skip(t, "only root may run it as another user");
    await withOther(async (folder) => {
      const under = ["setpriv", `--reuid=${OTHER}`, `--regid=${OTHER}`, "--clear-groups"];
      const as = (...args: string[]) => run(["bin/queue.ts", ...args], { under });
      const first = await as("check", folder);
      if (first.status !== 0) return skip(t, `another user cannot run it: ${first.stderr}`);
      for (const name of ["queue.db", "lock.db"]) {
        chownSync(join(folder, name), 0, 0);
        const args = name === "queue.db" ? ["repair", folder, "--apply"] : ["forget", folder, "a"];
        const { status, stdout, stderr } = await as(...args);
        assertEquals([status, stdout], [1, ""]);
        assertEquals(
          stderr,
          `queue: cannot open the queue ${folder}: ${join(folder, name)} belongs to user 0, ` +
            `and this process runs as user ${OTHER}\n`,
        );
        chownSync(join(folder, name), OTHER, OTHER);
      }
    });
  });
});
