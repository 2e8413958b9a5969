/** The runtime's SQLite, and error messages for people. */
import { accessSync, constants, statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { DatabaseSync } from "node:sqlite";
import { explain } from "./file_errors.ts";
import { QueueError, QueueFull } from "./queue.ts";

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

/** The first value of a query's first row. */
export function valueOf(database: DatabaseSync, query: string): unknown {
  return Object.values(database.prepare(query).get() ?? {})[0];
}

/** SQLite's result codes that are handled differently. */
const BUSY = 5;
const READONLY = 8;
const IOERR = 10;
const CORRUPT = 11;
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
function codeOf(error: unknown): number | undefined {
  const { errcode, message } = error as { errcode?: unknown; message?: unknown };
  if (typeof errcode === "number" && errcode !== 0) {
    // ENOSPC is reported as FULL; a file-size limit or a quota as a failed write.
    return errcode === IOERR_WRITE ? FULL : errcode & 0xff;
  }
  return Object.entries(TEXTS).find(([text]) => String(message).startsWith(text))?.[1];
}

/** Whether another process has the database locked. */
export const isBusy = (error: unknown): boolean => codeOf(error) === BUSY;

/** Whether a file is not a database, or a damaged one. */
export function isNoDatabase(error: unknown): boolean {
  const code = codeOf(error);
  return code === NOTADB || code === CORRUPT;
}

/** What SQLite opens of a queue; first the folder itself. */
const OPENED = ["", "lock.db", "queue.db", "queue.db-wal", "queue.db-shm"];

/** Which of these this process may not use, and why; undefined: it may use all that are there. */
function forbidden(folder: string): string | undefined {
  for (const path of OPENED.map((name) => join(folder, name))) {
    try {
      accessSync(path, constants.R_OK | constants.W_OK);
    } catch (error) {
      const { code, name } = error as NodeJS.ErrnoException;
      const owner = statSync(path, { throwIfNoEntry: false })?.uid;
      // Deno without --allow-sys=uid cannot tell who runs it.
      const folderOwner = statSync(folder).uid;
      if (name === "NotCapable" && owner !== undefined && owner !== folderOwner) {
        return `${path} belongs to user ${owner}, and its folder to user ${folderOwner}`;
      }
      if (code === "EROFS") return `${path} is on a read-only file system`;
      if (code !== "EACCES" && code !== "EPERM") continue;
      const own = ownUser();
      if (owner === undefined || owner === own) return `${path}: not permitted`;
      const who = own === undefined ? "" : `, and this process runs as user ${own}`;
      return `${path} belongs to user ${owner}${who}`;
    }
  }
  return undefined;
}

/** The database cannot be used by this process, or not now, whatever it holds. */
export class NoAccess extends QueueError {}

/** The number of the user who runs this process; undefined: not known, or not permitted on Deno. */
function ownUser(): number | undefined {
  try {
    return process.geteuid?.();
  } catch {
    return undefined;
  }
}

/** Converts an error of SQLite about the queue in this folder to a QueueError or QueueFull. */
export function explainSqlite(folder: string, error: unknown): QueueError | QueueFull {
  if (error instanceof QueueError || error instanceof QueueFull) return error;
  const { message, errcode } = error as { message: string; errcode?: number };
  const options = { cause: error };
  switch (codeOf(error)) {
    case BUSY:
      return new NoAccess(`the queue ${folder} is open in another process`, options);
    case READONLY:
      return new NoAccess(
        `cannot write the queue ${folder}: ${forbidden(folder) ?? message}`,
        options,
      );
    case CANTOPEN:
      return new NoAccess(
        `cannot open the queue ${folder}: ${forbidden(folder) ?? message}`,
        options,
      );
    case CORRUPT:
    case NOTADB:
      return new QueueError(
        `the queue ${folder} is damaged: queue.db: ${message}; \`queue repair\` saves its messages`,
        options,
      );
    case FULL:
    // Deno 2.9.5 gives no code for errors of a statement: a failed write is then any I/O error.
    case IOERR:
      return new QueueFull(`no disk space for the queue ${folder}: ${message}`, "disk", error);
    default: {
      if (typeof (error as NodeJS.ErrnoException).code === "string" && errcode === undefined) {
        const what = `cannot use the queue ${folder}`;
        const why = forbidden(folder);
        return why === undefined ? explain(error, what) : new NoAccess(`${what}: ${why}`, options);
      }
      const code = errcode === undefined ? "" : ` (SQLite result code ${errcode})`;
      return new QueueError(`cannot use the queue ${folder}: ${message}${code}`, options);
    }
  }
}
