/** The durable queue in SQLite, synchronously: many changes a transaction, all of it or nothing. */
import { newStream } from "../message/protocol.ts";
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { type Batch, type Damage, QueueError, QueueFull } from "./queue.ts";
import {
  BATCH_COLUMNS,
  batchCrc,
  BatchData,
  type BatchRow,
  damageOf,
  prepareRaw,
  toNumber,
} from "./sqlite_batch.ts";
import {
  closeFile,
  explain,
  openFile,
  PAGE_SIZE,
  type Sqlite,
  type SyncMode,
  valueOf,
} from "./sqlite_file.ts";
import { DataPages } from "./sqlite_pages.ts";
import {
  brokenNumbers,
  columnsOf,
  newReader,
  type ReaderRow,
  readReaders,
} from "./sqlite_reader.ts";

/** What can be asked of the store, each whole or not at all. */
export type Change =
  | { kind: "open"; name: string }
  /** After a failure all of the same `attempt` fail: what comes behind a lost batch is not stored. */
  | ({ kind: "append"; reader: number; attempt: number } & Batch)
  | { kind: "release"; reader: number; offset: number; position: number }
  | { kind: "reserve"; reader: number; offset: number };

/** What became of a change: the row of the reader that was opened, nothing, or why it failed. */
export type Outcome = ReaderRow | undefined | QueueFull | QueueError;

export interface StoreOptions {
  sync: SyncMode;
  /** Bytes of batches, of all readers. */
  maxBytes: number;
}

/** Batches that one transaction deletes for a reader: SQLite visits their pages. */
const MOST_DELETED = 256;
/** Pages that one step of giving space back moves, or cuts off where none has to be moved. */
const MOVED_PAGES = 64;
const CUT_PAGES = 256;
/** From so many pages on, the file shrinks while more than half of it is free. */
const LARGE_PAGES = (64 << 20) / PAGE_SIZE;
/** What an empty queue may keep. */
const SPARE_PAGES = 16;

export class SqliteStore {
  readonly #file: string;
  readonly #maxBytes: number;
  readonly #database: DatabaseSync;
  readonly #data: BatchData;
  readonly #pages: DataPages | undefined;
  readonly #query: Record<keyof typeof QUERIES, StatementSync>;
  /** As in the file; within a transaction, as it will be. */
  #rows: Map<number, ReaderRow> = new Map();
  /** The attempt that failed last, by reader. */
  #failed: Map<number, { attempt: number; why: QueueFull | QueueError }> = new Map();
  /** Batches of the last `read` or of opening that were set aside and nobody was told of yet. */
  #damages: Damage[] = [];

