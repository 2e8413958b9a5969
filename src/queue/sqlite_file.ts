/**
 * The file of a durable queue: told from other files, opened, locked and closed.
 *
 * SQLite with a rollback journal: bytes that are new go to the file once, where a write-ahead log
 * would write them twice. One process holds the file, by a lock that the system takes away when the
 * process ends, however it ends.
 */
import { closeSync, openSync, readSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { QueueError, QueueFull } from "./queue.ts";

/**
 * When what was appended is safe from a loss of power; a killed process loses nothing that was
 * stored, whichever it is.
 * - `always`: what was appended survives power loss once append resolved;
 * - `intervalMs`: power loss loses at most the last so many ms: appends are gathered for so long, or
 *   until there are 2 MiB of them, and resolve once they are safe from it together;
 * - `off`: survives the kill of the process, not power loss.
 */
export type SyncMode = "always" | { intervalMs: number } | "off";

/** In the file's header, where `file(1)` and SQLite's own shell show it: "splq". */
const APPLICATION_ID = 0x73706c71;
export const VERSION = 1;
/** Batches of 1 MiB on pages of 4 KiB would take four times as long. */
export const PAGE_SIZE = 65_536;

/** How long `status`, which holds the file for a moment, may keep another process from opening it. */
const BUSY_MS = 100;

const SCHEMA = `
  CREATE TABLE readers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    stream TEXT NOT NULL,
    delivered INTEGER NOT NULL,
    delivered_position INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    -- Of the batches below, so that nobody has to count them.
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
    -- CRC-32 of the stream, the numbers above but the reader's and the time, and the bytes.
    crc INTEGER NOT NULL,
    data INTEGER NOT NULL,
    PRIMARY KEY (reader, offset)
  ) STRICT, WITHOUT ROWID;
  -- Apart from the numbers: those can be read without a page of these.
  CREATE TABLE data (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
  -- Batches that were set aside. Their bytes stay where they are: freeing what is damaged may harm
  -- what is not.
  CREATE TABLE damaged (
    id INTEGER PRIMARY KEY,
    reader, offset, length, messages, position, stored_at, crc, data,
    reason TEXT NOT NULL,
    found_at INTEGER NOT NULL
  );
`;

export type Sqlite = typeof import("node:sqlite");

/** SQLite, where the runtime has it. Rejects with a QueueError. */
export async function loadSqlite(): Promise<Sqlite> {
  try {
    return await import("node:sqlite");
  } catch (cause) {
    throw new QueueError(
      "the durable queue needs node:sqlite, which this runtime has not: " +
        "use Node 22.13 or newer, Deno or Bun",
      { cause },
    );
  }
}

/** Files that this process has open; shared by all copies of this module (the bundles). */
const FILES = Symbol.for("speedlimit.queue.files");
const shared = globalThis as { [FILES]?: Set<string> };
const opened: Set<string> = shared[FILES] ??= new Set();

/** Notes that this process has a queue open, until the function that is returned is called. */
export function claim(file: string): () => void {
  const path = canonical(file);
  opened.add(path);
  return () => opened.delete(path);
}

/** The same path for the same file. */
function canonical(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    // It is not there yet.
  }
  try {
    return join(realpathSync(dirname(resolve(file))), basename(file));
  } catch {
    return resolve(file);
  }
}

/**
 * Whether there is a queue at this path, or nothing yet. Changes nothing. Throws a QueueError for
 * whatever else is there, and for a queue that this process has open: closing any descriptor of a
 * file takes away all of the process's locks on it (fcntl(2)).
 */
export function identify(file: string): "queue" | "nothing" {
  if (opened.has(canonical(file))) {
    throw new QueueError(`${file} is open already, in this very process`);
  }
  const header = new Uint8Array(100);
  let length: number;
  try {
    const stat = statSync(file, { throwIfNoEntry: false });
    if (stat === undefined) {
      if (isFolder(dirname(resolve(file)))) return "nothing";
      throw new QueueError(`cannot make the queue ${file}: there is no folder ${dirname(file)}`);
    }
    if (stat.isDirectory()) throw new QueueError(`${file} is a directory: must be a queue's file`);
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
    throw new QueueError(`${file} is not a queue: it is left as it is`);
  }
  if (length < header.length) {
    throw new QueueError(`${file} is cut short: ${length} bytes are left`);
  }
  // SQLite's file format, 1.3: user_version at 60, application_id at 68.
  const view = new DataView(header.buffer);
  if (view.getInt32(68) !== APPLICATION_ID) {
    throw new QueueError(`${file} is another SQLite database, not a queue: it is left as it is`);
  }
  const version = view.getInt32(60);
  if (version !== VERSION) {
    throw new QueueError(
      `${file} is a queue of version ${version}, this program knows ${VERSION}: it is left as it is`,
    );
  }
  return "queue";
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (error) {
    // Deno may be allowed the file and not its folder: then SQLite has to find out.
    return (error as Error).name === "NotCapable";
  }
}

