/** A reader's row in the queue's file: how far it got, and what waits for it. */
import type { DatabaseSync } from "node:sqlite";
import zlib from "node:zlib";
import { QueueError } from "./queue.ts";
import { prepareRaw, toNumber } from "./sqlite_batch.ts";

/** In the order of the table's columns. */
export interface ReaderRow {
  id: number;
  name: string;
  stream: string;
  delivered: number;
  deliveredPosition: number;
  reserved: number;
  /** End of the last batch, and the position after it; 0 while there was none. */
  tail: number;
  tailPosition: number;
  batches: number;
  bytes: number;
  messages: number;
}

/** A new reader's. */
export function newReader(id: number, name: string, stream: string): ReaderRow {
  const counts = { tail: 0, tailPosition: 0, batches: 0, bytes: 0, messages: 0 };
  return { id, name, stream, delivered: 0, deliveredPosition: 0, reserved: 0, ...counts };
}

/** What is bound to the columns; the last one is a CRC-32 of the others. */
export function columnsOf(row: ReaderRow): (string | number)[] {
  const columns = [
    row.id,
    row.name,
    row.stream,
    row.delivered,
    row.deliveredPosition,
    row.reserved,
    row.tail,
    row.tailPosition,
    row.batches,
    row.bytes,
    row.messages,
  ];
  return [...columns, zlib.crc32(JSON.stringify(columns))];
}

/** All readers, and whether each row is as it was written. */
export function readReaders(database: DatabaseSync): { row: ReaderRow; intact: boolean }[] {
  return prepareRaw(database, "SELECT * FROM readers ORDER BY id").all().map((columns) => {
    const number = (name: string) => toNumber(columns[name]);
    const row: ReaderRow = {
      id: number("id"),
      name: String(columns.name),
      stream: String(columns.stream),
      delivered: number("delivered"),
      deliveredPosition: number("delivered_position"),
      reserved: number("reserved"),
      tail: number("tail"),
      tailPosition: number("tail_position"),
      batches: number("batches"),
      bytes: number("bytes"),
      messages: number("messages"),
    };
    return { row, intact: columnsOf(row).at(-1) === number("crc") };
  });
}

/** What the numbers of the file contradict cannot be put right by going on. */
export function brokenNumbers(file: string): QueueError {
  return new QueueError(
    `${file} is damaged (its numbers contradict each other): ` +
      "`queue check` tells what, `queue repair` saves the rest",
  );
}
