/** A batch in the queue's file: its row, its bytes, and the CRC-32 that protects both. */
import type { DatabaseSync, SQLOutputValue, StatementSync } from "node:sqlite";
import zlib from "node:zlib";
import type { Damage } from "./queue.ts";
import type { DataPages } from "./sqlite_pages.ts";

/** A row as read from the file: in a damaged file each value can be anything. Integers are bigints. */
export type BatchRow = Record<
  "reader" | "offset" | "length" | "messages" | "position" | "stored_at" | "crc" | "data",
  SQLOutputValue
>;

/** Columns of the table `batches`, in the order of BatchRow. */
export const BATCH_COLUMNS = "reader, offset, length, messages, position, stored_at, crc, data";

const encoder = new TextEncoder();

/** CRC-32 of the bytes and the numbers: a flipped bit in either damages the batch. */
export function batchCrc(
  stream: string,
  offset: number,
  messages: number,
  position: number,
  bytes: Uint8Array,
): number {
  const numbers = new DataView(new ArrayBuffer(24));
  numbers.setFloat64(0, offset);
  numbers.setFloat64(8, messages);
  numbers.setFloat64(16, position);
  const head = zlib.crc32(new Uint8Array(numbers.buffer), zlib.crc32(encoder.encode(stream)));
  return zlib.crc32(bytes, head);
}

/** Prepares a query that returns integers as bigints: a damaged value can exceed the safe integers. */
export function prepareRaw(database: DatabaseSync, query: string): StatementSync {
  const statement = database.prepare(query);
  statement.setReadBigInts(true);
  return statement;
}

/** A column's value as a number; NaN if it is something else, as in a damaged row. */
export function toNumber(value: SQLOutputValue | undefined): number {
  return typeof value === "bigint" ? Number(value) : typeof value === "number" ? value : NaN;
}

/** Reads the bytes of batches. */
export class BatchData {
  readonly #select: StatementSync;
  readonly #pages: DataPages | undefined;

  constructor(database: DatabaseSync, pages?: DataPages) {
    this.#pages = pages;
    this.#select = database.prepare("SELECT bytes FROM data WHERE id = ?");
  }

  /**
   * The bytes of an intact batch, or a string that says what is wrong with it. May place the bytes in
   * `into`.
   */
  read(row: BatchRow, stream: string, into?: ArrayBuffer): Uint8Array | string {
    const direct = this.#pages?.read(toNumber(row.data), toNumber(row.length), into);
    if (direct !== undefined && isIntact(row, stream, direct)) return direct;
    // Otherwise read through SQLite, whose errors say what is wrong.
    let bytes: SQLOutputValue | undefined;
    try {
      bytes = this.#select.get(row.data as bigint)?.bytes;
    } catch (error) {
      return `its bytes cannot be read: ${(error as Error).message}`;
    }
    if (bytes === undefined) return "its bytes are missing";
    if (!(bytes instanceof Uint8Array)) return "its bytes are not a blob";
    const length = toNumber(row.length);
    if (bytes.length !== length) return `it has ${bytes.length} bytes instead of ${length}`;
    return isIntact(row, stream, bytes) ? bytes : "its CRC-32 is wrong";
  }
}

function isIntact(row: BatchRow, stream: string, bytes: Uint8Array): boolean {
  const [offset, messages, position] = [row.offset, row.messages, row.position].map(toNumber);
  return batchCrc(stream, offset!, messages!, position!, bytes) === toNumber(row.crc);
}

/** Describes a damaged batch. */
export function damageOf(reader: string, row: BatchRow, reason: string): Damage {
  return {
    reader,
    offset: toNumber(row.offset),
    bytes: toNumber(row.length),
    messages: toNumber(row.messages),
    reason,
  };
}
