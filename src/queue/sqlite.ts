/** The runtime's SQLite, and its errors in plain words. */
import type { DatabaseSync } from "node:sqlite";
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

/** Converts an error of SQLite about the queue in this folder to a QueueError or QueueFull. */
export function explainSqlite(folder: string, error: unknown): QueueError | QueueFull {
  if (error instanceof QueueError || error instanceof QueueFull) return error;
  const { message, errcode } = error as { message: string; errcode?: number };
  const options = { cause: error };
  switch (codeOf(error)) {
    case BUSY:
      return new QueueError(`the queue ${folder} is open in another process`, options);
    case READONLY:
    case CANTOPEN:
      return new QueueError(`cannot write the queue ${folder}: ${message}`, options);
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
      const code = errcode === undefined ? "" : ` (SQLite result code ${errcode})`;
      return new QueueError(`cannot use the queue ${folder}: ${message}${code}`, options);
    }
  }
}
