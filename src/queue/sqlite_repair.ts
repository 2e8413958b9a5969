/**
 * Puts a damaged queue in order. Nothing is thrown away: what cannot be delivered is set aside, and
 * a file whose own structure is broken is oldFile, under another name, beside the new one.
 */
import { existsSync, renameSync, rmSync } from "node:fs";
import { type Damage, QueueError } from "./queue.ts";
import { BATCH_COLUMNS, type BatchRow, damageOf, toNumber } from "./sqlite_batch.ts";
import {
  checkQueue,
  type CheckResult,
  mustBeQueue,
  openReadOnly,
  QueueContent,
  whileOpen,
} from "./sqlite_check.ts";
import {
  BUSY,
  closeFile,
  codeOf,
  explain,
  openFile,
  type Sqlite,
  wasCutOff,
} from "./sqlite_file.ts";
import { columnsOf, type ReaderRow } from "./sqlite_reader.ts";
import { SqliteStore } from "./sqlite_store.ts";

export interface RepairPlan {
  /**
   * `nothing`: all is in order; `undo`: a transaction was cut off, which opening the queue undoes;
   * `set-aside`: batches are in the way; `copy`: what is good must go into a new file.
   */
  kind: "nothing" | "undo" | "set-aside" | "copy";
  /** What was found; undefined for `undo`, before which nothing can be said. */
  found?: CheckResult;
}

/** What there is to do; changes nothing. Throws a QueueError. */
export function planRepair(sqlite: Sqlite, file: string): RepairPlan {
  mustBeQueue(file);
  if (wasCutOff(file)) {
    try {
      openReadOnly(sqlite, file).close();
    } catch (error) {
      if (codeOf(error) === BUSY) throw whileOpen(file, error);
      return { kind: "undo" };
    }
  }
  const found = checkQueue(sqlite, file);
  if (found.broken.length > 0 || found.damages.some(({ reader }) => reader === "?")) {
    return { kind: "copy", found };
  }
  return { kind: found.damages.length > 0 ? "set-aside" : "nothing", found };
}

/** What was done. */
export interface RepairResult {
  damages: Damage[];
  /** Where the old file is now, if there is a new one. */
  oldFile?: string;
}

/** Does what `planRepair` says. Throws a QueueError, and leaves the file as it was then. */
export function repairQueue(
  sqlite: Sqlite,
  file: string,
  { kind, found }: RepairPlan,
): RepairResult {
  switch (kind) {
    case "nothing":
      return { damages: [] };
    case "undo": {
      closeFile(openFile(sqlite, file, "always"));
      return repairQueue(sqlite, file, planRepair(sqlite, file));
    }
    case "set-aside":
      return { damages: setAside(sqlite, file, found!.damages) };
    case "copy":
      return copyGood(sqlite, file);
  }
}

/** Reading a damaged batch is what sets it aside. */
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

/** Batches that one transaction copies. */
const MOST_COPIED = 32;

function copyGood(sqlite: Sqlite, file: string): RepairResult {
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
      const good = new Map<ReaderRow, BatchRow[]>(content.readers.map((row) => [row, []]));
      database.exec("BEGIN");
      let copied = 0;
      for (const { row, reader, bytes } of content.batches()) {
        if (reader === undefined || typeof bytes === "string") {
          // Its bytes stay in the old file.
          insertDamaged.run(...Object.values({ ...row, data: null }), String(bytes), Date.now());
          damages.push(damageOf(reader?.name ?? "?", row, String(bytes)));
          continue;
        }
        const { lastInsertRowid: data } = insertData.run(bytes);
        insertBatch.run(...Object.values({ ...row, data }));
        good.get(reader)!.push(row);
        if (++copied % MOST_COPIED === 0) database.exec("COMMIT; BEGIN");
      }
      for (const [row, batches] of good) {
        const counted = content.doubtful.has(row) ? distrust(row, batches) : row;
        insertReader.run(...columnsOf(recount(counted, batches)));
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

/** A reader's row with what these batches come to. */
function recount(row: ReaderRow, batches: readonly BatchRow[]): ReaderRow {
  const sum = (column: "length" | "messages") =>
    batches.reduce((total, batch) => total + toNumber(batch[column]), 0);
  return { ...row, batches: batches.length, bytes: sum("length"), messages: sum("messages") };
}

/** A damaged row, as far as its batches can tell: rather delivers twice than not at all. */
function distrust(row: ReaderRow, batches: readonly BatchRow[]): ReaderRow {
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

/** This path, or the first with a number that nobody uses. */
function unused(path: string): string {
  for (let i = 0; i < 1000; i++) {
    const candidate = i === 0 ? path : `${path}.${i}`;
    if (!existsSync(candidate)) return candidate;
  }
  throw new QueueError(`there are 1000 files like ${path} already`);
}
