/** Queues of the first version: one file, which is refused and can be exported. */
import { describe, test } from "node:test";
import { readdirSync, readFileSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { Buffer } from "node:buffer";
import { DatabaseSync } from "node:sqlite";
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "#std/assert";
import { openDiskQueue } from "../src/queue/disk_queue.ts";
import { QueueError } from "../src/queue/queue.ts";
import { run, type RunResult } from "./process.ts";
import { batchBytes, hash, withFolder } from "./queue_batches.ts";
import { within } from "./within.ts";

const MS = 10_000;

const queue = (...args: string[]): Promise<RunResult> => run(["bin/queue.ts", ...args]);

const refusal = async (folder: string): Promise<string> => {
  const error = await assertRejects(() => within("open", MS, openDiskQueue(folder)), QueueError);
  assert(!error.message.includes("\n"), "more than one line");
  return error.message;
};

/** The schema of the first version. */
const FIRST = `
  PRAGMA page_size = 65536;
  PRAGMA application_id = ${0x73706c71};
  PRAGMA user_version = 1;
  CREATE TABLE readers (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, stream TEXT NOT NULL, delivered INTEGER NOT NULL,
    delivered_position INTEGER NOT NULL, reserved INTEGER NOT NULL, tail INTEGER NOT NULL,
    tail_position INTEGER NOT NULL, batches INTEGER NOT NULL, bytes INTEGER NOT NULL,
    messages INTEGER NOT NULL, crc INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE batches (
    reader INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    messages INTEGER NOT NULL, position INTEGER NOT NULL, stored_at INTEGER NOT NULL,
    crc INTEGER NOT NULL, data INTEGER NOT NULL, PRIMARY KEY (reader, offset)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE data (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
  CREATE TABLE damaged (
    id INTEGER PRIMARY KEY, reader, offset, length, messages, position, stored_at, crc, data,
    reason TEXT NOT NULL, found_at INTEGER NOT NULL
  );
`;

/** A queue of the first version: its readers, each with batches of 1000 bytes, from 0 on. */
function makeFirst(file: string, readers: Record<string, { count: number; delivered: number }>) {
  const database = new DatabaseSync(file);
  database.exec(FIRST);
  const put = (table: string, ...values: (number | string | Uint8Array)[]) =>
    database.prepare(`INSERT INTO ${table} VALUES (${values.map(() => "?").join()})`)
      .run(...values);
  let data = 0;
  for (const [index, [name, { count, delivered }]] of Object.entries(readers).entries()) {
    const end = count * 1000;
    const stream = `000000000000000${index}`;
    put("readers", index + 1, name, stream, delivered, 0, 0, end, 0, count, end, count, 0);
    for (let i = 0; i < count; i++) {
      put("data", ++data, batchBytes(i * 1000, 1000));
      put("batches", index + 1, i * 1000, 1000, 10, 0, 1, 0, data);
    }
  }
  database.close();
}

describe("a queue of the first version", () => {
  test("is refused with the way out, and left as it is", () =>
    withFolder(async (folder) => {
      const file = join(folder, "a.queue");
      makeFirst(file, { a: { count: 5, delivered: 0 } });
      const before = hash(file);
      const message = await refusal(file);
      assertEquals(
        message,
        `${file} is a queue of an earlier version, which was one file; it was not changed. ` +
          `Save its messages with \`queue export ${file}\`, and name a new folder`,
      );
      for (const command of ["status", "check", "repair"]) {
        const { status, stdout, stderr } = await queue(command, file);
        assertEquals([status, stdout, stderr], [1, "", `queue: ${message}\n`]);
      }
      const args = ["server.ts", "--port", "0", "--overflow", "spill", "--spill", file];
      const server = await run(args);
      assertEquals(server.status, 1);
      assertStringIncludes(server.stderr, message);
      assertEquals(hash(file), before);
      assertEquals(readdirSync(folder), ["a.queue"]);
    }));

  test("is exported: what was not delivered, of each reader", () =>
    withFolder(async (folder) => {
      const file = join(folder, "a.queue");
      makeFirst(file, {
        a: { count: 5, delivered: 2500 },
        "b c": { count: 3, delivered: 0 },
        done: { count: 0, delivered: 7000 },
      });
      const before = hash(file);
      const which = await queue("export", file);
      assertEquals(which.status, 2);
      assertStringIncludes(which.stderr, "has 3 readers: choose one with --reader: a, b c, done");
      for (
        const [name, from, to, count] of [
          ["a", 2500, 5000, 3],
          ["b c", 0, 3000, 3],
          ["done", 0, 0, 0],
        ] as const
      ) {
        const out = join(folder, `${name}.out`);
        const { status, stdout, stderr } = await queue(
          "export",
          file,
          "--reader",
          name,
          "--out",
          out,
        );
        assertEquals([status, stdout], [0, ""], stderr);
        assertMatch(stderr, new RegExp(`^exported ${count} batches, [^\n]*\n$`));
        assertEquals(Buffer.compare(readFileSync(out), batchBytes(from, to - from)), 0);
      }
      const unknown = await queue("export", file, "--reader", "nobody");
      assertEquals(unknown.status, 1);
      assertStringIncludes(unknown.stderr, 'has no reader "nobody": it has a, b c, done');
      assertEquals(hash(file), before);
    }));

  test("that is damaged is not exported without a word", () =>
    withFolder(async (folder) => {
      const file = join(folder, "a.queue");
      makeFirst(file, { a: { count: 200, delivered: 0 } });
      truncateSync(file, 2 * 65_536);
      const { status, stderr } = await queue("export", file);
      assertEquals(status, 1);
      assertMatch(stderr, /^queue: [^\n]+\n$/);
    }));
});