  /** Throws a QueueError. */
  constructor(sqlite: Sqlite, file: string, { sync, maxBytes }: StoreOptions) {
    this.#file = file;
    this.#maxBytes = maxBytes;
    this.#database = openFile(sqlite, file, sync);
    try {
      this.#query = {} as Record<keyof typeof QUERIES, StatementSync>;
      for (const [name, query] of Object.entries(QUERIES)) {
        this.#query[name as keyof typeof QUERIES] = prepareRaw(this.#database, query);
      }
      this.#pages = DataPages.open(this.#database, file);
      this.#data = new BatchData(this.#database, this.#pages);
      for (const { row, intact } of readReaders(this.#database)) {
        if (!intact) throw brokenNumbers(file);
        this.#rows.set(row.id, row);
      }
      for (const row of this.readers) this.#checkTail(row);
    } catch (error) {
      this.#database.close();
      this.#pages?.close();
      throw explain(file, error);
    }
  }

  /** All readers. */
  get readers(): ReaderRow[] {
    return [...this.#rows.values()];
  }

  reader(id: number): ReaderRow {
    return this.#rows.get(id)!;
  }

  /** What was set aside since it was asked last. */
  takeDamages(): Damage[] {
    return this.#damages.splice(0);
  }

  /** All changes in one transaction, or, if that fails, each in its own; what became of them. */
  apply(changes: readonly Change[]): Outcome[] {
    try {
      return this.#transact(() => changes.map((change) => this.#tryChange(change)));
    } catch (error) {
      if (changes.length > 1) return changes.flatMap((change) => this.apply([change]));
      const why = explain(this.#file, error, "writing");
      const [change] = changes;
      if (change?.kind === "append") this.#fail(change, why);
      return [why];
    }
  }

  /**
   * The good batch that holds `offset`, or the first one after it, perhaps in `into`. Throws a
   * QueueError.
   */
  read(reader: number, offset: number, into?: ArrayBuffer): Batch | null {
    const { id, name, stream } = this.reader(reader);
    try {
      while (true) {
        const row = this.#query.find.get(id, offset) as BatchRow | undefined;
        if (row === undefined) return null;
        const bytes = this.#data.read(row, stream, into);
        if (typeof bytes !== "string") {
          return {
            offset: toNumber(row.offset),
            bytes,
            messages: toNumber(row.messages),
            position: toNumber(row.position),
          };
        }
        this.#transact(() => this.#setAside(id, row, bytes));
        this.#damages.push(damageOf(name, row, bytes));
      }
    } catch (error) {
      throw explain(this.#file, error);
    }
  }

  /** Nothing waits for any reader. */
  get empty(): boolean {
    return this.readers.every(({ batches }) => batches === 0);
  }

  /**
   * A bounded piece of the work that nobody waits for: deletes what was released, and gives free
   * pages back. True: there is more to do.
   */
  tidy(): boolean {
    if (this.#deleteSome()) return true;
    const free = this.#freePages;
    const { empty } = this;
    const pages = valueOf(this.#database, "PRAGMA page_count") as number;
    if (empty ? free <= SPARE_PAGES : pages <= LARGE_PAGES || free * 2 <= pages) return false;
    // Not `exec`: it gives a row a page, of which Deno 2.9.5 takes one.
    this.#transact(() => (empty ? this.#query.cut : this.#query.vacuum).all());
    return true;
  }

  /** Gives all space back first if nothing waits any more. */
  close(): void {
    try {
      while (this.#deleteSome());
      // Three times as quick as to cut it off step by step; takes effect at once, and opening undoes it.
      if (this.empty && this.#freePages > SPARE_PAGES) {
        this.#database.exec("PRAGMA auto_vacuum = FULL");
      }
    } catch {
      // A disk that is full to the last page: whoever opens it next tries again.
    }
    try {
      closeFile(this.#database);
    } finally {
      this.#pages?.close();
    }
  }

  get #freePages(): number {
    return valueOf(this.#database, "PRAGMA freelist_count") as number;
  }

  /** Deletes some of what was released; false: there is none. */
  #deleteSome(): boolean {
    const behind = this.readers.find((row) => this.#released(row).length > 0);
    if (behind === undefined) return false;
    this.#transact(() => this.#deleteReleased(behind.id));
    return true;
  }

  /** All or nothing, in the file and in memory. */
  #transact<T>(work: () => T): T {
    const rows = structuredClone(this.#rows);
    const failed = new Map(this.#failed);
    try {
      this.#database.exec("BEGIN");
      const result = work();
      this.#database.exec("COMMIT");
      return result;
    } catch (error) {
      this.#rows = rows;
      this.#failed = failed;
      try {
        // SQLite has done it already after some errors.
        this.#database.exec("ROLLBACK");
      } catch {
        // That there is nothing to roll back.
      }
      throw error;
    } finally {
      this.#pages?.forget();
    }
  }

  /** Refuses what cannot be; throws what SQLite throws, which ends the transaction. */
  #tryChange(change: Change): Outcome {
    try {
      switch (change.kind) {
        case "open":
          return this.#open(change.name);
        case "append":
          return this.#append(change);
        case "release":
          return this.#release(change);
        case "reserve":
          return this.#reserve(change);
      }
    } catch (error) {
      if (!(error instanceof QueueError || error instanceof QueueFull)) throw error;
      if (change.kind === "append") this.#fail(change, error);
      return error;
    }
  }

  #fail({ reader, attempt }: Change & { kind: "append" }, why: QueueFull | QueueError): void {
    this.#failed.set(reader, { attempt, why });
  }

  #open(name: string): ReaderRow {
    const known = this.readers.find((row) => row.name === name);
    if (known !== undefined) return known;
    const id = Math.max(0, ...this.#rows.keys()) + 1;
    const row = newReader(id, name, newStream());
    this.#rows.set(row.id, row);
    this.#write(row);
    return row;
  }

  #append(change: Change & { kind: "append" }): undefined {
    const { reader, attempt, offset, bytes, messages, position } = change;
    const row = this.reader(reader);
    const failed = this.#failed.get(reader);
    if (failed?.attempt === attempt) throw failed.why;
    // Delivered while it was on its way here.
    if (offset + bytes.length <= row.delivered) return;
    if (offset < row.tail) {
      throw new QueueError(
        `cannot append at ${offset} for ${row.name}: batches must rise, the last ends at ${row.tail}`,
      );
    }
    const stored = this.readers.reduce((sum, { bytes }) => sum + bytes, 0);
    if (stored + bytes.length > this.#maxBytes) {
      const most = `it may hold ${this.#maxBytes} bytes and holds ${stored}`;
      throw new QueueFull(`no room in the queue ${this.#file}: ${most}`, "max");
    }
    const { lastInsertRowid: data } = this.#query.insertData.run(bytes);
    const crc = batchCrc(row.stream, offset, messages, position, bytes);
    const numbers = [offset, bytes.length, messages, position, Date.now(), crc];
    this.#query.insertBatch.run(reader, ...numbers, data);
    row.tail = offset + bytes.length;
    row.tailPosition = position;
    row.batches++;
    row.bytes += bytes.length;
    row.messages += messages;
    this.#write(row);
  }

  #release({ reader, offset, position }: Change & { kind: "release" }): undefined {
    const row = this.reader(reader);
    if (offset <= row.delivered) return;
    row.delivered = offset;
    row.deliveredPosition = position;
    this.#deleteReleased(reader);
  }

  #reserve({ reader, offset }: Change & { kind: "reserve" }): undefined {
    const row = this.reader(reader);
    if (offset <= row.reserved) return;
    row.reserved = offset;
    this.#write(row);
  }

  /** The first batches that end at or before `delivered`. */
  #released({ id, delivered }: ReaderRow): BatchRow[] {
    const rows = this.#query.first.all(id, delivered, MOST_DELETED) as BatchRow[];
    const end = rows.findIndex((row) => toNumber(row.offset) + toNumber(row.length) > delivered);
    return end < 0 ? rows : rows.slice(0, end);
  }

  #deleteReleased(reader: number): void {
    const row = this.reader(reader);
    for (const batch of this.#released(row)) {
      this.#query.deleteData.run(batch.data as bigint);
      this.#query.deleteBatch.run(reader, batch.offset as bigint);
      row.batches--;
      row.bytes -= toNumber(batch.length);
      row.messages -= toNumber(batch.messages);
    }
    this.#write(row);
  }

  /** Takes a damaged batch out of the way; its bytes stay where they are. */
  #setAside(reader: number, batch: BatchRow, reason: string): void {
    const gone = [this.#query.deleteBatch, this.#query.deleteMisplaced].some((query) =>
      Number(query.run(reader, batch.offset as bigint).changes) === 1
    );
    if (!gone) throw brokenNumbers(this.#file);
    this.#query.insertDamaged.run(...Object.values(batch), reason, Date.now());
    // Its own numbers are not to be trusted.
    const row = this.reader(reader);
    const [batches, bytes, messages] = Object.values(this.#query.count.get(reader)!).map(toNumber);
    Object.assign(row, { batches, bytes, messages });
    this.#write(row);
  }

  /** No batch may end after the row's tail: else those to come would have no place. */
  #checkTail(row: ReaderRow): void {
    while (true) {
      const last = this.#query.last.get(row.id) as BatchRow | undefined;
      if (last === undefined) return;
      if (toNumber(last.offset) + toNumber(last.length) <= row.tail) return;
      const reason = this.#data.read(last, row.stream);
      if (typeof reason !== "string") throw brokenNumbers(this.#file);
      this.#transact(() => this.#setAside(row.id, last, reason));
      this.#damages.push(damageOf(row.name, last, reason));
    }
  }

  #write(row: ReaderRow): void {
    this.#query.writeReader.run(...columnsOf(row));
  }
}

const OF_READER = `SELECT ${BATCH_COLUMNS} FROM batches WHERE reader = ?1`;

const QUERIES = {
  first: `${OF_READER} AND offset < ?2 ORDER BY offset LIMIT ?3`,
  last: `${OF_READER} ORDER BY offset DESC LIMIT 1`,
  find: `${OF_READER} AND offset + length > ?2 AND offset >= coalesce(
    (SELECT max(offset) FROM batches WHERE reader = ?1 AND offset <= ?2), 0
  ) ORDER BY offset LIMIT 1`,
  count: `SELECT count(*), coalesce(sum(length), 0), coalesce(sum(messages), 0)
    FROM batches WHERE reader = ?1`,
  insertData: "INSERT INTO data (bytes) VALUES (?1)",
  insertBatch: `INSERT INTO batches (${BATCH_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)`,
  insertDamaged: `INSERT INTO damaged (${BATCH_COLUMNS}, reason, found_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)`,
  deleteData: "DELETE FROM data WHERE id = ?1",
  deleteBatch: "DELETE FROM batches WHERE reader = ?1 AND offset = ?2",
  // Where a flipped bit has put a row out of order, the index does not find it.
  deleteMisplaced: "DELETE FROM batches WHERE +reader = ?1 AND +offset = ?2",
  vacuum: `PRAGMA incremental_vacuum(${MOVED_PAGES})`,
  cut: `PRAGMA incremental_vacuum(${CUT_PAGES})`,
  writeReader: "REPLACE INTO readers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
};
