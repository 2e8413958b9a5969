/** What queues are filled with in tests: bytes that tell their place. */
import { createHash } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { assert, assertEquals } from "#std/assert";
import { Buffer } from "node:buffer";
import { type DiskQueueOptions, openDiskQueue } from "../src/queue/disk_queue.ts";
import { type Batch, endOf, type Log, type Queue, type StoredBatch } from "../src/queue/queue.ts";
import { within } from "./within.ts";

/** Byte i of the stream; its period, a prime, fits no record and no segment. */
const PERIOD = 65_521;
const PATTERN = Uint8Array.from({ length: PERIOD + (2 << 20) }, (_, i) => (i % PERIOD) * 31 >> 3);

/** The bytes of the stream from `offset` on, in a buffer of their own. */
export function batchBytes(offset: number, length: number): Uint8Array<ArrayBuffer> {
  return PATTERN.slice(offset % PERIOD, offset % PERIOD + length);
}

/** A batch of 10 messages at this place. */
export function batchAt(offset: number, length: number): Batch {
  return { offset, bytes: batchBytes(offset, length), messages: 10 };
}

/** It is that one, stored within the last few minutes. */
export function assertBatch(batch: StoredBatch | null, offset: number, length: number): void {
  assert(batch !== null, `there is no batch at ${offset}`);
  const { bytes, storedAtMs, ...numbers } = batch;
  assertEquals(numbers, { offset, messages: 10 });
  assertEquals(Buffer.compare(bytes, batchBytes(offset, length)), 0, `other bytes at ${offset}`);
  assert(Math.abs(Date.now() - storedAtMs) < 600_000, `stored at ${storedAtMs}`);
}

/** A folder for the test, which goes with it. */
export async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-queue-"));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Opens a queue, and closes it whatever happens. */
export async function withOpen<T>(
  folder: string,
  use: (queue: Queue) => Promise<T>,
  options: DiskQueueOptions = {},
): Promise<T> {
  const queue = await within("open", 10_000, openDiskQueue(folder, options));
  try {
    return await within("the test", 60_000, use(queue));
  } finally {
    await within("close", 10_000, queue.close());
  }
}

/** A queue for the test alone. */
export async function withQueue(
  use: (queue: Queue, folder: string) => Promise<void>,
  options: DiskQueueOptions = {},
): Promise<void> {
  await withFolder(async (parent) => {
    const folder = join(parent, "queue");
    await withOpen(folder, (queue) => use(queue, folder), options);
  });
}

/** Appends so many batches, one after the other, with no gap. */
export async function fill(log: Log, count: number, length: number): Promise<void> {
  const start = log.end;
  const appends = Array.from(
    { length: count },
    (_, i) => log.append(batchAt(start + i * length, length)),
  );
  await within("appends", 30_000, Promise.all(appends));
}

/** Reads all from `start` on, which must be what `fill` has stored. */
export async function assertHolds(
  log: Log,
  start: number,
  end: number,
  length: number,
): Promise<void> {
  for (let offset = start; offset < end; offset += length) {
    assertBatch(await within("read", 10_000, log.read(offset)), offset, length);
  }
  assertEquals(await log.read(end), null);
}

/** The offsets of all batches that can be read, each of which must have the bytes of its place. */
export async function offsetsOf(log: Log, length: number, from = 0): Promise<number[]> {
  const offsets: number[] = [];
  for (let at = from;;) {
    const batch = await within("read", 10_000, log.read(at));
    if (batch === null) return offsets;
    assertBatch(batch, batch.offset, length);
    assert(endOf(batch) > at, "a batch before the offset");
    offsets.push(batch.offset);
    at = endOf(batch);
  }
}

/** The segment files of a log, oldest first. */
export function segmentFiles(folder: string, { stream }: Pick<Log, "stream">): string[] {
  const names = readdirSync(join(folder, stream)).filter((name) => name.endsWith(".segment"));
  return names.sort().map((name) => join(folder, stream, name));
}

/** Changes the bits of a mask in one byte of a file; `at` counts from the end if it is negative. */
export function flip(file: string, at: number, mask = 0x10): void {
  const content = readFileSync(file);
  const index = at < 0 ? content.length + at : at;
  assert(index >= 0 && index < content.length, `${file} has ${content.length} bytes, not ${at}`);
  content[index]! ^= mask;
  writeFileSync(file, content);
}

/** What a kill leaves of a queue that was closed: what was stored then is not recorded. */
export function asKilled(folder: string): void {
  const database = new DatabaseSync(join(folder, "queue.db"));
  database.exec("DELETE FROM ranges WHERE what = 'closed'; PRAGMA wal_checkpoint(TRUNCATE)");
  database.close();
}

/** Of all its bytes; undefined: there is no file. */
export const hash = (file: string): string | undefined =>
  existsSync(file) ? createHash("sha256").update(readFileSync(file)).digest("hex") : undefined;

/** Of a file, or of all files in a folder, by their paths: to see whether anything has changed. */
export function hashes(path: string): Record<string, string | undefined> {
  if (!lstatSync(path).isDirectory()) return { [path]: hash(path) };
  const names = readdirSync(path).sort().map((name) => hashes(join(path, name)));
  return Object.assign({ [path]: "a folder" }, ...names);
}
