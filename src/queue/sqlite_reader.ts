/** A reader's row in the queue's file: what was delivered, and totals of its stored batches. */
import type { DatabaseSync, SQLOutputValue } from "node:sqlite";
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

/** The row of a new reader. */
export function newReader(id: number, name: string, stream: string): ReaderRow {
  const counts = { tail: 0, tailPosition: 0, batches: 0, bytes: 0, messages: 0 };
  return { id, name, stream, delivered: 0, deliveredPosition: 0, reserved: 0, ...counts };
}

/** The values of the table's columns; the last one is a CRC-32 of the others. */
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

export interface FoundReader {
  row: ReaderRow;
  /** Its CRC-32 is right. */
  intact: boolean;
}

/** All readers. */
export function readReaders(database: DatabaseSync): FoundReader[] {
  return prepareRaw(database, "SELECT * FROM readers ORDER BY id").all().map((columns) =>
    readerOf(Object.values(columns))
  );
}

/** A row from the values of its columns. */
export function readerOf(columns: readonly SQLOutputValue[]): FoundReader {
  const [id, name, stream, ...rest] = columns;
  const numbers = rest.map(toNumber);
  const number = (column: number) => numbers[column] ?? NaN;
  const row: ReaderRow = {
    id: toNumber(id),
    name: String(name),
    stream: String(stream),
    delivered: number(0),
    deliveredPosition: number(1),
    reserved: number(2),
    tail: number(3),
    tailPosition: number(4),
    batches: number(5),
    bytes: number(6),
    messages: number(7),
  };
  return { row, intact: columnsOf(row).at(-1) === number(8) };
}

/** An error that only a repair can resolve: the queue must not be used further. */
export function inconsistentFile(file: string): QueueError {
  return new QueueError(
    `${file} is damaged (its numbers are inconsistent): ` +
      "`queue check` lists the damage, `queue repair` saves what is intact",
  );
}
