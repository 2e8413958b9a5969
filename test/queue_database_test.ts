/** The small database of a queue: damaged, missing, another one's; and queues of the first version. */
import { describe, test } from "node:test";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
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
import { type Damage, type Queue, QueueError } from "../src/queue/queue.ts";
import { run, type RunResult } from "./process.ts";
import {
  assertBatch,
  assertHolds,
  fill,
  flip,
  hash,
  hashes,
  offsetsOf,
  withFolder,
  withOpen,
} from "./queue_batches.ts";
import { within } from "./within.ts";

const MS = 10_000;
const LENGTH = 10_000;

const queue = (...args: string[]): Promise<RunResult> => run(["bin/queue.ts", ...args]);

const refusal = async (folder: string): Promise<string> => {
  const error = await assertRejects(() => within("open", MS, openDiskQueue(folder)), QueueError);
  assert(!error.message.includes("\n"), "more than one line");
  return error.message;
};

/** A queue of a shared stream with two readers, and of two readers with streams of their own. */
async function withMade(use: (folder: string) => Promise<void>): Promise<void> {
  await withFolder(async (parent) => {
    const folder = join(parent, "queue");
    await withOpen(folder, async (opened) => {
      const shared = await opened.openLog("");
      await (await shared.openCursor("a", 0)).setAcknowledges();
      await shared.openCursor("b", LENGTH);
      await fill(shared, 5, LENGTH);
      for (const name of ["own", " odd 🦊 "]) {
        const log = await opened.openLog(name);
        await log.openCursor(name, 0);
        await fill(log, 3, LENGTH);
      }
      // Nothing is stored in it.
      await (await opened.openLog("empty")).openCursor("empty", 0);
    });
    await use(folder);
  });
}

/** All of it is there, and goes on. */
async function assertAllThere(opened: Queue): Promise<void> {
  for (const [key, count] of [["", 5], ["own", 3], [" odd 🦊 ", 3]] as const) {
    const log = await opened.openLog(key);
    await assertHolds(log, 0, count * LENGTH, LENGTH);
    // Until somebody has come for it, also at the end.
    await log.settled();
    assertEquals([key, (await offsetsOf(log, LENGTH)).length], [key, count]);
    await fill(log, 1, LENGTH);
  }
}

