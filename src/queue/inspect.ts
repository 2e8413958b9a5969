/** Looks into a queue from outside, also while a server has it open. Changes nothing. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { findSegments } from "./stream_folder.ts";
import { NO_FOLDER } from "./disk_log.ts";
import { requireQueue } from "./disk_queue.ts";
import { missingBetween, missingSince } from "./missing.ts";
import type { Amount, StoredBatch } from "./queue.ts";
import { INCOMPLETE, type Segment, type SegmentDamage } from "./segment.ts";
import { streamCrc } from "./segment_format.ts";
import type { Sqlite } from "./sqlite.ts";
import { type CursorState, isLocked, type LogState, readQueueState } from "./state_database.ts";

/** What a queue stores. */
export interface QueueStatus {
  folder: string;
  /** A server has it open. */
  open: boolean;
  /** On disk. */
  bytes: number;
  streams: StreamStatus[];
  readers: ReaderStatus[];
}

export interface StreamStatus {
  /** "": shared by all readers; else the name of its only reader. */
  key: string;
  stream: string;
  /** Offsets of the first byte and after the last byte on disk; where nothing is, of the next byte. */
  start: number;
  end: number;
  bytes: number;
  segments: number;
  /** When its oldest message was stored: ISO 8601; null: nothing is stored. */
  oldest: string | null;
  /** The upstream's stream, of a source that is acknowledged. */
  upstream: string | null;
}

export interface ReaderStatus {
  name: string;
  stream: string;
  /** Everything before this offset is delivered. */
  delivered: number;
  /** On disk and not delivered. */
  bytes: number;
  /** Of them. An estimate where it has received a part of a stored batch. */
  messages: number;
  acknowledges: boolean;
}

/** A log as it is on disk, with its segments indexed. */
interface OpenedLog {
  log: LogState;
  cursors: CursorState[];
  segments: Segment[];
  damages: SegmentDamage[];
}

/** The logs of a queue. Throws a QueueError. */
async function openLogs(sqlite: Sqlite, folder: string, check: boolean): Promise<OpenedLog[]> {
  requireQueue(folder);
  const { logs, cursors, ranges } = readQueueState(sqlite, folder);
  const opened: OpenedLog[] = [];
  try {
    for (const log of logs) {
      const path = join(folder, log.stream);
      const damages: SegmentDamage[] = [];
      const segments = existsSync(path) ? await openSegments(path, log.stream, check, damages) : [];
      damages.push(...missingBetween(segments, damages));
      const closed = ranges.find(({ key, what }) => key === log.key && what === "closed");
      const gone = closed === undefined ? [] : missingSince(closed, segments, damages);
      if (!existsSync(path)) {
        const reason = NO_FOLDER;
        damages.push(...gone.map((damage) => ({ ...damage, reason })));
        if (gone.length === 0) damages.push({ offset: 0, bytes: 0, reason });
      } else if (gone.length > 0 && isStillClosed(sqlite, folder, log.key)) {
        damages.push(...gone);
      }
      const own = cursors.filter(({ key }) => key === log.key);
      opened.push({ log, cursors: own, segments, damages });
    }
    return opened;
  } catch (error) {
    await closeLogs(opened);
    throw error;
  }
}

/** Whether no server has opened the queue since it was closed: that deletes what is delivered. */
function isStillClosed(sqlite: Sqlite, folder: string, log: string): boolean {
  const { ranges } = readQueueState(sqlite, folder);
  return ranges.some(({ key, what }) => key === log && what === "closed");
}

/** How often all segments may be deleted while they are opened. */
const MOST_ATTEMPTS = 20;

/** The segments of a stream, indexed. A running server deletes what is delivered, oldest first. */
async function openSegments(
  path: string,
  stream: string,
  check: boolean,
  damages: SegmentDamage[],
): Promise<Segment[]> {
  for (let attempt = 1;; attempt++) {
    const found = findSegments(path, streamCrc(stream));
    const opened: Segment[] = [];
    for (const segment of found) {
      try {
        const torn = await segment.index(stream, (damage) => damages.push(damage), check);
        opened.push(segment);
        if (torn > 0 && segment !== found.at(-1)) {
          damages.push({ offset: segment.end, bytes: torn, reason: INCOMPLETE });
        }
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
        // Those before it are deleted as well.
        for (const segment of opened.splice(0)) await segment.close();
        damages.length = 0;
      }
    }
    if (opened.length > 0 || found.length === 0 || attempt === MOST_ATTEMPTS) return opened;
  }
}

async function closeLogs(logs: readonly OpenedLog[]): Promise<void> {
  for (const { segments } of logs) for (const segment of segments) await segment.close();
}

