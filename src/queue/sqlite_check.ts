/** What a queue's file holds, and what is wrong with it: reads only. */
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
  identify,
  openFile,
  type Sqlite,
  valueOf,
  wasCutOff,
} from "./sqlite_file.ts";
import { type Figures, readLive } from "./sqlite_live.ts";
import { type ReaderRow, readReaders } from "./sqlite_reader.ts";

export interface QueueStatus {
  file: string;
  fileBytes: number;
  /** Of those, what the next batches will use again, or what is about to be given back. */
  freeBytes: number;
  /** A process has it open: these are its figures of this moment. */
  open: boolean;
  /** Batches that were set aside. */
  damaged: number;
  readers: ReaderStatus[];
}

export interface ReaderStatus {
  name: string;
  stream: string;
  /** What waits for it. */
  batches: number;
  bytes: number;
  messages: number;
  delivered: number;
  tail: number;
  /** When the oldest of what waits was stored; ISO 8601. */
  oldest?: string;
}

/** Throws a QueueError when there is no queue. */
export function mustBeQueue(file: string): void {
  if (identify(file) === "nothing") throw new QueueError(`there is no queue ${file}`);
}

/** The figures of a queue, whether or not it is open somewhere. Rejects with a QueueError. */
export async function queueStatus(sqlite: Sqlite, file: string): Promise<QueueStatus> {
  mustBeQueue(file);
  const closed = () => statusOf(file, false, readClosed(openReadOnly(sqlite, file)));
  try {
    try {
      return closed();
    } catch (error) {
      if (codeOf(error) === BUSY || !wasCutOff(file)) throw error;
      // Not before: a transaction that is under way looks the same, and this has to write.
      undoCutOff(sqlite, file);
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

/** For reading, even what is cut short. Throws what SQLite throws. */
export function openReadOnly({ DatabaseSync }: Sqlite, file: string): DatabaseSync {
  // `defensive` is not in all types yet: without it SQLite would refuse what follows.
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

/** As `explain`; and what can be done while another process has the queue open. */
export function whileOpen(file: string, error: unknown): Error {
  if (codeOf((error as Error).cause ?? error) !== BUSY) return explain(file, error);
  return new QueueError(
    `${file} is open in another process: only \`queue status\` can look into it meanwhile`,
    { cause: error },
  );
}

/** What whoever opens the queue does as well: SQLite undoes a transaction that was cut off. */
export function undoCutOff(sqlite: Sqlite, file: string): void {
  if (wasCutOff(file)) closeFile(openFile(sqlite, file, "always"));
}

/** One batch as it was found, in the order of the stream. */
export interface Found {
  row: BatchRow;
  /** Undefined: none is known to which it belongs. */
  reader: ReaderRow | undefined;
  /** Its bytes, or what is wrong with it. */
  bytes: Uint8Array | string;
}

/** A queue's file as far as it can be read. */
export class QueueContent {
  readonly readers: ReaderRow[];
  /** Those of them whose numbers are not as they were written. */
  readonly doubtful: Set<ReaderRow> = new Set();
  /** What is wrong with the file itself; empty: all that SQLite looks at is in order. */
  readonly broken: string[] = [];
  readonly #database: DatabaseSync;
  readonly #rows: BatchRow[];

  /** Throws a QueueError when nothing of it can be read, or when another process has it open. */
  constructor(sqlite: Sqlite, file: string) {
    mustBeQueue(file);
    try {
      undoCutOff(sqlite, file);
      this.#database = openReadOnly(sqlite, file);
    } catch (error) {
      throw whileOpen(file, error);
    }
    try {
      this.readers = readReaders(this.#database).map(({ row, intact }) => {
        if (intact) return row;
        this.doubtful.add(row);
        this.broken.push(`the row of reader ${JSON.stringify(row.name)} is damaged`);
        return row;
      });
    } catch (error) {
      this.#database.close();
      throw explain(file, error);
    }
    this.#rows = this.#scan();
  }

  /** All batches, good and bad. */
  *batches(): Generator<Found> {
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

  /** What SQLite itself finds; reads the whole file. */
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

  /** Batches that were set aside before, and when. */
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
      this.broken.push(`what was set aside cannot be read: ${(error as Error).message}`);
      return [];
    }
  }

  close(): void {
    this.#database.close();
  }

  /** Rows from both ends, should one in the middle not be readable. */
  #scan(): BatchRow[] {
    const read = (order: string): { rows: BatchRow[]; whole: boolean } => {
      const rows: BatchRow[] = [];
      const query =
        `SELECT ${BATCH_COLUMNS} FROM batches ORDER BY reader ${order}, offset ${order}`;
      try {
        for (const row of prepareRaw(this.#database, query).iterate()) rows.push(row as BatchRow);
        return { rows, whole: true };
      } catch (error) {
        this.broken.push(`the list of batches cannot be read: ${(error as Error).message}`);
        return { rows, whole: false };
      }
    };
    const { rows, whole } = read("ASC");
    if (whole) return rows;
    const known = new Set(rows.map(({ reader, offset }) => `${reader} ${offset}`));
    const rest = read("DESC").rows.filter((row) => !known.has(`${row.reader} ${row.offset}`));
    return [...rows, ...rest.reverse()];
  }
}

/** All that is wrong with a queue. */
export interface CheckResult {
  /** Batches that are as they were stored. */
  good: { batches: number; bytes: number; messages: number };
  /** Of the file itself: only a new file can help. */
  broken: string[];
  /** Batches that cannot be delivered, and are in the way. */
  damages: Damage[];
  /** Batches that were set aside before. */
  setAside: { damage: Damage; foundAt: string }[];
  /** Stretches between batches that are not stored: delivered past them, lost, or set aside. */
  gaps: { reader: string; offset: number; bytes: number }[];
}

/** Looks at every byte. `onGood` gets each good batch, in order. Throws a QueueError. */
export function checkQueue(
  sqlite: Sqlite,
  file: string,
  onGood: (found: Found & { reader: ReaderRow; bytes: Uint8Array }) => void = () => {},
): CheckResult {
  const content = new QueueContent(sqlite, file);
  const good = { batches: 0, bytes: 0, messages: 0 };
  const result: CheckResult = { good, broken: [], damages: [], setAside: [], gaps: [] };
  /** By reader: the end of its last good batch, and how many it has. */
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
      good.batches++;
      good.bytes += bytes.length;
      good.messages += toNumber(row.messages);
      onGood({ row, reader, bytes });
    }
    result.setAside = content.damaged();
    for (const { id, name, batches } of content.readers) {
      const bad = result.damages.filter(({ reader }) => reader === name).length;
      const found = (seen.get(id)?.batches ?? 0) + bad;
      if (found !== batches) {
        content.broken.push(
          `reader ${JSON.stringify(name)} should have ${batches} batches, has ${found}`,
        );
      }
    }
    result.broken = content.broken;
    return result;
  } finally {
    content.close();
  }
}
