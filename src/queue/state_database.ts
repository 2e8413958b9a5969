/**
 * The small database of a queue: its logs, and how far each reader has come. Synchronous: a worker
 * thread of the server uses it, and the commands that inspect a queue.
 *
 * SQLite with a write-ahead log, so that `queue status` can read it beside a running server. One
 * process at a time may write: it holds a lock on a second, empty database, which the system releases
 * when the process ends, even if it is killed.
 */
import {
  closeSync,
  constants,
  existsSync,
  fchownSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  statSync,
  truncateSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { QueueError } from "./queue.ts";
import { explainSqlite, isBusy, isNoDatabase, type Sqlite, valueOf } from "./sqlite.ts";

export const DATABASE = "queue.db";
export const LOCK = "lock.db";

/** "splq" in the file's header, where `file(1)` and SQLite's shell show it. */
export const APPLICATION_ID = 0x73706c71;
export const DATABASE_VERSION = 2;

/** How long a reader or writer waits for the other at most; ms. */
const BUSY_MS = 2000;

/** See `allocate`. */
const ALLOCATED_BYTES = 1 << 18;
const CHECKPOINT_PAGES = 32;

/** A log, as it is recorded. */
export interface LogState {
  key: string;
  stream: string;
  epoch: number;
  reserved: number;
  originStream: string | null;
  shift: number;
  since: number;
}

/** How far a reader has come, as it is recorded. */
export interface CursorState {
  /** The log. */
  key: string;
  name: string;
  offset: number;
  /** 1: the reader acknowledges. */
  acknowledges: number;
}

/**
 * A part of a log. `closed`: what was stored when a server closed the queue. `repaired`: what was stored
 * when the database was made anew, whose readers are not known.
 */
export interface RangeState {
  /** The log. */
  key: string;
  what: "closed" | "repaired";
  start: number;
  end: number;
}

/** All that is recorded. */
export interface State {
  logs: LogState[];
  cursors: CursorState[];
  ranges: RangeState[];
}

/** What to record: rows to insert or to replace, and cursors to remove. */
export interface StateChange extends Omit<State, "ranges"> {
  ranges?: RangeState[];
  forgotten: { key: string; name: string }[];
}

const SCHEMA = `
  CREATE TABLE logs (
    key TEXT PRIMARY KEY,
    stream TEXT NOT NULL UNIQUE,
    epoch INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    originStream TEXT,
    shift INTEGER NOT NULL,
    since INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE cursors (
    key TEXT NOT NULL REFERENCES logs,
    name TEXT NOT NULL,
    offset INTEGER NOT NULL,
    acknowledges INTEGER NOT NULL,
    PRIMARY KEY (key, name)
  ) STRICT, WITHOUT ROWID;
`;

/** Queues of earlier builds lack it. */
const RANGES = `
  CREATE TABLE IF NOT EXISTS ranges (
    key TEXT NOT NULL REFERENCES logs,
    what TEXT NOT NULL,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    PRIMARY KEY (key, what)
  ) STRICT, WITHOUT ROWID;
`;

const LOG_COLUMNS = ["key", "stream", "epoch", "reserved", "originStream", "shift", "since"];
const CURSOR_COLUMNS = ["key", "name", "offset", "acknowledges"];
const RANGE_COLUMNS = ["key", "what", "start", "end"];

/** `end` is a word of SQL. */
const listOf = (columns: readonly string[]): string =>
  columns.map((column) => `"${column}"`).join(", ");

const upsert = (table: string, columns: readonly string[]): string =>
  `INSERT OR REPLACE INTO ${table} (${listOf(columns)}) ` +
  `VALUES (${columns.map(() => "?").join(", ")})`;

/** A database for one writer. */
export class StateDatabase {
  readonly #folder: string;
  /** Of its file. */
  readonly #inode: number;
  readonly #database: DatabaseSync;
  readonly #lock: DatabaseSync;
  readonly #putLog: StatementSync;
  readonly #putCursor: StatementSync;
  readonly #putRange: StatementSync;
  readonly #forget: StatementSync;
  /** What is recorded at the opening. */
  readonly initial: State;

  /**
   * `durable`: changes survive a power failure; `anew`: it is not there, though streams are. Throws a
   * QueueError or QueueFull.
   */
  constructor(sqlite: Sqlite, folder: string, durable: boolean, anew = false) {
    this.#folder = folder;
    this.#lock = lockQueue(sqlite, folder);
    let database: DatabaseSync | undefined;
    try {
      const streams = anew ? [] : storedStreams(folder);
      if (streams.length > 0) checkPresent(folder, streams);
      database = openDatabase(sqlite, folder, false);
      checkOwner(database, folder, streams);
      database.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = ${durable ? "FULL" : "OFF"}`);
      database.exec("BEGIN IMMEDIATE");
      if (valueOf(database, "PRAGMA application_id") !== APPLICATION_ID) {
        database.exec(`PRAGMA application_id = ${APPLICATION_ID}`);
        database.exec(`PRAGMA user_version = ${DATABASE_VERSION}`);
        database.exec(SCHEMA);
      }
      checkVersion(database, folder);
      database.exec(RANGES);
      if (!anew) checkState(readState(database), folder, streams);
      // Who opened the log earlier must not append any more.
      database.exec("UPDATE logs SET epoch = epoch + 1");
      database.exec("COMMIT");
      this.initial = readState(database);
      this.#putLog = database.prepare(upsert("logs", LOG_COLUMNS));
      this.#putCursor = database.prepare(upsert("cursors", CURSOR_COLUMNS));
      this.#putRange = database.prepare(upsert("ranges", RANGE_COLUMNS));
      this.#forget = database.prepare("DELETE FROM cursors WHERE key = ? AND name = ?");
      this.#database = database;
      this.#inode = statSync(join(folder, DATABASE)).ino;
      allocate(database);
    } catch (error) {
      database?.close();
      this.#lock.close();
      throw explainSqlite(folder, error);
    }
  }

  /** Records all of it, or nothing. Throws a QueueError or QueueFull. */
  change({ logs, cursors, ranges = [], forgotten }: StateChange): void {
    try {
      this.#checkInPlace();
      this.#database.exec("BEGIN IMMEDIATE");
      try {
        for (const log of logs) {
          const { key, stream, epoch, reserved, originStream, shift, since } = log;
          this.#putLog.run(key, stream, epoch, reserved, originStream, shift, since);
        }
        for (const { key, name } of forgotten) this.#forget.run(key, name);
        for (const { key, name, offset, acknowledges } of cursors) {
          this.#putCursor.run(key, name, offset, acknowledges);
        }
        for (const { key, what, start, end } of ranges) this.#putRange.run(key, what, start, end);
        this.#database.exec("COMMIT");
      } catch (error) {
        // SQLite may have done it itself, on a full disk for example.
        rollback(this.#database);
        throw error;
      }
    } catch (error) {
      throw explainSqlite(this.#folder, error);
    }
  }

  /** What is stored changes from now on. Throws a QueueError or QueueFull. */
  begin(): void {
    try {
      this.#database.exec("DELETE FROM ranges WHERE what = 'closed'");
    } catch (error) {
      throw explainSqlite(this.#folder, error);
    }
  }

  /** SQLite goes on to write a file that somebody has removed: it is gone with the last who has it open. */
  #checkInPlace(): void {
    const path = join(this.#folder, DATABASE);
    if (statSync(path, { throwIfNoEntry: false })?.ino === this.#inode) return;
    throw new QueueError(`${path} was removed while it was in use`);
  }

  close(): void {
    this.#database.close();
    this.#lock.close();
  }
}

/**
 * Allocates the write-ahead log, and pages of the database, in advance: on a full disk it must be
 * possible to record what is delivered, as that makes room. SQLite uses both again and again.
 */
function allocate(database: DatabaseSync): void {
  try {
    database.exec(`
      PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES};
      BEGIN IMMEDIATE;
      CREATE TABLE room (bytes BLOB);
      INSERT INTO room VALUES (zeroblob(${ALLOCATED_BYTES}));
      COMMIT;
      DROP TABLE room;
      PRAGMA wal_checkpoint(RESTART);
    `);
  } catch {
    // There is no room now. If that matters, the next change tells.
    rollback(database);
  }
}

function rollback(database: DatabaseSync): void {
  try {
    database.exec("ROLLBACK");
  } catch {
    // There is no transaction any more. The error to report is the one before.
  }
}

/**
 * Locks the queue for writing, until the returned database is closed. Throws a QueueError if another
 * process has it open.
 */
export function lockQueue(sqlite: Sqlite, folder: string): DatabaseSync {
  const path = join(folder, LOCK);
  try {
    makePrivate(path);
    try {
      return lockFile(sqlite, path);
    } catch (error) {
      if (!isNoDatabase(error)) throw error;
      // Nobody has it locked, or that would have been the error, and it holds nothing. The file must stay
      // the same one: another process may be about to lock it.
      truncateSync(path);
      return lockFile(sqlite, path);
    }
  } catch (error) {
    throw explainSqlite(folder, error);
  }
}

function lockFile({ DatabaseSync }: Sqlite, path: string): DatabaseSync {
  const lock = new DatabaseSync(path);
  try {
    // Somebody may be looking whether it is locked. Deno 2.9.5 would wait for 5 s.
    lock.exec("PRAGMA busy_timeout = 100; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
    return lock;
  } catch (error) {
    lock.close();
    throw error;
  }
}

/** Whether a server, or another process that writes, has the queue open. */
export function isLocked(sqlite: Sqlite, folder: string): boolean {
  try {
    const lock = new sqlite.DatabaseSync(join(folder, LOCK), { readOnly: true });
    try {
      lock.exec("PRAGMA busy_timeout = 0");
      valueOf(lock, "PRAGMA schema_version");
      return false;
    } catch (error) {
      return isBusy(error);
    } finally {
      lock.close();
    }
  } catch {
    return false;
  }
}

/** All that is recorded now, also beside a running server. Throws a QueueError. */
export function readQueueState(sqlite: Sqlite, folder: string): State {
  try {
    const streams = storedStreams(folder);
    checkPresent(folder, streams);
    const database = openDatabase(sqlite, folder, true);
    try {
      checkOwner(database, folder, streams);
      // A server is just making it, or was killed at that moment: what it writes first is all or nothing.
      if (valueOf(database, "PRAGMA application_id") !== APPLICATION_ID) {
        return { logs: [], cursors: [], ranges: [] };
      }
      checkVersion(database, folder);
      const state = readState(database);
      checkState(state, folder, streams);
      return state;
    } finally {
      database.close();
    }
  } catch (error) {
    throw explainSqlite(folder, error);
  }
}

function openDatabase({ DatabaseSync }: Sqlite, folder: string, readOnly: boolean): DatabaseSync {
  const path = join(folder, DATABASE);
  if (!readOnly) makePrivate(path);
  const open = (file: string | URL) => {
    const database = new DatabaseSync(file, { readOnly });
    database.exec(`PRAGMA busy_timeout = ${BUSY_MS}`);
    return database;
  };
  if (!readOnly || existsSync(`${path}-wal`)) return open(path);
  try {
    return open(unchanging(path));
  } catch {
    // Deno 2.9.5 takes the URL for a path where it may not read everything.
    return open(path);
  }
}

/**
 * Nobody has the database open if it has no log: then SQLite need not create one to read it, which
 * would be another user's, and which a read-only file system forbids (sqlite.org/uri.html).
 */
function unchanging(path: string): URL {
  const url = pathToFileURL(path);
  url.searchParams.set("immutable", "1");
  return url;
}

/** The streams in this folder that have messages, as their folders tell. */
export function storedStreams(folder: string): string[] {
  const names = readdirSync(folder, { withFileTypes: true });
  return names.filter((entry) => entry.isDirectory() && STREAM.test(entry.name))
    .map(({ name }) => name)
    .filter((name) => readdirSync(join(folder, name)).some((file) => SEGMENT.test(file)));
}

const SEGMENT = /^\d{16}\.segment$/;
/** The name of a stream, and of its folder. */
const STREAM = /^[0-9a-f]{16}$/;

const damaged = (folder: string, why: string): QueueError =>
  new QueueError(
    `the queue ${folder} is damaged: ${DATABASE} ${why}; \`queue repair\` saves its messages`,
  );

function checkPresent(folder: string, streams: readonly string[]): void {
  if (existsSync(join(folder, DATABASE))) return;
  throw streams.length > 0
    ? damaged(folder, "is missing")
    : new QueueError(`there is no queue ${folder}`);
}

/** Throws a QueueError unless the database is a queue's, or empty and new. */
function checkOwner(database: DatabaseSync, folder: string, streams: readonly string[]): void {
  if (valueOf(database, "PRAGMA application_id") === APPLICATION_ID) return;
  if (valueOf(database, "SELECT count(*) FROM sqlite_schema") !== 0) {
    throw new QueueError(
      `${join(folder, DATABASE)} is an SQLite database but not a queue's; it was not changed`,
    );
  }
  if (streams.length > 0) throw damaged(folder, "is empty");
}

/** Throws a QueueError where what is recorded cannot be, or lacks a stream that has messages. */
function checkState({ logs, cursors }: State, folder: string, streams: readonly string[]): void {
  const known = new Set(logs.map(({ stream }) => stream));
  for (const { stream, key } of logs) {
    if (!STREAM.test(stream)) {
      throw damaged(folder, `has a wrong stream for ${JSON.stringify(key)}`);
    }
  }
  const missing = streams.find((stream) => !known.has(stream));
  if (missing !== undefined) throw damaged(folder, `lacks the stream ${missing}`);
  const keys = new Set(logs.map(({ key }) => key));
  for (const { key, name, offset } of cursors) {
    if (keys.has(key) && Number.isSafeInteger(offset) && offset >= 0) continue;
    throw damaged(folder, `has a wrong place for the reader ${JSON.stringify(name)}`);
  }
}

function checkVersion(database: DatabaseSync, folder: string): void {
  const version = valueOf(database, "PRAGMA user_version");
  if (version === DATABASE_VERSION) return;
  throw new QueueError(
    `the queue ${folder} has version ${version}, and this program supports only version ` +
      `${DATABASE_VERSION}; it was not changed`,
  );
}

function readState(database: DatabaseSync): State {
  const rows = (table: string, columns: readonly string[]): unknown[] =>
    database.prepare(`SELECT ${listOf(columns)} FROM ${table}`).all();
  const hasRanges = valueOf(database, "SELECT 1 FROM sqlite_schema WHERE name = 'ranges'") === 1;
  return {
    logs: rows("logs", LOG_COLUMNS) as LogState[],
    cursors: rows("cursors", CURSOR_COLUMNS) as CursorState[],
    ranges: (hasRanges ? rows("ranges", RANGE_COLUMNS) : []) as RangeState[],
  };
}

/**
 * Creates the file if it is missing, for the owner of its folder alone. Throws where it is a symbolic
 * link.
 */
function makePrivate(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) {
    const fd = openSync(path, constants.O_CREAT | constants.O_EXCL | constants.O_RDWR, 0o600);
    try {
      giveToOwner(fd, dirname(path));
    } finally {
      closeSync(fd);
    }
  } else if (!found.isFile()) {
    throw new QueueError(`${path} is not a regular file`);
  }
}

/** Root may repair the queue of another user, whose server has to open it afterwards. */
function giveToOwner(fd: number, folder: string): void {
  const { uid, gid } = statSync(folder);
  const own = fstatSync(fd);
  if (own.uid === uid) return;
  try {
    fchownSync(fd, uid, gid);
  } catch (error) {
    // Only root may give files away.
    if ((error as NodeJS.ErrnoException).code !== "EPERM") throw error;
  }
}