/**
 * Whether a transaction was cut off by the end of a process: the next one to open the file undoes
 * it. The journal's header is zero after an orderly one (SQLite's file format, 3).
 */
export function wasCutOff(file: string): boolean {
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

/** Opens a queue's file for this process alone, makes it if it is not there. Throws a QueueError. */
export function openFile({ DatabaseSync }: Sqlite, file: string, sync: SyncMode): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    // SQLite would open it for reading only, or not say why it cannot make it.
    tryToWrite(file);
    database = new DatabaseSync(file);
    database.exec(`PRAGMA busy_timeout = ${BUSY_MS}; PRAGMA locking_mode = EXCLUSIVE`);
    // Before the first page is written; without effect later.
    database.exec(`PRAGMA page_size = ${PAGE_SIZE}; PRAGMA auto_vacuum = INCREMENTAL`);
    database.exec("BEGIN EXCLUSIVE");
    if (valueOf(database, "PRAGMA application_id") !== APPLICATION_ID) {
      database.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${VERSION}`);
      database.exec(SCHEMA);
    }
    database.exec("COMMIT");
    // Not deleted each time: a queue on a full disk still has the room to give some back.
    database.exec("PRAGMA journal_mode = PERSIST; PRAGMA journal_size_limit = 4194304");
    database.exec(`PRAGMA synchronous = ${sync === "off" ? "OFF" : "FULL"}`);
    database.exec("PRAGMA secure_delete = OFF; PRAGMA cache_size = -8192");
    return database;
  } catch (error) {
    try {
      database?.close();
    } catch {
      // What is told is what came first.
    }
    throw explain(file, error);
  }
}

/** Throws a QueueError when it can be neither written nor made. */
function tryToWrite(file: string): void {
  const there = statSync(file, { throwIfNoEntry: false }) !== undefined;
  try {
    closeSync(openSync(file, there ? "r+" : "a"));
  } catch (cause) {
    const say = `cannot ${there ? "write" : "make"} the queue ${file}: ${reasonOf(cause)}`;
    throw new QueueError(say, { cause });
  }
}

const REASONS: Record<string, string> = {
  EACCES: "not permitted",
  EPERM: "not permitted",
  EROFS: "its file system is read-only",
  ENOENT: "there is no such folder",
  ENOTDIR: "what should be its folder is none",
  ELOOP: "it is a symbolic link that leads nowhere",
  ENAMETOOLONG: "its name is too long",
};

/** What the system says of a file, in words. */
function reasonOf(error: unknown): string {
  const { code = "", message } = error as NodeJS.ErrnoException;
  return REASONS[code] ?? message;
}

/** Closes it, and leaves one file. */
export function closeFile(database: DatabaseSync): void {
  try {
    database.exec("PRAGMA journal_mode = DELETE");
  } finally {
    database.close();
  }
}

/** The one value of a query's one row. */
export function valueOf(database: DatabaseSync, query: string): unknown {
  return Object.values(database.prepare(query).get() ?? {})[0];
}

/** SQLite's result codes that we tell apart. */
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

/** SQLite's result code; undefined: the error is not SQLite's. Deno does not always have the number. */
export function codeOf(error: unknown): number | undefined {
  const { errcode, message } = error as { errcode?: unknown; message?: unknown };
  if (typeof errcode === "number" && errcode !== 0) {
    // ENOSPC has a code of its own; a file-size limit or a quota is an error of the write.
    return errcode === IOERR_WRITE ? FULL : errcode & 0xff;
  }
  return Object.entries(TEXTS).find(([text]) => String(message).startsWith(text))?.[1];
}

/** What SQLite or the system said while the queue was used or written, as an error of ours. */
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
        `cannot use the queue ${file}: its journal cannot be made beside it: ` +
          "its folder must be one that can be written to",
        options,
      );
    case CORRUPT:
    case NOTADB:
      return new QueueError(
        `${file} is damaged (${message}): \`queue check\` tells what, \`queue repair\` saves the rest`,
        options,
      );
    case FULL:
      return new QueueFull(`no room for the queue ${file}: ${message}`, "disk", error);
    default: {
      // Deno 2.9.5 does not say which one, if it comes from a statement.
      const { errcode } = error as { errcode?: number };
      if (doing === "writing" && codeOf(error) === IOERR && errcode === undefined) {
        return new QueueFull(`no room for the queue ${file}: ${message}`, "disk", error);
      }
      const code = errcode === undefined ? "" : ` (SQLite's code ${errcode})`;
      return new QueueError(`cannot use the queue ${file}: ${message}${code}`, options);
    }
  }
}
