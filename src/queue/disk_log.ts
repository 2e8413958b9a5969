/** A log in a folder of segment files. */
import { existsSync } from "node:fs";
import { unlink } from "node:fs/promises";
import { join } from "node:path";
import { checkName, DiskCursor } from "./disk_cursor.ts";
import { explain } from "./file_errors.ts";
import {
  type Amount,
  type Batch,
  type Cursor,
  type Damage,
  endOf,
  type Log,
  messagesIn,
  type Origin,
  QueueError,
  QueueFull,
  type StoredBatch,
  wallClockMs,
} from "./queue.ts";
import { Segment, type SegmentDamage } from "./segment.ts";
import { missingSince } from "./missing.ts";
import { FILE_HEADER, formatRecordHeader, recordSize, streamCrc } from "./segment_format.ts";
import type { QueueState } from "./state.ts";
import { createStreamFolder, findSegments, syncFolder } from "./stream_folder.ts";
import type { CursorState, LogState, RangeState } from "./state_database.ts";

/** What the logs of a queue share. */
export interface DiskLogContext {
  folder: string;
  state: QueueState;
  space: DiskSpace;
  /** `always`: an append resolves once it is synced; `later`: once it is written; `never`: never synced. */
  sync: "always" | "later" | "never";
  /** How often written records are synced, with `later`; ms. */
  syncEveryMs: number;
  segmentBytes: number;
  /** A segment whose first batch is older than this gets no more; ms. */
  segmentAgeMs: number;
  largestBatch: number;
  onDamage: (damage: Damage) => void;
  onSync: (seconds: number) => void;
  /** The disk failed: what was stored may be lost. */
  onFailed: (error: Error) => void;
}

/** The space that all logs of a queue take together. */
export class DiskSpace {
  used = 0;
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  fits(bytes: number): boolean {
    return this.used + bytes <= this.#most;
  }
}

interface PendingAppend {
  batch: StoredBatch;
  /** Where the batch before it ends; undefined: wherever the log ends. */
  after: number | undefined;
  /** Of its record, with the CRC: made while earlier records are written. */
  header: Uint8Array;
  resolve: () => void;
  reject: (error: Error) => void;
}

/** A batch that does not come after what is stored. Others that are pending may. */
class OutOfOrder extends QueueError {}

/** So many places of damage are remembered, the last ones. */
const MOST_DAMAGE = 100;
/** Segments of a log that are kept open for readers. */
const MOST_OPEN = 16;
/** Limits of one write. */
const MOST_WRITTEN_BYTES = 8 << 20;
const MOST_WRITTEN = 64;

export class DiskLog implements Log {
  readonly key: string;
  readonly stream: string;
  readonly epoch: number;
  reserved: number;
  repairedEnd = 0;
  closedEnd = 0;
  origin: Origin;
  end = 0;
  durableEnd = 0;
  readonly #context: DiskLogContext;
  readonly #folder: string;
  readonly #crc: number;
  readonly #cursors: Map<string, DiskCursor> = new Map();
  readonly #segments: Segment[] = [];
  /** Those that were read last, in that order. */
  readonly #read: Segment[] = [];
  /** Records can be added to the last segment. */
  #active = false;
  #pending: PendingAppend[] = [];
  #writing: Promise<void> | undefined;
  /** Why nothing can be appended or read any more. */
  #over: QueueError | undefined;
  #failed: QueueError | undefined;
  readonly #damage: SegmentDamage[] = [];
  /** Written and not yet synced. */
  #unsynced: { segment: Segment; end: number }[] = [];
  /** Appends that wait for the sync. */
  #unresolved: { end: number; resolve: () => void; reject: (error: Error) => void }[] = [];
  #syncing: Promise<void> | undefined;
  #syncTimer: ReturnType<typeof setTimeout> | undefined;
  /** Settles when all that is to be deleted so far is. */
  #deleting: Promise<void> = Promise.resolve();

  constructor(context: DiskLogContext, row: LogState) {
    this.#context = context;
    this.key = row.key;
    this.stream = row.stream;
    this.epoch = row.epoch;
    this.reserved = row.reserved;
    const { originStream, shift, since } = row;
    this.origin = { shift, since, ...(originStream === null ? {} : { stream: originStream }) };
    this.#crc = streamCrc(row.stream);
    this.#folder = join(context.folder, row.stream);
  }

