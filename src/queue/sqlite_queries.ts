/** The SQL statements of the store. */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { BATCH_COLUMNS, prepareRaw } from "./sqlite_batch.ts";

/** Pages that one step of an incremental vacuum moves, or truncates where none has to be moved. */
const MOVED_PAGES = 64;
const CUT_PAGES = 256;

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
  // Does not use the index: that cannot find a row whose flipped bit has put it out of order.
  deleteMisplaced: "DELETE FROM batches WHERE +reader = ?1 AND +offset = ?2",
  vacuum: `PRAGMA incremental_vacuum(${MOVED_PAGES})`,
  cut: `PRAGMA incremental_vacuum(${CUT_PAGES})`,
  writeReader: "REPLACE INTO readers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
};

export type Statements = Readonly<Record<keyof typeof QUERIES, StatementSync>>;

export function prepareStatements(database: DatabaseSync): Statements {
  const entries = Object.entries(QUERIES).map(([name, query]) => [
    name,
    prepareRaw(database, query),
  ]);
  return Object.fromEntries(entries) as Statements;
}