/** What indexed segments have from `offset` on. */
function storedAfter(segments: readonly Segment[], offset: number): Amount {
  const all = segments.map((segment) => segment.after(offset)!);
  return {
    bytes: all.reduce((sum, { bytes }) => sum + bytes, 0),
    messages: all.reduce((sum, { messages }) => sum + messages, 0),
  };
}

/** What a queue stores. Rejects with a QueueError. */
export async function queueStatus(sqlite: Sqlite, folder: string): Promise<QueueStatus> {
  const logs = await openLogs(sqlite, folder, false);
  try {
    const streams = logs.map(({ log, cursors, segments }) => ({
      key: log.key,
      stream: log.stream,
      start: segments[0]?.start ?? goesOnAt(log, cursors),
      end: segments.at(-1)?.end ?? goesOnAt(log, cursors),
      bytes: segments.reduce((sum, { size }) => sum + size, 0),
      segments: segments.length,
      oldest: segments[0]?.oldestMs === undefined
        ? null
        : new Date(segments[0].oldestMs).toISOString(),
      upstream: log.originStream,
    }));
    const readers = logs.flatMap(({ log, cursors, segments }) =>
      cursors.map(({ name, offset, acknowledges }) => ({
        name,
        stream: log.stream,
        delivered: offset,
        ...storedAfter(segments, offset),
        acknowledges: acknowledges === 1,
      }))
    );
    const bytes = streams.reduce((sum, stream) => sum + stream.bytes, 0);
    return { folder, open: isLocked(sqlite, folder), bytes, streams, readers };
  } finally {
    await closeLogs(logs);
  }
}

/** Where a stream goes on of which nothing is stored: its readers have all there was. */
const goesOnAt = ({ reserved }: LogState, cursors: readonly CursorState[]): number =>
  cursors.length === 0 ? reserved : Math.max(...cursors.map(({ offset }) => offset));

/** The place of nobody: a stream as a whole. */
const ALL = { offset: 0, acknowledges: 0 };

/** Damage in a stream. */
export interface FoundDamage extends SegmentDamage {
  key: string;
}

export interface CheckResult {
  damages: FoundDamage[];
  /** What is intact. */
  batches: number;
  bytes: number;
}

/** Checks every byte. Rejects with a QueueError where the queue cannot be read at all. */
export async function checkQueue(sqlite: Sqlite, folder: string): Promise<CheckResult> {
  const logs = await openLogs(sqlite, folder, true);
  try {
    const segments = logs.flatMap(({ segments }) => segments);
    return {
      damages: logs.flatMap(({ log, damages }) =>
        damages.map((damage) => ({ key: log.key, ...damage }))
      ),
      batches: segments.reduce((sum, { records }) => sum + records, 0),
      bytes: storedAfter(segments, 0).bytes,
    };
  } finally {
    await closeLogs(logs);
  }
}

/** Names of all readers and streams. Throws a QueueError. */
export function namesIn(sqlite: Sqlite, folder: string): { readers: string[]; streams: string[] } {
  requireQueue(folder);
  const { logs, cursors } = readQueueState(sqlite, folder);
  return { readers: cursors.map(({ name }) => name), streams: logs.map(({ stream }) => stream) };
}

/**
 * What is stored for a reader, from the first message that is not delivered on, or of a stream. A reader
 * that acknowledges has exactly what is before its offset. Of others, only the start of the batch is
 * sure to be one of a message: they get all of it. `onMissing`: bytes that are missing. `onAgain`: bytes
 * before the reader's offset. Rejects with a QueueError.
 */
export async function* storedFor(
  sqlite: Sqlite,
  folder: string,
  wanted: { reader: string } | { stream: string },
  onMissing: (offset: number, bytes: number, reason: string) => void,
  onAgain: (offset: number, bytes: number) => void = () => {},
): AsyncGenerator<StoredBatch> {
  const logs = await openLogs(sqlite, folder, false);
  try {
    for (const { log, cursors, segments, damages } of logs) {
      const cursor = "stream" in wanted
        ? log.stream === wanted.stream ? ALL : undefined
        : cursors.find(({ name }) => name === wanted.reader);
      if (cursor === undefined) continue;
      const report = ({ offset, bytes, reason }: SegmentDamage) => onMissing(offset, bytes, reason);
      damages.forEach(report);
      let at = cursor.offset;
      let first = true;
      for (const segment of segments) {
        for (let batch; (batch = await segment.read(at, log.stream, report)) !== null;) {
          if (batch.offset > at && !first) onMissing(at, batch.offset - at, "they are not stored");
          const has = Math.max(0, at - batch.offset);
          const skip = cursor.acknowledges === 1 ? has : 0;
          if (has > skip) onAgain(batch.offset, has);
          at = batch.offset + batch.bytes.length;
          first = false;
          yield { ...batch, offset: batch.offset + skip, bytes: batch.bytes.subarray(skip) };
        }
      }
    }
  } finally {
    await closeLogs(logs);
  }
}
