/**
 * The file of a durable queue: identified, opened, locked and closed.
 *
 * SQLite in rollback-journal mode: new bytes are written to the file once, where a write-ahead log
 * would write them twice. One process locks the file; the system releases the lock when the process
 * ends, even if it is killed.
 */
import { closeSync, openSync, readSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { QueueError, QueueFull } from "./queue.ts";

/**
 * When appended batches are safe from a power failure. In every mode they survive a kill of the
 * process.
 * - `always`: once `append` has resolved;
 * - `intervalMs`: also once `append` has resolved, but appends are gathered for this time, or until
 *   there are 2 MiB of them, and written together: a power failure loses at most that;
 * - `off`: never: a power failure can destroy the queue.
 */
export type SyncMode = "always" | { intervalMs: number } | "off";

/** "splq" in the file's header, where `file(1)` and SQLite's shell show it. */
const APPLICATION_ID = 0x73706c71;
export const VERSION = 1;
/** With SQLite's default pages of 4 KiB, batches of 1 MiB take four times as long. */
export const PAGE_SIZE = 65_536;

/** How long an open waits for `queue status`, which locks the file briefly; ms. */
const BUSY_MS = 100;

const SCHEMA = `
  CREATE TABLE readers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    stream TEXT NOT NULL,
    delivered INTEGER NOT NULL,
    delivered_position INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    -- Totals of the table batches, so that they need not be counted.
    tail INTEGER NOT NULL,
    tail_position INTEGER NOT NULL,
    batches INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    crc INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE batches (
    reader INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    position INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    -- CRC-32 of the stream, of offset, messages and position, and of the bytes.
    crc INTEGER NOT NULL,
    data INTEGER NOT NULL,
    PRIMARY KEY (reader, offset)
  ) STRICT, WITHOUT ROWID;
  -- A table of its own, so that the numbers above can be read without reading these pages.
  CREATE TABLE data (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
  -- Damaged batches that were set aside. Their bytes stay in the table data: freeing damaged pages
  -- could damage others.
  CREATE TABLE damaged (
    id INTEGER PRIMARY KEY,
    reader, offset, length, messages, position, stored_at, crc, data,
    reason TEXT NOT NULL,
    found_at INTEGER NOT NULL
  );
`;

export type Sqlite = typeof import("node:sqlite");

/** Loads the runtime's SQLite. Rejects with a QueueError if it has none. */
export async function loadSqlite(): Promise<Sqlite> {
  try {
    return await import("node:sqlite");
  } catch (cause) {
    throw new QueueError(
      "the durable queue needs node:sqlite, which this runtime lacks: " +
        "use Node 22.13 or newer, Deno or Bun",
      { cause },
    );
  }
}

/** Files that this process has open. Global, as bundles contain several copies of this module. */
const FILES = Symbol.for("speedlimit.queue.files");
const shared = globalThis as { [FILES]?: Set<string> };
const opened: Set<string> = shared[FILES] ??= new Set();

/** Records that this process has a queue open, until the returned function is called. */
export function claim(file: string): () => void {
  const path = canonical(file);
  opened.add(path);
  return () => opened.delete(path);
}

/** The real path of a file, which need not exist. */
function canonical(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    // It does not exist yet.
  }
  try {
    return join(realpathSync(dirname(resolve(file))), basename(file));
  } catch {
    return resolve(file);
  }
}

/**
 * Whether there is a queue at this path, or nothing yet. Changes nothing. Throws a QueueError if
 * there is something else, or a queue that this process has open already: to close any descriptor of
 * a file releases all locks of the process on it (fcntl(2)).
 */
