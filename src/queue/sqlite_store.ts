/** Reads and changes a queue's file, synchronously; many changes are one atomic transaction. */
import { newStream } from "../message/protocol.ts";
import type { DatabaseSync } from "node:sqlite";
import { type Batch, type Damage, QueueError, QueueFull } from "./queue.ts";
import { batchCrc, BatchData, type BatchRow, damageOf, toNumber } from "./sqlite_batch.ts";
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
import { prepareStatements, type Statements } from "./sqlite_queries.ts";
import {
  columnsOf,
  inconsistentFile,
  newReader,
  type ReaderRow,
  readReaders,
} from "./sqlite_reader.ts";

/** A change of the store; it succeeds or fails as a whole. */
export type Change =
  | { kind: "open"; name: string }
  /** After a failed append all of the same `attempt` fail: no batch is stored after a missing one. */
  | ({ kind: "append"; reader: number; attempt: number } & Batch)
  | { kind: "release"; reader: number; offset: number; position: number }
  | { kind: "reserve"; reader: number; offset: number };

/** The result of a change: the row of the opened reader, nothing, or why it failed. */
export type Outcome = ReaderRow | undefined | QueueFull | QueueError;

export interface StoreOptions {
  sync: SyncMode;
  /** Limit for the stored bytes of all readers. */
  maxBytes: number;
}

/** Limit of batches that one transaction deletes for a reader: SQLite visits all their pages. */
const MOST_DELETED = 256;
/** A file of more pages shrinks while more than half of it is free. */
const LARGE_PAGES = (64 << 20) / PAGE_SIZE;
/** Free pages that the file of an empty queue may keep. */
const SPARE_PAGES = 16;

export class SqliteStore {
  readonly #file: string;
  readonly #maxBytes: number;
  readonly #database: DatabaseSync;
  readonly #data: BatchData;
  readonly #pages: DataPages | undefined;
  readonly #query: Statements;
  /** Rows of all readers, as in the file; within a transaction, as they will be. */
  #rows: Map<number, ReaderRow> = new Map();
  /** The last failed attempt, by reader. */
  #failed: Map<number, { attempt: number; why: QueueFull | QueueError }> = new Map();
  /** Batches that were set aside and not yet taken by `takeDamages`. */
  #damages: Damage[] = [];

  /** Throws a QueueError. */
  constructor(sqlite: Sqlite, file: string, { sync, maxBytes }: StoreOptions) {
    this.#file = file;
    this.#maxBytes = maxBytes;
    this.#database = openFile(sqlite, file, sync);
    try {
      this.#query = prepareStatements(this.#database);
      this.#pages = DataPages.open(this.#database, file);
      this.#data = new BatchData(this.#database, this.#pages);
      for (const { row, intact } of readReaders(this.#database)) {
        if (!intact) throw inconsistentFile(file);
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

  /** Batches that were set aside since the last call. */
  takeDamages(): Damage[] {
    return this.#damages.splice(0);
  }

  /** Makes all changes in one transaction, or, if that fails, each in its own; returns the results. */
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
   * The intact batch that contains `offset`, or else the first one after it. May place the bytes in
   * `into`. Throws a QueueError.
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

  /** No batches are stored. */
  get empty(): boolean {
    return this.readers.every(({ batches }) => batches === 0);
  }

  /**
   * One bounded step of background work: deletes released batches, and returns free pages to the
   * file system. True: there is more to do.
   */
  tidy(): boolean {
    if (this.#deleteSome()) return true;
    const free = this.#freePages;
    const { empty } = this;
    const pages = valueOf(this.#database, "PRAGMA page_count") as number;
    if (empty ? free <= SPARE_PAGES : pages <= LARGE_PAGES || free * 2 <= pages) return false;
    // Not `exec`: the pragma returns a row per page, and Deno 2.9.5 stops `exec` after one.
    this.#transact(() => (empty ? this.#query.cut : this.#query.vacuum).all());
    return true;
  }

  /** Closes the file; an empty queue first returns its space to the file system. */
  close(): void {
    try {
      while (this.#deleteSome());
      // Three times as fast as incremental steps. Takes effect at once; opening sets it back.
      if (this.empty && this.#freePages > SPARE_PAGES) {
        this.#database.exec("PRAGMA auto_vacuum = FULL");
      }
    } catch {
      // The disk is completely full: the next close tries again.
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

  /** Deletes some of the released batches; false: there are none. */
  #deleteSome(): boolean {
    const reader = this.readers.find((row) => this.#released(row).length > 0);
    if (reader === undefined) return false;
    this.#transact(() => this.#deleteReleased(reader.id));
    return true;
  }

  /** Runs `work` in a transaction; on an error, file and memory are unchanged. */
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
        this.#database.exec("ROLLBACK");
      } catch {
        // After some errors SQLite has rolled back already.
      }
      throw error;
    } finally {
      this.#pages?.invalidate();
    }
  }

  /** Makes one change; returns our own errors, and throws SQLite's, which end the transaction. */
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
    // It was delivered while the request was in the queue's inbox.
    if (offset + bytes.length <= row.delivered) return;
    if (offset < row.tail) {
      throw new QueueError(
        `cannot append at ${offset} for ${row.name}: the last batch ends at ${row.tail}`,
      );
    }
    const stored = this.readers.reduce((sum, { bytes }) => sum + bytes, 0);
    if (stored + bytes.length > this.#maxBytes) {
      const limit = `its limit is ${this.#maxBytes} bytes, and it has ${stored}`;
      throw new QueueFull(`the queue ${this.#file} is full: ${limit}`, "max");
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

  /** Moves a damaged batch to the table `damaged`; its bytes stay in the table `data`. */
  #setAside(reader: number, batch: BatchRow, reason: string): void {
    const deleted = [this.#query.deleteBatch, this.#query.deleteMisplaced].some((query) =>
      Number(query.run(reader, batch.offset as bigint).changes) === 1
    );
    if (!deleted) throw inconsistentFile(this.#file);
    this.#query.insertDamaged.run(...Object.values(batch), reason, Date.now());
    // Counted again, as the damaged batch's own numbers may be wrong.
    const row = this.reader(reader);
    const [batches, bytes, messages] = Object.values(this.#query.count.get(reader)!).map(toNumber);
    Object.assign(row, { batches, bytes, messages });
    this.#write(row);
  }

  /** Sets batches aside that end after the reader's tail: new batches could not be appended. */
  #checkTail(row: ReaderRow): void {
    while (true) {
      const last = this.#query.last.get(row.id) as BatchRow | undefined;
      if (last === undefined) return;
      if (toNumber(last.offset) + toNumber(last.length) <= row.tail) return;
      const reason = this.#data.read(last, row.stream);
      if (typeof reason !== "string") throw inconsistentFile(this.#file);
      this.#transact(() => this.#setAside(row.id, last, reason));
      this.#damages.push(damageOf(row.name, last, reason));
    }
  }

  #write(row: ReaderRow): void {
    this.#query.writeReader.run(...columnsOf(row));
  }
}
