/** A batch in the queue's file: its row of numbers, its bytes, and whether both are as stored. */
import type { DatabaseSync, SQLOutputValue, StatementSync } from "node:sqlite";
import zlib from "node:zlib";
import type { Damage } from "./queue.ts";
import type { DataPages } from "./sqlite_pages.ts";

/** As it stands in the file: in a damaged one anything may be anywhere. Integers are bigints. */
export type BatchRow = Record<
  "reader" | "offset" | "length" | "messages" | "position" | "stored_at" | "crc" | "data",
  SQLOutputValue
>;

/** Of the table `batches`, in the order of BatchRow. */
export const BATCH_COLUMNS = "reader, offset, length, messages, position, stored_at, crc, data";

const encoder = new TextEncoder();

/** CRC-32 of what may not change: a flipped bit in a number is as bad as one in the bytes. */
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

/** Prepares a query whose integers come as bigints: a damaged one may be past those of a number. */
export function prepareRaw(database: DatabaseSync, query: string): StatementSync {
  const statement = database.prepare(query);
  statement.setReadBigInts(true);
  return statement;
}

/** A number of a damaged row may be anything; messages about it need one. */
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

  /** The bytes of a batch that is as it was stored, perhaps in `into`, or what is wrong with it. */
  read(row: BatchRow, stream: string, into?: ArrayBuffer): Uint8Array | string {
    const quick = this.#pages?.read(toNumber(row.data), toNumber(row.length), into);
    // What is wrong is SQLite's to find.
    if (quick !== undefined && isIntact(row, stream, quick)) return quick;
    let bytes: SQLOutputValue | undefined;
    try {
      bytes = this.#select.get(row.data as bigint)?.bytes;
    } catch (error) {
      return `its bytes cannot be read: ${(error as Error).message}`;
    }
    if (bytes === undefined) return "its bytes are gone";
    if (!(bytes instanceof Uint8Array)) return "its bytes are none any more";
    const length = toNumber(row.length);
    if (bytes.length !== length) {
      return `it has ${bytes.length} bytes, and should have ${length}`;
    }
    return isIntact(row, stream, bytes) ? bytes : "its CRC-32 is wrong";
  }
}

function isIntact(row: BatchRow, stream: string, bytes: Uint8Array): boolean {
  const [offset, messages, position] = [row.offset, row.messages, row.position].map(toNumber);
  return batchCrc(stream, offset!, messages!, position!, bytes) === toNumber(row.crc);
}

/** What is told of a batch that is set aside. */
export function damageOf(reader: string, row: BatchRow, reason: string): Damage {
  return {
    reader,
    offset: toNumber(row.offset),
    bytes: toNumber(row.length),
    messages: toNumber(row.messages),
    reason,
  };
}