export function identify(file: string): "queue" | "nothing" {
  if (opened.has(canonical(file))) {
    throw new QueueError(`${file} is already open in this process`);
  }
  const header = new Uint8Array(100);
  let length: number;
  try {
    const stat = statSync(file, { throwIfNoEntry: false });
    if (stat === undefined) {
      if (isDirectory(dirname(resolve(file)))) return "nothing";
      throw new QueueError(
        `cannot create the queue ${file}: there is no directory ${dirname(file)}`,
      );
    }
    if (stat.isDirectory()) throw new QueueError(`${file} is a directory, not a queue file`);
    if (!stat.isFile()) throw new QueueError(`${file} is not a regular file`);
    if (stat.size === 0) return "nothing";
    const fd = openSync(file, "r");
    try {
      length = readSync(fd, header, 0, header.length, 0);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (error instanceof QueueError) throw error;
    throw new QueueError(`cannot read the queue ${file}: ${reasonOf(error)}`, { cause: error });
  }
  if (new TextDecoder("latin1").decode(header.subarray(0, 16)) !== "SQLite format 3\0") {
    throw new QueueError(`${file} is not a queue; it was not changed`);
  }
  if (length < header.length) {
    throw new QueueError(`${file} is truncated: it has only ${length} bytes`);
  }
  // SQLite's file format, 1.3: user_version at 60, application_id at 68.
  const view = new DataView(header.buffer);
  if (view.getInt32(68) !== APPLICATION_ID) {
    throw new QueueError(`${file} is an SQLite database but not a queue; it was not changed`);
  }
  const version = view.getInt32(60);
  if (version !== VERSION) {
    throw new QueueError(
      `${file} is a queue of version ${version}, and this program supports only version ` +
        `${VERSION}; it was not changed`,
    );
  }
  return "queue";
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (error) {
    // Deno may have permission for the file but not for its directory: SQLite reports the error then.
    return (error as Error).name === "NotCapable";
  }
}

/**
 * Whether there is a hot journal: a process ended during a transaction, which the next process to
 * open the file rolls back. A completed transaction zeroes the header (SQLite's file format, 3).
 */
export function hasHotJournal(file: string): boolean {
  try {
    const fd = openSync(`${file}-journal`, "r");
    try {
      const magic = new Uint8Array(8);
      return readSync(fd, magic, 0, 8, 0) === 8 && magic[0] === 0xd9;
    } finally {
      closeSync(fd);
    }
  } catch {
    return false;
  }
}

/** Opens a queue's file exclusively; creates it if it does not exist. Throws a QueueError. */
export function openFile({ DatabaseSync }: Sqlite, file: string, sync: SyncMode): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    // SQLite would open it read-only, or not say why it cannot create it.
    checkWritable(file);
    database = new DatabaseSync(file);
    database.exec(`PRAGMA busy_timeout = ${BUSY_MS}; PRAGMA locking_mode = EXCLUSIVE`);
    // Has an effect only before the first page is written.
    database.exec(`PRAGMA page_size = ${PAGE_SIZE}; PRAGMA auto_vacuum = INCREMENTAL`);
    database.exec("BEGIN EXCLUSIVE");
    if (valueOf(database, "PRAGMA application_id") !== APPLICATION_ID) {
      database.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${VERSION}`);
      database.exec(SCHEMA);
    }
    database.exec("COMMIT");
    // The journal file is kept: deleting batches on a full disk needs its space.
    database.exec("PRAGMA journal_mode = PERSIST; PRAGMA journal_size_limit = 4194304");
    database.exec(`PRAGMA synchronous = ${sync === "off" ? "OFF" : "FULL"}`);
    database.exec("PRAGMA secure_delete = OFF; PRAGMA cache_size = -8192");
    return database;
  } catch (error) {
    try {
      database?.close();
    } catch {
      // The first error is the one to report.
    }
    throw explain(file, error);
  }
}

/** Throws a QueueError if the file can be neither written nor created. */
function checkWritable(file: string): void {
  const exists = statSync(file, { throwIfNoEntry: false }) !== undefined;
  try {
    closeSync(openSync(file, exists ? "r+" : "a"));
  } catch (cause) {
    const what = `cannot ${exists ? "write" : "create"} the queue ${file}`;
    throw new QueueError(`${what}: ${reasonOf(cause)}`, { cause });
  }
}

const REASONS: Record<string, string> = {
  EACCES: "not permitted",
  EPERM: "not permitted",
  EROFS: "its file system is read-only",
  ENOENT: "there is no such directory",
  ENOTDIR: "part of its path is not a directory",
  ELOOP: "its path has a loop of symbolic links",
  ENAMETOOLONG: "its name is too long",
};

/** A file system error in plain words. */
function reasonOf(error: unknown): string {
  const { code = "", message } = error as NodeJS.ErrnoException;
  return REASONS[code] ?? message;
}

/** Closes the database and deletes its journal. */
export function closeFile(database: DatabaseSync): void {
  try {
    database.exec("PRAGMA journal_mode = DELETE");
  } finally {
    database.close();
  }
}

/** The first value of a query's first row. */
export function valueOf(database: DatabaseSync, query: string): unknown {
  return Object.values(database.prepare(query).get() ?? {})[0];
}

/** SQLite's result codes that are handled differently. */
export const BUSY = 5;
const READONLY = 8;
const IOERR = 10;
export const CORRUPT = 11;
const FULL = 13;
const CANTOPEN = 14;
const NOTADB = 26;
const IOERR_WRITE = 778;

const TEXTS: Record<string, number> = {
  "database is locked": BUSY,
  "attempt to write a readonly database": READONLY,
  "disk I/O error": IOERR,
  "database disk image is malformed": CORRUPT,
  "database or disk is full": FULL,
  "unable to open database file": CANTOPEN,
  "file is not a database": NOTADB,
};

/** SQLite's result code; undefined: the error is not SQLite's. Some of Deno's errors have no number. */
export function codeOf(error: unknown): number | undefined {
  const { errcode, message } = error as { errcode?: unknown; message?: unknown };
  if (typeof errcode === "number" && errcode !== 0) {
    // ENOSPC is reported as FULL; a file-size limit or a quota as a failed write.
    return errcode === IOERR_WRITE ? FULL : errcode & 0xff;
  }
  return Object.entries(TEXTS).find(([text]) => String(message).startsWith(text))?.[1];
}

/** Converts an error of SQLite or of the system to a QueueError or QueueFull. */
export function explain(
  file: string,
  error: unknown,
  doing: "using" | "writing" = "using",
): QueueError | QueueFull {
  if (error instanceof QueueError || error instanceof QueueFull) return error;
  const { message } = error as Error;
  const options = { cause: error };
  switch (codeOf(error)) {
    case BUSY:
      return new QueueError(`${file} is open in another process`, options);
    case READONLY:
      return new QueueError(`cannot write the queue ${file}: it is read-only`, options);
    case CANTOPEN:
      return new QueueError(
        `cannot use the queue ${file}: its journal cannot be created: ` +
          "the queue's directory must be writable",
        options,
      );
    case CORRUPT:
    case NOTADB:
      return new QueueError(
        `${file} is damaged (${message}): \`queue check\` lists the damage, ` +
          "`queue repair` saves what is intact",
        options,
      );
    case FULL:
      return new QueueFull(`no disk space for the queue ${file}: ${message}`, "disk", error);
    default: {
      // Deno 2.9.5 gives no code for errors of a statement.
      const { errcode } = error as { errcode?: number };
      if (doing === "writing" && codeOf(error) === IOERR && errcode === undefined) {
        return new QueueFull(`no disk space for the queue ${file}: ${message}`, "disk", error);
      }
      const code = errcode === undefined ? "" : ` (SQLite result code ${errcode})`;
      return new QueueError(`cannot use the queue ${file}: ${message}${code}`, options);
    }
  }
}
