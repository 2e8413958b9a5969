/** What queues are filled with in tests: bytes that tell their place. */
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertEquals } from "#std/assert";
import { Buffer } from "node:buffer";
import type { Batch, QueueReader } from "../src/queue/queue.ts";
import { within } from "./within.ts";

/** Byte i of the stream; its period, a prime, fits no page and no batch. */
const PERIOD = 65_521;
const PATTERN = Uint8Array.from({ length: PERIOD + (2 << 20) }, (_, i) => (i % PERIOD) * 31 >> 3);

/** The bytes of the stream from `offset` on, in a buffer of their own. */
export function batchBytes(offset: number, length: number): Uint8Array<ArrayBuffer> {
  return PATTERN.slice(offset % PERIOD, offset % PERIOD + length);
}

/** A batch of 10 messages at this place; its position is its end. */
export function batchAt(offset: number, length: number): Batch {
  return { offset, bytes: batchBytes(offset, length), messages: 10, position: offset + length };
}

/** It is that one. */
export function assertBatch(batch: Batch | null, offset: number, length: number): void {
  const { bytes, ...numbers } = batch!;
  assertEquals(numbers, { offset, messages: 10, position: offset + length });
  assertEquals(Buffer.compare(bytes, batchBytes(offset, length)), 0, `other bytes at ${offset}`);
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

/** Appends so many batches, one behind the other. */
export async function fill(reader: QueueReader, count: number, length: number): Promise<void> {
  const start = reader.tail;
  const appends = Array.from(
    { length: count },
    (_, i) => reader.append(batchAt(start + i * length, length)),
  );
  await within("appends", 30_000, Promise.all(appends));
}

/** Reads all of it, which must be what `fill` has stored. */
export async function assertHolds(
  reader: QueueReader,
  start: number,
  end: number,
  length: number,
): Promise<void> {
  let offset = start;
  for (; offset < end; offset += length) {
    assertBatch(await within("read", 10_000, reader.read(offset)), offset, length);
  }
  assertEquals(await reader.read(end), null);
}

/** Of all its bytes; undefined: there is no file. */
export const hash = (file: string): string | undefined =>
  existsSync(file) ? createHash("sha256").update(readFileSync(file)).digest("hex") : undefined;