describe("a database", () => {
  const HURTS: [string, RegExp, (folder: string) => void][] = [
    ["that is missing", /: queue\.db is missing; /, (folder) => rmSync(join(folder, "queue.db"))],
    ["that is empty", /: queue\.db is empty; /, (folder) => truncateSync(join(folder, "queue.db"))],
    [
      "that is cut short",
      /: queue\.db: /,
      (folder) => truncateSync(join(folder, "queue.db"), 4096),
    ],
    ["with other text", /: queue\.db: file is not a database; /, (folder) => {
      writeFileSync(join(folder, "queue.db"), "some text that is no database\n".repeat(300));
    }],
    ["whose header is damaged", /: queue\.db: file is not a database; /, (folder) => {
      flip(join(folder, "queue.db"), 3);
    }],
    ["whose pages are damaged", /: queue\.db: database disk image is malformed; /, (folder) => {
      const file = join(folder, "queue.db");
      const content = readFileSync(file);
      content.fill(0xff, 4096);
      writeFileSync(file, content);
    }],
    ["that lacks a stream", /: queue\.db lacks the stream [0-9a-f]{16}; /, (folder) => {
      change(folder, "DELETE FROM cursors WHERE key = 'own'; DELETE FROM logs WHERE key = 'own'");
    }],
    ["with another stream's name", /: queue\.db lacks the stream [0-9a-f]{16}; /, (folder) => {
      change(folder, "UPDATE logs SET stream = '0123456789abcdef' WHERE key = 'own'");
    }],
    ["with a wrong stream's name", /: queue\.db has a wrong stream for "own"; /, (folder) => {
      change(folder, "UPDATE logs SET stream = '../../../tmp' WHERE key = 'own'");
    }],
    ["with a wrong offset", /: queue\.db has a wrong place for the reader "own"; /, (folder) => {
      change(folder, "UPDATE cursors SET offset = -5 WHERE name = 'own'");
    }],
  ];
  for (const [what, message, hurt] of HURTS) {
    test(`${what} is refused, and made anew with all messages`, () =>
      withMade(async (folder) => {
        hurt(folder);
        const before = hashes(folder);
        const refused = await refusal(folder);
        assertMatch(refused, /^the queue \S+ is damaged: /);
        assertMatch(refused, message);
        assertStringIncludes(refused, "`queue repair` saves its messages");
        for (
          const args of [["status"], ["check"], ["export", "--reader", "a"], ["seek", "a", "now"]]
            .slice(0, what === "that is missing" ? 4 : 1)
        ) {
          const [command, ...rest] = args;
          const { status, stdout, stderr } = await queue(command!, folder, ...rest);
          assertEquals([command, status, stdout, stderr], [command, 1, "", `queue: ${refused}\n`]);
        }
        const plan = await queue("repair", folder);
        assertEquals([plan.status, plan.stderr], [0, ""]);
        assertStringIncludes(plan.stdout, `broken: ${refused}\nnot changed; to repair it: `);
        // SQLite itself may write to what it locks.
        delete before[join(folder, "lock.db")];
        for (const [path, value] of Object.entries(before)) {
          if (path.includes("queue.db-")) continue;
          assertEquals([path, path === folder ? value : hashes(path)[path]], [path, value]);
        }

        const repair = await queue("repair", folder, "--apply");
        assertEquals([repair.status, repair.stderr], [0, ""]);
        assertMatch(
          repair.stdout,
          what === "that is missing"
            ? /\nrepaired: the database was made anew; there was no old one\n/
            : /\nrepaired: the database was made anew; the old one is queue\.db\.damaged-\d+\n/,
        );
        const old = readdirSync(folder).filter((name) => name.includes(".damaged-"));
        if (before[join(folder, "queue.db")] !== undefined) {
          assertGreaterOrEqual(old.length, 1);
          const kept = old.find((name) => /damaged-\d+$/.test(name))!;
          assertEquals(hash(join(folder, kept)), before[join(folder, "queue.db")]);
        }
        const damages: Damage[] = [];
        await withOpen(folder, async (opened) => {
          assertEquals(opened.logs.map(({ key }) => key).sort(), ["", " odd 🦊 ", "own"]);
          await assertAllThere(opened);
          const own = await opened.openLog("own");
          assertEquals(own.cursors.map(({ name, offset }) => [name, offset]), [["own", 0]]);
          assertGreater(own.reserved, own.end);
          assertEquals((await opened.openLog("")).cursors, []);
        }, { onDamage: (damage) => damages.push(damage) });
        assertEquals(damages, []);
        // Also nobody who was there before the next end deletes it.
        await withOpen(folder, async (opened) => {
          const shared = await opened.openLog("");
          const cursor = await shared.openCursor("a", shared.start);
          await assertHolds(shared, cursor.offset, 6 * LENGTH, LENGTH);
        });
        const again = await queue("repair", folder);
        assertEquals(again.stdout, "no damage: there is nothing to repair\n");
      }));
  }

  test("in which any bit has changed does no silent harm", () =>
    withMade(async (made) => {
      const { size } = statSync(join(made, "queue.db"));
      // The pages with the rows, and some of the header. (What a reader has got cannot be told.)
      const places = [
        0,
        18,
        20,
        59,
        60,
        63,
        68,
        71,
        100,
        101,
        103,
        105,
        107,
        108,
        4096,
        4099,
        4101,
      ];
      let refused = 0;
      for (const at of places.filter((at) => at < size)) {
        const folder = `${made} ${at}`;
        cpSync(made, folder, { recursive: true });
        flip(join(folder, "queue.db"), at, 1 << at % 8);
        const damages: Damage[] = [];
        const options = {
          onDamage: (damage: Damage) => damages.push(damage),
          sync: "off",
        } as const;
        const failed = await withOpen(folder, assertAllThere, options).then(
          () => undefined,
          (error: Error) => error,
        );
        if (failed !== undefined) {
          assert(failed instanceof QueueError, `${at}: ${failed.stack}`);
          assert(!failed.message.includes("\n"), failed.message);
          refused++;
        }
        rmSync(folder, { recursive: true });
      }
      assertGreater(refused, 3);
    }));

  test("of another version is refused and left as it is", () =>
    withMade(async (folder) => {
      change(folder, "PRAGMA user_version = 3");
      const before = hash(join(folder, "queue.db"));
      const message = await refusal(folder);
      assertMatch(
        message,
        /has version 3, and this program supports only version 2; it was not changed$/,
      );
      assertEquals((await queue("status", folder)).stderr, `queue: ${message}\n`);
      assertEquals(hash(join(folder, "queue.db")), before);
    }));

  test("of something else is refused and left as it is", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "other");
      mkdirSync(folder);
      const database = new DatabaseSync(join(folder, "queue.db"));
      database.exec("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
      database.close();
      const before = hash(join(folder, "queue.db"));
      const message = await refusal(folder);
      assertMatch(
        message,
        /queue\.db is an SQLite database but not a queue's; it was not changed$/,
      );
      assertEquals((await queue("status", folder)).stderr, `queue: ${message}\n`);
      assertEquals(hash(join(folder, "queue.db")), before);
      rmSync(join(folder, "queue.db"));
      mkdirSync(join(folder, "queue.db"));
      assertMatch(await refusal(folder), /queue\.db is not a regular file$/);
    }));

  test("that cannot be made anew says why", () =>
    withMade(async (folder) => {
      rmSync(join(folder, "queue.db"));
      const stream = readdirSync(folder).find((name) =>
        existsSync(join(folder, name, "key")) &&
        readFileSync(join(folder, name, "key"), "utf8") === "own\n"
      )!;
      renameSync(join(folder, stream, "key"), join(folder, "key"));
      const without = await queue("repair", folder, "--apply");
      assertEquals(without.status, 1);
      assertMatch(
        without.stderr,
        /^queue: cannot repair the queue \S+: \S+key, [^\n]* cannot be read\n$/,
      );
      renameSync(join(folder, "key"), join(folder, stream, "key"));
      cpSync(join(folder, stream), join(folder, "0123456789abcdef"), { recursive: true });
      const twice = await queue("repair", folder, "--apply");
      assertEquals(twice.status, 1);
      assertMatch(
        twice.stderr,
        /^queue: cannot repair [^\n]* are of the same reader; move one [^\n]*\n$/,
      );
      rmSync(join(folder, "0123456789abcdef"), { recursive: true });
      assertEquals((await queue("repair", folder, "--apply")).status, 0);
      await withOpen(folder, assertAllThere);
    }));
});

