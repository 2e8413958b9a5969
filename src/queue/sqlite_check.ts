/** Reads a queue's file, and checks it for damage. Changes nothing but an interrupted transaction. */
import { statSync } from "node:fs";
import type { DatabaseSync } from "node:sqlite";
import { type Damage, QueueError } from "./queue.ts";
import {
  BATCH_COLUMNS,
  BatchData,
  type BatchRow,
  damageOf,
  prepareRaw,
  toNumber,
} from "./sqlite_batch.ts";
import {
  BUSY,
  closeFile,
  codeOf,
  explain,
  hasHotJournal,
  identify,
  openFile,
  type Sqlite,
  valueOf,
} from "./sqlite_file.ts";
import { type Figures, readLive } from "./sqlite_live.ts";
import { type ReaderRow, readReaders } from "./sqlite_reader.ts";

export interface QueueStatus {
  file: string;
  fileBytes: number;
  /** Bytes of the file that hold no data: reused, or returned to the file system later. */
  freeBytes: number;
  /** A process has the queue open: the figures are those of this moment. */
  open: boolean;
  /** Damaged batches that were set aside. */
  damaged: number;
  readers: ReaderStatus[];
}

export interface ReaderStatus {
  name: string;
  stream: string;
  /** What is stored for it and not delivered. */
  batches: number;
  bytes: number;
  messages: number;
  delivered: number;
  tail: number;
  /** When its oldest stored batch was stored; ISO 8601. */
  oldest?: string;
}

/** Throws a QueueError when there is no queue. */
export function requireQueue(file: string): void {
  if (identify(file) === "nothing") throw new QueueError(`there is no queue ${file}`);
}

/** The status of a queue, also while another process has it open. Rejects with a QueueError. */
export async function queueStatus(sqlite: Sqlite, file: string): Promise<QueueStatus> {
  requireQueue(file);
  const closed = () => statusOf(file, false, readClosed(openReadOnly(sqlite, file)));
  try {
    try {
      return closed();
    } catch (error) {
      if (codeOf(error) === BUSY || !hasHotJournal(file)) throw error;
      // Only now: this writes, and a transaction in progress also leaves a hot journal.
      rollBackInterrupted(sqlite, file);
      return closed();
    }
  } catch (error) {
    const busy = codeOf((error as Error).cause ?? error) === BUSY;
    if (!busy) throw explain(file, error);
  }
  return statusOf(file, true, await readLive(file));
}

function statusOf(
  file: string,
  open: boolean,
  { readers, damaged, freeBytes }: Figures,
): QueueStatus {
  return {
    file,
    fileBytes: statSync(file).size,
    freeBytes,
    open,
    damaged,
    readers: readers.map(({ row, oldest }) => {
      const { name, stream, batches, bytes, messages, delivered } = row;
      const tail = batches === 0 ? delivered : Math.max(delivered, row.tail);
      const status = { name, stream, batches, bytes, messages, delivered, tail };
      return oldest === undefined ? status : { ...status, oldest: new Date(oldest).toISOString() };
    }),
  };
}

function readClosed(database: DatabaseSync): Figures {
  try {
    const pageSize = valueOf(database, "PRAGMA page_size") as number;
    const free = valueOf(database, "PRAGMA freelist_count") as number;
    const oldest = database.prepare(
      "SELECT stored_at FROM batches WHERE reader = ? ORDER BY offset LIMIT 1",
    );
    return {
      freeBytes: free * pageSize,
      damaged: valueOf(database, "SELECT count(*) FROM damaged") as number,
      readers: readReaders(database).map(({ row }) => ({
        row,
        oldest: oldest.get(row.id)?.stored_at as number | undefined,
      })),
    };
  } finally {
    database.close();
  }
}