  /** Finds what is stored, and cuts off an incomplete last record. */
  async recover(
    cursors: readonly CursorState[],
    ranges: readonly RangeState[] = [],
  ): Promise<void> {
    const rangeOf = (what: RangeState["what"]) => ranges.find((range) => range.what === what);
    this.repairedEnd = rangeOf("repaired")?.end ?? 0;
    const damages: SegmentDamage[] = [];
    await this.#find(cursors, damages);
    const closed = rangeOf("closed");
    if (closed !== undefined) {
      this.closedEnd = closed.end;
      damages.push(...missingSince(closed, this.#segments, damages));
    }
    for (const damage of damages) this.#report(damage);
  }

  async #find(cursors: readonly CursorState[], damages: SegmentDamage[]): Promise<void> {
    if (!existsSync(this.#folder)) {
      const offset = Math.min(...cursors.map(({ offset }) => offset));
      if (cursors.length > 0) damages.push({ offset, bytes: 0, reason: NO_FOLDER });
      await createStreamFolder(this.#folder, this.key);
    }
    for (const { name, offset, acknowledges } of cursors) {
      this.#cursors.set(name, new DiskCursor(this, name, offset, acknowledges === 1, true));
    }
    for (const segment of findSegments(this.#folder, this.#crc)) {
      this.#segments.push(segment);
      this.#context.space.used += segment.size;
      await segment.findOldest();
    }
    while (this.#segments.length > 0) {
      const last = this.#segments.at(-1)!;
      await last.index(this.stream, (damage) => damages.push(damage), true);
      if (last.records > 0) {
        const before = last.size;
        await last.reopen();
        this.#context.space.used -= before - last.size;
        this.end = this.durableEnd = last.end;
        this.#active = true;
        return;
      }
      await this.#delete(last);
    }
    // Nothing is stored: what comes after the least of them may still be needed.
    const offsets = cursors.map(({ offset }) => offset);
    this.end = this.durableEnd = offsets.length === 0 ? 0 : Math.min(...offsets);
  }

  get largestBatch(): number {
    return this.#context.largestBatch;
  }

  get start(): number {
    return this.#segments[0]?.start ?? this.end;
  }

  get bytes(): number {
    return this.#segments.reduce((sum, { size }) => sum + size, 0);
  }

  get segments(): number {
    return this.#segments.length;
  }

  get oldestMs(): number | undefined {
    return this.#segments[0]?.oldestMs;
  }

  get oldestSegmentMs(): number | undefined {
    return this.#segments[0]?.newestMs;
  }

  get cursors(): readonly DiskCursor[] {
    return [...this.#cursors.values()];
  }

  append({ offset, bytes, messages }: Batch, after?: number): Promise<void> {
    if (this.#over !== undefined) return Promise.reject(this.#over);
    const wrong = batchError({ offset, bytes, messages });
    if (wrong !== undefined) {
      return Promise.reject(new QueueError(`a batch cannot be stored: ${wrong}`));
    }
    const pending = Promise.withResolvers<void>();
    const batch = { offset, bytes, messages, storedAtMs: wallClockMs() };
    const header = formatRecordHeader(batch, this.#crc);
    this.#pending.push({ batch, after, header, ...pending });
    this.#writing ??= this.#write();
    return pending.promise;
  }

  /** Writes what is pending. Never rejects. */
  async #write(): Promise<void> {
    while (this.#pending.length > 0) {
      const group = this.#takeGroup();
      try {
        await this.#store(group);
      } catch (error) {
        // Those that were appended after it must not be stored before it.
        const all = error instanceof OutOfOrder ? group : [...group, ...this.#pending.splice(0)];
        const why = explain(error, `cannot write the queue ${this.#context.folder}`);
        for (const { reject } of all) reject(why);
      }
    }
    this.#writing = undefined;
  }

  /**
   * The next appends for one segment, up to one that is to fail: those before it must not fail with it.
   */
  #takeGroup(): PendingAppend[] {
    const { space, segmentBytes } = this.#context;
    const size = this.#rolls ? 0 : this.#segments.at(-1)!.size;
    let bytes = 0;
    let count = 0;
    let end = 0;
    for (const { batch, after = end } of this.#pending) {
      const isFull = size + bytes >= segmentBytes;
      bytes += recordSize(batch);
      const fits = !isFull && bytes <= MOST_WRITTEN_BYTES && space.fits(bytes + FILE_HEADER);
      const follows = batch.offset >= end && after === end;
      if (count === MOST_WRITTEN || (count > 0 && !(fits && follows))) break;
      count++;
      end = endOf(batch);
    }
    return this.#pending.splice(0, count);
  }

  async #store(group: readonly PendingAppend[]): Promise<void> {
    if (this.#failed !== undefined) throw this.#failed;
    const { space, folder, sync } = this.#context;
    const { batch: { offset }, after = this.end } = group[0]!;
    if (after !== this.end || offset < this.end) {
      throw new OutOfOrder(`a batch at ${offset} cannot be stored: the log ends at ${this.end}`);
    }
    const batches = group.map(({ batch }) => batch);
    const size = batches.reduce((sum, batch) => sum + recordSize(batch), 0);
    const rolls = this.#rolls;
    if (!space.fits(size + (rolls ? FILE_HEADER : 0))) {
      throw new QueueFull(`the queue ${folder} holds as much as it may`, "max");
    }
    const segment = rolls ? await this.#roll(offset) : this.#segments.at(-1)!;
    try {
      await segment.write(batches, group.map(({ header }) => header));
    } catch (error) {
      if (segment.records === 0) {
        this.#active = false;
        await this.#delete(segment);
      }
      throw error;
    }
    space.used += size;
    if (this.#failed !== undefined) throw this.#failed;
    this.end = endOf(batches.at(-1)!);
    if (sync === "never") {
      this.durableEnd = this.end;
    } else {
      this.#unsynced.push({ segment, end: this.end });
    }
    if (sync === "always") {
      for (const { batch, resolve, reject } of group) {
        this.#unresolved.push({ end: endOf(batch), resolve, reject });
      }
      this.#syncSoon(0);
    } else {
      for (const { resolve } of group) resolve();
      if (sync === "later") this.#syncSoon(this.#context.syncEveryMs);
    }
  }

  /** The next record is the first of a new segment. */
  get #rolls(): boolean {
    if (!this.#active) return true;
    const { segmentBytes, segmentAgeMs } = this.#context;
    const { size, oldestMs = Infinity } = this.#segments.at(-1)!;
    return size >= segmentBytes || oldestMs + segmentAgeMs < wallClockMs();
  }

  /** Begins a new segment. */
  async #roll(start: number): Promise<Segment> {
    const segment = await Segment.create(
      this.#folder,
      start,
      this.stream,
      this.#crc,
      this.end,
    );
    this.#context.space.used += segment.size;
    this.#segments.push(segment);
    this.#active = true;
    if (this.#context.sync !== "never") await syncFolder(this.#folder);
    return segment;
  }

  #syncSoon(ms: number): void {
    if (this.#syncing !== undefined || this.#syncTimer !== undefined) return;
    if (ms === 0) void this.#sync();
    else this.#syncTimer = setTimeout(() => void this.#sync(), ms);
  }

  /** Syncs all that is written. Never rejects. */
  async #sync(): Promise<void> {
    clearTimeout(this.#syncTimer);
    this.#syncTimer = undefined;
    if (this.#unsynced.length > 0) this.#syncing ??= this.#syncWritten();
    await this.#syncing;
  }

  async #syncWritten(): Promise<void> {
    while (this.#unsynced.length > 0) {
      const written = this.#unsynced.splice(0);
      const startMs = performance.now();
      try {
        for (const segment of new Set(written.map(({ segment }) => segment))) await segment.sync();
      } catch (error) {
        this.#fail(error);
        break;
      }
      this.#context.onSync((performance.now() - startMs) / 1000);
      // Full ones are not needed until they are read.
      for (const { segment } of written) if (!this.#read.includes(segment)) this.#putAside(segment);
      this.#setDurable(written.at(-1)!.end);
      if (this.#context.sync === "later") break;
    }
    // At once: what is written from now on needs a sync of its own.
    this.#syncing = undefined;
    if (this.#unsynced.length > 0) this.#syncSoon(this.#context.syncEveryMs);
  }

  #setDurable(end: number): void {
    this.durableEnd = end;
    while ((this.#unresolved[0]?.end ?? Infinity) <= end) this.#unresolved.shift()!.resolve();
  }

  /** Nobody knows what is on the disk, and another fsync would not tell (fsync(2)). */
  #fail(error: unknown): void {
    const { message } = explain(error, `cannot sync the queue ${this.#context.folder}`);
    const why = new QueueError(message, { cause: error });
    this.#over = this.#failed = why;
    this.#unsynced = [];
    for (const { reject } of this.#unresolved.splice(0)) reject(why);
    this.#context.onFailed(why);
  }

  batchEnd(offset: number): number | undefined {
    return this.#segments.findLast(({ start }) => start <= offset)?.recordEnd(offset);
  }

  storedAtMs(offset: number): number | undefined {
    for (const [i, segment] of this.#segments.entries()) {
      if (this.#endOf(i) <= offset) continue;
      const storedAtMs = segment.storedAtMs(offset);
      // Else there are only offsets that nothing has.
      if (storedAtMs !== undefined || segment.after(offset)?.bytes !== 0) return storedAtMs;
    }
    return undefined;
  }

  /** Where the segment of this index ends, or the next one begins. */
  #endOf(index: number): number {
    return this.#segments[index + 1]?.start ?? this.end;
  }

  after(offset: number): Amount {
    let bytes = 0;
    let messages = 0;
    /** In segments whose messages were not counted yet. */
    let uncounted = 0;
    const counted = { bytes: 0, messages: 0 };
    for (const [i, segment] of this.#segments.entries()) {
      const { total } = segment;
      counted.bytes += total?.bytes ?? 0;
      counted.messages += total?.messages ?? 0;
      const end = this.#endOf(i);
      if (end <= offset) continue;
      const exact = segment.after(offset);
      // There are no more bytes than the file has, also where offsets were skipped.
      const most = total?.bytes ?? segment.size - FILE_HEADER;
      const left = exact?.bytes ?? Math.min(most, end - Math.max(offset, segment.start));
      bytes += left;
      if (exact !== undefined) messages += exact.messages;
      else if (total !== undefined) messages += messagesIn(left, total.bytes, total.messages);
      else uncounted += left;
    }
    // The last segment is always counted. Its messages are taken to be as long as all others.
    if (uncounted > 0) messages += messagesIn(uncounted, counted.bytes, counted.messages) || 1;
    return { bytes, messages };
  }

  async read(offset: number, into?: ArrayBufferLike): Promise<StoredBatch | null> {
    if (this.#over !== undefined) throw this.#over;
    // The last segment that begins at or before it, or else the first.
    let at = this.#segments.findLastIndex(({ start }) => start <= offset);
    if (at < 0) at = 0;
    for (; at < this.#segments.length; at++) {
      const segment = this.#segments[at]!;
      try {
        this.#touch(segment);
        const report = (damage: SegmentDamage) => this.#report(damage);
        const batch = await segment.read(offset, this.stream, report, into);
        if (batch !== null) return batch;
      } catch (error) {
        // It was deleted meanwhile: those after it are still there. Or the queue was closed.
        if (this.#over !== undefined || !this.#segments.includes(segment)) {
          return await this.read(offset);
        }
        throw explain(error, `cannot read the queue ${this.#context.folder}`);
      }
    }
    return null;
  }

  /** Only those that were read last, and the last one, keep their files open and their index. */
  #touch(segment: Segment): void {
    if (this.#read.at(-1) === segment) return;
    const known = this.#read.indexOf(segment);
    if (known >= 0) this.#read.splice(known, 1);
    this.#read.push(segment);
    while (this.#read.length > MOST_OPEN) this.#putAside(this.#read.shift()!);
  }

  #putAside(segment: Segment): void {
    if (segment === this.#segments.at(-1)) return;
    segment.putAside().catch((error) => this.#fail(error));
  }

  isDamaged(from: number, to: number): boolean {
    return this.#damage.some(({ offset, bytes }) => offset < to && offset + bytes >= from);
  }

  async reserve(offset: number): Promise<void> {
    if (offset === this.reserved) return;
    this.#putLog({ reserved: offset });
    await this.#context.state.recorded();
    this.reserved = offset;
  }

  async setOrigin(origin: Origin): Promise<void> {
    const { stream = null, shift, since } = origin;
    this.#putLog({ originStream: stream, shift, since });
    await this.#context.state.recorded();
    this.origin = origin;
  }

  #putLog(change: Partial<LogState>): void {
    const { stream = null, shift, since } = this.origin;
    const { key, epoch, reserved } = this;
    const row = { key, stream: this.stream, epoch, reserved, originStream: stream, shift, since };
    this.#context.state.putLog({ ...row, ...change });
  }

  async openCursor(name: string, offset: number): Promise<Cursor> {
    checkName(name);
    let cursor = this.#cursors.get(name);
    if (cursor === undefined) {
      cursor = new DiskCursor(this, name, offset, false, false);
      this.#cursors.set(name, cursor);
      this.putCursor(cursor);
    }
    await this.#context.state.recorded();
    cursor.recorded = true;
    return cursor;
  }

  /** Records a cursor, soon. */
  putCursor({ name, offset, acknowledges }: DiskCursor): void {
    this.#context.state.putCursor({
      key: this.key,
      name,
      offset,
      acknowledges: acknowledges ? 1 : 0,
    });
  }

  recorded(): Promise<void> {
    return this.#context.state.recorded();
  }

  async forget(name: string): Promise<void> {
    this.#cursors.delete(name);
    this.#context.state.forget(this.key, name);
    await this.settled();
    if (this.#cursors.size === 0) await this.#trim(Infinity);
  }

  async settled(): Promise<void> {
    const offsets = this.cursors.map((cursor) => ({ cursor, offset: cursor.offset }));
    await this.#context.state.recorded();
    // One that was moved back meanwhile needs more.
    for (const { cursor, offset } of offsets) cursor.durable = Math.min(offset, cursor.offset);
    await this.#trim();
  }

  /** Offset from which on some cursor needs what is stored. */
  get #needed(): number {
    // Readers of a shared stream may be unknown: its database was made anew, or they are not recorded yet.
    if (this.key === "" && !this.cursors.some(({ recorded }) => recorded)) return -Infinity;
    return Math.min(...this.cursors.map(({ durable }) => durable));
  }

  /**
   * Deletes the segments that no cursor needs. Not once the log is closed: what is there then is recorded.
   */
  async #trim(upTo?: number): Promise<void> {
    while (this.#segments.length > 1 && this.#segments[1]!.start <= (upTo ?? this.#needed)) {
      if (this.#over !== undefined) return;
      await this.#delete(this.#segments[0]!);
    }
    await this.#syncing;
    if (
      this.#over !== undefined || this.#segments.length !== 1 || this.end > (upTo ?? this.#needed)
    ) return;
    if (this.#writing !== undefined) return;
    // A segment that is deleted is not synced.
    this.#unsynced = [];
    this.#setDurable(this.end);
    this.#active = false;
    await this.#delete(this.#segments[0]!);
  }

  async dropOldest(): Promise<number> {
    const [oldest, next] = this.#segments;
    if (oldest === undefined || this.#over !== undefined) return this.start;
    if (next === undefined) {
      if (this.#writing !== undefined || this.#unsynced.length > 0) return oldest.start;
      this.#active = false;
    }
    await this.#delete(oldest);
    return this.start;
  }

  async #delete(segment: Segment): Promise<void> {
    const at = this.#segments.indexOf(segment);
    if (at < 0) return;
    this.#segments.splice(at, 1);
    this.#context.space.used -= segment.size;
    // One after the other: a kill must not leave an older one behind, with a gap after it.
    const deleting = this.#deleting.catch(() => {}).then(async () => {
      await segment.close();
      await unlink(segment.path);
    });
    this.#deleting = deleting;
    try {
      await deleting;
    } catch (error) {
      throw explain(error, `cannot delete from the queue ${this.#context.folder}`);
    }
  }

  #report({ offset, bytes, reason }: SegmentDamage): void {
    if (this.#damage.push({ offset, bytes, reason }) > MOST_DAMAGE) this.#damage.shift();
    this.#context.onDamage({ key: this.key, offset, bytes, reason });
  }

  /** Stores what was appended so far, and syncs it. */
  async close(): Promise<void> {
    this.#over ??= new QueueError(`the queue ${this.#context.folder} is closed`);
    await this.#writing;
    while (this.#unsynced.length > 0) await this.#sync();
    await this.#syncing;
    clearTimeout(this.#syncTimer);
    for (const segment of this.#segments) await segment.close();
  }
}

/** Why nobody can append this; undefined: it can be appended. */
function batchError(batch: Batch): string | undefined {
  const { offset, bytes, messages } = batch;
  if (bytes.length === 0) return "it has no bytes";
  if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(endOf(batch))) {
    return `its offset must be a whole number from 0 to 2^53 - 1, is ${offset}`;
  }
  if (!Number.isInteger(messages) || messages < 0 || messages >= 2 ** 32) {
    return `its messages must be a whole number below 2^32, is ${messages}`;
  }
  return undefined;
}

export const NO_FOLDER = "the folder of its stream is missing";