test("a stream whose folder is missing is told of", () =>
  withMade(async (folder) => {
    const stream = await withOpen(folder, async (opened) => (await opened.openLog("own")).stream);
    rmSync(join(folder, stream), { recursive: true });
    const damages: Damage[] = [];
    await withOpen(folder, async (opened) => {
      const log = await opened.openLog("own");
      assertEquals(await log.read(0), null);
      await fill(log, 1, LENGTH);
    }, { onDamage: (damage) => damages.push(damage) });
    assertEquals(damages.length, 1);
    assertMatch(damages[0]!.reason, /folder of its stream is missing/);
  }));

function change(folder: string, statements: string): void {
  const database = new DatabaseSync(join(folder, "queue.db"));
  // One file that says all.
  database.exec(`PRAGMA foreign_keys = OFF; ${statements}`);
  database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  database.close();
}

test("a batch stays where it is when the database is made anew twice", () =>
  withMade(async (folder) => {
    for (let round = 0; round < 2; round++) {
      rmSync(join(folder, "queue.db"));
      assertEquals((await queue("repair", folder, "--apply")).status, 0);
    }
    await withOpen(folder, async (opened) => {
      assertBatch(await (await opened.openLog("")).read(LENGTH), LENGTH, LENGTH);
    });
  }));
