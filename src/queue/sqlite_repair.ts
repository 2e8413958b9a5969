/**
 * Repairs a damaged queue. Nothing is deleted: damaged batches are set aside, and a file with a broken
 * structure is kept under another name beside the new file.
 */
import { existsSync, renameSync, rmSync } from "node:fs";
import { type Damage, QueueError } from "./queue.ts";
import { BATCH_COLUMNS, type BatchRow, damageOf, toNumber } from "./sqlite_batch.ts";
import {
  checkQueue,
  type CheckResult,
  explainOpening,
  openReadOnly,
  QueueContent,
  requireQueue,
} from "./sqlite_check.ts";
import {
  BUSY,
  closeFile,
  codeOf,
  explain,
  hasHotJournal,
  openFile,
  type Sqlite,
} from "./sqlite_file.ts";
import { columnsOf, type ReaderRow } from "./sqlite_reader.ts";
import { SqliteStore } from "./sqlite_store.ts";

export interface RepairPlan {
  /**
   * `nothing`: there is no damage; `roll-back`: a transaction was interrupted, and opening the queue
   * rolls it back; `set-aside`: batches are damaged; `copy`: the structure is broken, and intact
   * batches are copied into a new file.
   */
  kind: "nothing" | "roll-back" | "set-aside" | "copy";
  /** Undefined for `roll-back`, before which the file cannot be checked. */
  found?: CheckResult;
}

/** Checks a queue and decides how to repair it; changes nothing. Throws a QueueError. */
export function planRepair(sqlite: Sqlite, file: string): RepairPlan {
  requireQueue(file);
  if (hasHotJournal(file)) {
    try {
      openReadOnly(sqlite, file).close();
    } catch (error) {
      if (codeOf(error) === BUSY) throw explainOpening(file, error);
      return { kind: "roll-back" };
    }
  }
  const found = checkQueue(sqlite, file);
  if (found.broken.length > 0 || found.damages.some(({ reader }) => reader === "?")) {
    return { kind: "copy", found };
  }
  return { kind: found.damages.length > 0 ? "set-aside" : "nothing", found };
}

export interface RepairResult {
  /** Batches that were set aside. */
  damages: Damage[];
  /** New path of the old file, if there is a new file. */
  oldFile?: string;
}

/** Repairs a queue by a plan of `planRepair`. If it throws a QueueError, the file is unchanged. */
export function repairQueue(
  sqlite: Sqlite,
  file: string,
  { kind, found }: RepairPlan,
): RepairResult {
  switch (kind) {
    case "nothing":
      return { damages: [] };
    case "roll-back": {
      closeFile(openFile(sqlite, file, "always"));
      return repairQueue(sqlite, file, planRepair(sqlite, file));
    }
    case "set-aside":
      return { damages: setAside(sqlite, file, found!.damages) };
    case "copy":
      return copyIntact(sqlite, file);
  }
}

/** Sets damaged batches aside: the store does that when it reads one. */
function setAside(sqlite: Sqlite, file: string, damages: readonly Damage[]): Damage[] {
  const store = new SqliteStore(sqlite, file, { sync: "always", maxBytes: Infinity });
  try {
    for (const { reader, offset } of damages) {
      store.read(store.readers.find(({ name }) => name === reader)!.id, offset);
    }
    return store.takeDamages();
  } finally {
    store.close();
  }
}

/** Limit of batches that one transaction copies. */
const MOST_COPIED = 32;

function copyIntact(sqlite: Sqlite, file: string): RepairResult {
  const fresh = unused(`${file}.new`);
  const content = new QueueContent(sqlite, file);
  const damages: Damage[] = [];
  try {
    const database = openFile(sqlite, fresh, "always");
    try {
      const insertData = database.prepare("INSERT INTO data (bytes) VALUES (?)");
      const insertBatch = database.prepare(
        `INSERT INTO batches (${BATCH_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      );
      const insertReader = database.prepare(
        "INSERT INTO readers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      );
      const insertDamaged = database.prepare(
        `INSERT INTO damaged (${BATCH_COLUMNS}, reason, found_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      );
      const intact = new Map<ReaderRow, BatchRow[]>(content.readers.map((row) => [row, []]));
      database.exec("BEGIN");
      let copied = 0;
      for (const { row, reader, bytes } of content.batches()) {
        if (reader === undefined || typeof bytes === "string") {
          // Its bytes remain only in the old file.
          insertDamaged.run(...Object.values({ ...row, data: null }), String(bytes), Date.now());
          damages.push(damageOf(reader?.name ?? "?", row, String(bytes)));
          continue;
        }
        const { lastInsertRowid: data } = insertData.run(bytes);
        insertBatch.run(...Object.values({ ...row, data }));
        intact.get(reader)!.push(row);
        if (++copied % MOST_COPIED === 0) database.exec("COMMIT; BEGIN");
      }
      for (const [row, batches] of intact) {
        const usable = content.damagedReaders.has(row) ? restoreRow(row, batches) : row;
        insertReader.run(...columnsOf(recount(usable, batches)));
      }
      database.exec("COMMIT");
    } finally {
      closeFile(database);
    }
  } catch (error) {
    rmSync(fresh, { force: true });
    rmSync(`${fresh}-journal`, { force: true });
    throw explain(fresh, error);
  } finally {
    content.close();
  }
  const oldFile = unused(`${file}.damaged`);
  renameSync(file, oldFile);
  if (existsSync(`${file}-journal`)) renameSync(`${file}-journal`, `${oldFile}-journal`);
  renameSync(fresh, file);
  return { damages, oldFile };
}

/** A reader's row with the totals of these batches. */
function recount(row: ReaderRow, batches: readonly BatchRow[]): ReaderRow {
  const sum = (column: "length" | "messages") =>
    batches.reduce((total, batch) => total + toNumber(batch[column]), 0);
  return { ...row, batches: batches.length, bytes: sum("length"), messages: sum("messages") };
}

/**
 * Restores a damaged row from its batches. Where the delivered offset is doubtful it takes the lower
 * one: duplicates are better than missing messages.
 */
function restoreRow(row: ReaderRow, batches: readonly BatchRow[]): ReaderRow {
  const whole = (value: number) => Number.isSafeInteger(value) && value >= 0 ? value : 0;
  const delivered = whole(row.delivered);
  const deliveredPosition = whole(row.deliveredPosition);
  const reserved = whole(row.reserved);
  const [first] = batches;
  const last = batches.at(-1);
  if (first === undefined || last === undefined) {
    const tails = { tail: delivered, tailPosition: deliveredPosition };
    return { ...row, delivered, deliveredPosition, reserved, ...tails };
  }
  return {
    ...row,
    delivered: Math.min(delivered, toNumber(first.offset)),
    deliveredPosition,
    reserved,
    tail: toNumber(last.offset) + toNumber(last.length),
    tailPosition: toNumber(last.position),
  };
}

/** The path itself if it is unused, else with the first free number appended. */
function unused(path: string): string {
  for (let i = 0; i < 1000; i++) {
    const candidate = i === 0 ? path : `${path}.${i}`;
    if (!existsSync(candidate)) return candidate;
  }
  throw new QueueError(`there are 1000 files like ${path} already`);
}