/** Opens a file for reading, even if it is truncated. Throws SQLite's errors. */
export function openReadOnly({ DatabaseSync }: Sqlite, file: string): DatabaseSync {
  // SQLite's defensive mode would ignore writable_schema. A constant, as the types of some versions
  // do not have `defensive` yet.
  const options = { readOnly: true, defensive: false };
  const database = new DatabaseSync(file, options);
  try {
    database.exec("PRAGMA busy_timeout = 100; PRAGMA writable_schema = ON; BEGIN");
    valueOf(database, "SELECT count(*) FROM sqlite_schema");
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

/** Like `explain`; for a queue that another process has open it says what is still possible. */
export function explainOpening(file: string, error: unknown): Error {
  if (codeOf((error as Error).cause ?? error) !== BUSY) return explain(file, error);
  return new QueueError(
    `${file} is open in another process: only \`queue status\` works until that process closes it`,
    { cause: error },
  );
}

/** Lets SQLite roll back an interrupted transaction, as opening the queue for writing does too. */
export function rollBackInterrupted(sqlite: Sqlite, file: string): void {
  if (hasHotJournal(file)) closeFile(openFile(sqlite, file, "always"));
}

/** One batch of the file. */
export interface FoundBatch {
  row: BatchRow;
  /** Undefined: it belongs to no reader in the file. */
  reader: ReaderRow | undefined;
  /** Its bytes, or what is wrong with it. */
  bytes: Uint8Array | string;
}

/** Everything in a queue's file that can be read. */
export class QueueContent {
  readonly readers: ReaderRow[];
  /** Readers whose row has a wrong CRC-32. */
  readonly damagedReaders: Set<ReaderRow> = new Set();
  /** What is wrong with the file's structure, a line each; empty: nothing. */
  readonly broken: string[] = [];
  readonly #database: DatabaseSync;
  readonly #rows: BatchRow[];

  /** Throws a QueueError if nothing can be read, or if another process has the queue open. */
  constructor(sqlite: Sqlite, file: string) {
    requireQueue(file);
    try {
      rollBackInterrupted(sqlite, file);
      this.#database = openReadOnly(sqlite, file);
    } catch (error) {
      throw explainOpening(file, error);
    }
    try {
      this.readers = readReaders(this.#database).map(({ row, intact }) => {
        if (intact) return row;
        this.damagedReaders.add(row);
        this.broken.push(`the row of reader ${JSON.stringify(row.name)} is damaged`);
        return row;
      });
    } catch (error) {
      this.#database.close();
      throw explain(file, error);
    }
    this.#rows = this.#scan();
  }

  /** All batches, intact or damaged, by reader and in stream order. */
  *batches(): Generator<FoundBatch> {
    const data = new BatchData(this.#database);
    const readers = new Map(this.readers.map((row) => [row.id, row]));
    for (const row of this.#rows) {
      const reader = readers.get(toNumber(row.reader));
      const bytes = reader === undefined
        ? "it belongs to no reader"
        : data.read(row, reader.stream);
      yield { row, reader, bytes };
    }
  }

  /** Runs SQLite's integrity check; reads the whole file. */
  checkStructure(): void {
    const add = (text: string) => this.broken.push(...text.split("\n").slice(0, 20));
    try {
      const found = this.#database.prepare("PRAGMA integrity_check(20)").all();
      const lines = found.map((row) => String(Object.values(row)[0]));
      if (lines.join() !== "ok") lines.forEach(add);
    } catch (error) {
      add((error as Error).message);
    }
  }

  /** Damaged batches that were set aside earlier, and when. */
  damaged(): { damage: Damage; foundAt: string }[] {
    try {
      const query = `SELECT ${BATCH_COLUMNS}, reason, found_at FROM damaged ORDER BY id`;
      return prepareRaw(this.#database, query).all().map((row) => {
        const reader = this.readers.find(({ id }) => id === toNumber(row.reader));
        return {
          damage: damageOf(reader?.name ?? "?", row as BatchRow, String(row.reason)),
          foundAt: new Date(toNumber(row.found_at)).toISOString(),
        };
      });
    } catch (error) {
      this.broken.push(`the table of damaged batches cannot be read: ${(error as Error).message}`);
      return [];
    }
  }

  close(): void {
    this.#database.close();
  }

  /** All rows; if one in the middle is not readable, those that can be read from either end. */
  #scan(): BatchRow[] {
    const read = (order: string): { rows: BatchRow[]; complete: boolean } => {
      const rows: BatchRow[] = [];
      const query =
        `SELECT ${BATCH_COLUMNS} FROM batches ORDER BY reader ${order}, offset ${order}`;
      try {
        for (const row of prepareRaw(this.#database, query).iterate()) rows.push(row as BatchRow);
        return { rows, complete: true };
      } catch (error) {
        this.broken.push(`the list of batches cannot be read: ${(error as Error).message}`);
        return { rows, complete: false };
      }
    };
    const { rows, complete } = read("ASC");
    if (complete) return rows;
    const known = new Set(rows.map(({ reader, offset }) => `${reader} ${offset}`));
    const rest = read("DESC").rows.filter((row) => !known.has(`${row.reader} ${row.offset}`));
    return [...rows, ...rest.reverse()];
  }
}

/** What a check of a queue found. */
export interface CheckResult {
  /** Intact batches. */
  intact: { batches: number; bytes: number; messages: number };
  /** What is wrong with the file's structure: only a copy into a new file repairs it. */
  broken: string[];
  /** Damaged batches that are not set aside yet. */
  damages: Damage[];
  /** Damaged batches that were set aside earlier. */
  setAside: { damage: Damage; foundAt: string }[];
  /** Bytes between batches that are not stored: delivered already, lost, or set aside. */
  gaps: { reader: string; offset: number; bytes: number }[];
}

/** Checks every byte of a queue that no process has open. Throws a QueueError. */
export function checkQueue(sqlite: Sqlite, file: string): CheckResult {
  const content = new QueueContent(sqlite, file);
  const intact = { batches: 0, bytes: 0, messages: 0 };
  const result: CheckResult = { intact, broken: [], damages: [], setAside: [], gaps: [] };
  /** By reader id: the end of its last intact batch, and their number. */
  const seen = new Map<number, { end: number; batches: number }>();
  try {
    content.checkStructure();
    for (const { row, reader, bytes } of content.batches()) {
      if (typeof bytes === "string" || reader === undefined) {
        result.damages.push(damageOf(reader?.name ?? "?", row, String(bytes)));
        continue;
      }
      const offset = toNumber(row.offset);
      const last = seen.get(reader.id) ?? { end: offset, batches: 0 };
      if (offset > last.end) {
        result.gaps.push({ reader: reader.name, offset: last.end, bytes: offset - last.end });
      }
      seen.set(reader.id, { end: offset + bytes.length, batches: last.batches + 1 });
      intact.batches++;
      intact.bytes += bytes.length;
      intact.messages += toNumber(row.messages);
    }
    result.setAside = content.damaged();
    for (const { id, name, batches } of content.readers) {
      const bad = result.damages.filter(({ reader }) => reader === name).length;
      const found = (seen.get(id)?.batches ?? 0) + bad;
      if (found !== batches) {
        content.broken.push(
          `reader ${JSON.stringify(name)} should have ${batches} batches but has ${found}`,
        );
      }
    }
    result.broken = content.broken;
    return result;
  } finally {
    content.close();
  }
}
