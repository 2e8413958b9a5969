/** Changes a queue that no server has open. */
import { existsSync, readdirSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { requireQueue } from "./disk_queue.ts";
import { findSegments, KEY_FILE } from "./stream_folder.ts";
import { QueueError, REPAIR_STEP } from "./queue.ts";
import { streamCrc } from "./segment_format.ts";
import { NoAccess, type Sqlite } from "./sqlite.ts";
import {
  type CursorState,
  DATABASE,
  lockQueue,
  type LogState,
  type RangeState,
  readQueueState,
  StateDatabase,
  storedStreams,
} from "./state_database.ts";

/** Where a reader can be moved to. */
export type SeekTo = "now" | "oldest" | number;

/** Removes a reader, and what only it needed is deleted later. Throws a QueueError. */
export function forgetReader(sqlite: Sqlite, folder: string, name: string): void {
  change(
    sqlite,
    folder,
    name,
    (database, cursor) => database.change({ logs: [], cursors: [], forgotten: [cursor] }),
  );
}

/**
 * Moves a reader; returns its new offset: where a batch begins, and so a message. Rejects with a
 * QueueError.
 */
export async function seekReader(
  sqlite: Sqlite,
  folder: string,
  name: string,
  to: SeekTo,
): Promise<number> {
  requireQueue(folder);
  const { logs, cursors } = readQueueState(sqlite, folder);
  const cursor = cursorOf({ cursors }, folder, name);
  const { stream } = logs.find(({ key }) => key === cursor.key)!;
  const segments = findSegments(join(folder, stream), streamCrc(stream));
  for (const segment of segments) await segment.index(stream, () => {});
  const last = segments.at(-1);
  const start = segments[0]?.start ?? cursor.offset;
  const end = Math.max(last?.end ?? 0, cursor.offset);
  const wanted = to === "now" ? end : to === "oldest" ? start : to;
  // Of what is between two batches nothing is stored: there it begins with the one after.
  const offset = segments.map((segment) => segment.recordStart(wanted))
    .find((at) => at !== undefined) ?? wanted;
  for (const segment of segments) await segment.close();
  if (wanted < start || wanted > end) {
    throw new QueueError(
      `${name} cannot be moved to offset ${wanted}: the queue has its messages from ${start} to ${end}`,
    );
  }
  change(
    sqlite,
    folder,
    name,
    (database, cursor) =>
      database.change({ logs: [], cursors: [{ ...cursor, offset }], forgotten: [] }),
  );
  return offset;
}

function cursorOf(
  { cursors }: { cursors: readonly CursorState[] },
  folder: string,
  name: string,
): CursorState {
  const cursor = cursors.find((cursor) => cursor.name === name);
  if (cursor !== undefined) return cursor;
  const names = cursors.map(({ name }) => name).join(", ") || "none";
  throw new QueueError(`${folder} has no reader ${JSON.stringify(name)}: it has ${names}`);
}

function change(
  sqlite: Sqlite,
  folder: string,
  name: string,
  apply: (database: StateDatabase, cursor: CursorState) => void,
): void {
  requireQueue(folder);
  const database = new StateDatabase(sqlite, folder, true);
  try {
    apply(database, cursorOf(database.initial, folder, name));
  } finally {
    database.close();
  }
}

/** What is wrong with the database of a queue; undefined: nothing. Throws a QueueError where it may not be read. */
export function databaseError(sqlite: Sqlite, folder: string): string | undefined {
  requireQueue(folder);
  try {
    readQueueState(sqlite, folder);
    return undefined;
  } catch (error) {
    if (error instanceof NoAccess) throw error;
    return (error as Error).message;
  }
}

/**
 * Makes the database anew from the folders of the streams. A reader with a stream of its own is sent all
 * that is stored for it. Those of a shared stream are not known; whoever comes begins with the oldest
 * message, as long as there are any of these. Keeps the old database, and returns its name; undefined:
 * there was none. Throws a QueueError.
 */
export function rebuildDatabase(sqlite: Sqlite, folder: string): string | undefined {
  const lock = lockQueue(sqlite, folder);
  const kept = `${DATABASE}.damaged-${Date.now()}`;
  const logs: LogState[] = [];
  const cursors: CursorState[] = [];
  const ranges: RangeState[] = [];
  const hadOne = existsSync(join(folder, DATABASE));
  try {
    for (const [key, stream] of readKeys(folder)) {
      const segments = findSegments(join(folder, stream), streamCrc(stream));
      // Readers may have been sent what came after it: offsets up to there must not be used again.
      const last = segments.at(-1)!;
      const reserved = (Math.ceil((last.start + last.size) / REPAIR_STEP) + 1) * REPAIR_STEP;
      logs.push({ key, stream, epoch: 1, reserved, originStream: null, shift: 0, since: 0 });
      const offset = segments[0]!.start;
      // They are deleted as wholes: a reader that comes while one of them is there begins with it.
      const end = last.start + 1;
      if (key !== "") cursors.push({ key, name: key, offset, acknowledges: 0 });
      else ranges.push({ key, what: "repaired", start: offset, end });
    }
    for (const name of readdirSync(folder)) {
      if (!name.startsWith(DATABASE) || name.includes(".damaged-")) continue;
      renameSync(join(folder, name), join(folder, name.replace(DATABASE, kept)));
    }
  } finally {
    lock.close();
  }
  const database = new StateDatabase(sqlite, folder, true, true);
  try {
    database.change({ logs, cursors, ranges, forgotten: [] });
  } finally {
    database.close();
  }
  return hadOne ? kept : undefined;
}

/** The streams that have messages, by their keys. Throws a QueueError. */
function readKeys(folder: string): Map<string, string> {
  const keys = new Map<string, string>();
  for (const stream of storedStreams(folder)) {
    const path = join(folder, stream, KEY_FILE);
    let key: string;
    try {
      key = readFileSync(path, "utf8").replace(/\n$/, "");
    } catch (cause) {
      throw new QueueError(
        `cannot repair the queue ${folder}: ${path}, whose line tells the reader, cannot be read`,
        { cause },
      );
    }
    const other = keys.get(key);
    if (other !== undefined) {
      throw new QueueError(
        `cannot repair the queue ${folder}: ${other} and ${stream} are of the same reader; ` +
          "move one of these folders away",
      );
    }
    keys.set(key, stream);
  }
  return keys;
}
