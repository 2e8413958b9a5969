/**
 * One stream of messages, stored once: its newest part in memory, what a slow reader still needs on
 * disk, and a cursor for each reader. All arithmetic of offsets and positions is here and in
 * stream_cursor.ts.
 *
 * An offset counts the bytes of the stream. A position counts the bytes of the source. They differ by a
 * constant, until an upstream is replaced by another one. An offset is never used for two different
 * bytes: messages that are dropped use theirs up.
 */
import { type Block, Blocks } from "./blocks.ts";
import type { LogFigures, ReaderFigures } from "./figures.ts";
import { Gaps } from "./gaps.ts";
import { LONGEST_WRITE } from "../message/message.ts";
import { Lag } from "./lag.ts";
import {
  isSkippedByRepair,
  type Log,
  type Origin,
  type StoredBatch,
  wallClockMs,
} from "../queue/queue.ts";
import { Records } from "./records.ts";
import { Reservation } from "./reservation.ts";
import { Retention } from "./retention.ts";
import { Spiller } from "./spiller.ts";
import { type CursorConnection, type Hole, StreamCursor } from "./stream_cursor.ts";
import type { GapWhy } from "./stream_event.ts";
import type { StreamOptions, StreamState } from "./stream_options.ts";

export type { StreamOptions } from "./stream_options.ts";

/** Bytes of the stream, up to the end of the block or batch that contains them, or to a hole. */
export interface Piece {
  bytes: Uint8Array;
  /** The block or batch that contains them. */
  whole: Block | StoredBatch;
  /** They are in memory. */
  block?: Block;
}

export class Stream {
  /** Messages so far. */
  messages = 0;
  /** Messages that came from the source again, and were not sent again. */
  duplicates = 0;
  readonly #options: StreamOptions;
  readonly #state: StreamState;
  readonly #lag: Lag;
  readonly #spiller: Spiller | undefined;
  readonly #retention: Retention;
  readonly #records: Records;
  readonly #reservation: Reservation | undefined;
  readonly #gaps: Gaps;
  #origin: Origin;
  /** The origin is being recorded. */
  #following: Promise<void> | undefined;
  /** Offsets that may have been used for bytes that are lost: by a killed server, or of an old upstream. */
  #lost: { from: number; to: number; why: GapWhy } = { from: 0, to: 0, why: "killed" };
  /** The last bytes that the source had lost. */
  #missed = { from: 0, to: 0 };
  /** Up to where the disk's oldest part was deleted, though readers had not got it. */
  #deleted: { to: number; why: GapWhy } = { to: 0, why: "drop-oldest" };
  /** Bytes so far. */
  #bytes = 0;
  /** Messages dropped by all readers when the queue became full. */
  #droppedBefore = 0;

  constructor(options: StreamOptions) {
    this.#options = options;
    const { log, memory, whenFull, onError } = options;
    const blocks = new Blocks(log?.largestBatch ?? LONGEST_WRITE, (bytes) => memory.take(bytes));
    this.#state = { tail: 0, blocks, cursors: new Set(), missing: [] };
    this.#lag = new Lag(log, this.#state);
    this.#origin = log?.origin ?? { shift: 0, since: 0 };
    this.#records = new Records(options, this.#state);
    this.#gaps = new Gaps((gap, cursor) => options.onEvent({ event: "gap", ...gap }, cursor));
    if (log !== undefined) {
      this.#recover(log);
      this.#reservation = new Reservation(log);
      this.#spiller = new Spiller({
        log,
        blocks,
        beforeRun: (start) => this.#records.beginRun(start),
        onStored: () => this.#onStored(),
        onFull: (why) => this.#onFull(why),
        makeRoom: whenFull === "drop-oldest" ? () => this.dropOldest("drop-oldest") : undefined,
        onError,
      });
    }
    this.#retention = new Retention(options, this.#state, this.#spiller, this.#lag);
    this.review();
  }

  /** All readers. */
  get cursors(): ReadonlySet<StreamCursor> {
    return this.#state.cursors;
  }

  /** End of the stream. */
  get tail(): number {
    return this.#state.tail;
  }

  /** Continues where an earlier process has ended. */
  #recover(log: Log): void {
    const offsets = log.cursors.map(({ offset }) => offset);
    const { replayable, sourceless } = this.#options;
    if (replayable) {
      // The source continues after all that is stored, or that every reader has.
      const needed = offsets.map((offset) => Math.max(offset, log.end));
      const next = needed.length === 0 ? log.end : Math.min(...needed);
      // What came from an upstream that was replaced cannot be had again.
      this.#state.tail = Math.max(next, log.origin.since, sourceless ? log.closedEnd : 0);
    } else {
      // What was only in memory is lost. What was sent of it used its offsets.
      const known = Math.max(log.end, ...offsets);
      this.#state.tail = Math.max(known, log.reserved);
      this.#lost = { from: known, to: this.tail, why: "killed" };
    }
    this.#leaveOut({ from: log.end, to: this.tail });
    for (const cursor of log.cursors) {
      this.#state.cursors.add(new StreamCursor(cursor.name, cursor.offset, cursor, log.reserved));
    }
  }

  /** Nothing has these offsets. */
  #leaveOut({ from, to }: Hole): void {
    if (to <= from) return;
    const { cursors, missing } = this.#state;
    const passed = Math.min(from, ...[...cursors].map(({ delivered }) => delivered));
    this.#state.missing = [...missing.filter((hole) => hole.to > passed), { from, to }];
  }

  /** Position of the source at the end of the stream. */
  get position(): number {
    return this.tail + this.#origin.shift;
  }

  /** The upstream's stream in which positions count. */
  get originStream(): string | undefined {
    return this.#origin.stream;
  }

  /** The oldest offset that a new reader can begin at. */
  get oldest(): number {
    const { log } = this.#options;
    const first = this.#state.blocks.first?.offset ?? this.tail;
    if (log === undefined || log.start >= log.end) return first;
    // What is between has been delivered to all: with the part on disk it would begin with a gap.
    const { from, to } = this.#lost;
    const joins = log.end >= first || (from <= log.end && first <= to);
    return joins ? Math.min(first, Math.max(log.start, this.#records.runStart)) : first;
  }

  /** Where a reader begins that comes for the first time. */
  beginning(start: "now" | "oldest"): number {
    const { log } = this.#options;
    // Since the database was made anew, its readers come as new ones: they need what is stored.
    if (log !== undefined && log.start < Math.min(log.end, log.repairedEnd)) return log.start;
    return start === "oldest" ? this.oldest : this.tail;
  }

  get #storedEnd(): number {
    return this.#options.log?.end ?? 0;
  }

  /** End of what may be sent now: with `durable`, only what is stored. */
  get #visible(): number {
    return this.#options.durable ? Math.min(this.tail, this.#storedEnd) : this.tail;
  }

  /** Source position up to which the source may discard everything; undefined: of the current upstream none. */
  get safePosition(): number | undefined {
    const { log } = this.#options;
    const { shift, since, stream } = this.#origin;
    const { safe } = this.#records;
    // Positions of an upstream that was just replaced mean nothing to the new one.
    const known = log === undefined || log.origin.stream === stream;
    return known && safe !== undefined && safe >= since ? safe + shift : undefined;
  }

  cursorOf(name: string): StreamCursor | undefined {
    for (const cursor of this.cursors) if (cursor.name === name) return cursor;
    return undefined;
  }

  /** Adds a reader that begins at `offset`; once it is recorded. `expected`: it is here already. */
  async addCursor(name: string, offset: number, expected = false): Promise<StreamCursor> {
    const cursor = new StreamCursor(name, offset, undefined, offset);
    if (expected) cursor.expect();
    // Before it is recorded: what it needs must be kept meanwhile.
    this.#state.cursors.add(cursor);
    try {
      cursor.stored = await this.#options.log?.openCursor(name, offset);
    } catch (error) {
      await this.removeCursor(cursor);
      throw error;
    }
    return cursor;
  }

  /** Removes a reader. */
  async removeCursor(cursor: StreamCursor): Promise<void> {
    if (!this.#state.cursors.delete(cursor)) return;
    this.#gaps.report(cursor);
    await cursor.stored?.forget();
    this.#retention.remove(cursor);
  }

  /**
   * The source is at this position of this stream. If that is not the stream known so far, the upstream
   * was replaced, and its positions count anew. Returns whether it was.
   */
  follow(stream: string, position: number): boolean {
    const before = this.#origin.stream;
    if (stream === before) return false;
    if (before !== undefined) {
      // What came from the old one, was sent and not stored, is lost: its offsets must not be used again.
      const offered = Math.max(this.tail, ...[...this.cursors].map(({ offered }) => offered));
      if (offered > this.tail) this.#lost = { from: this.tail, to: offered, why: "source" };
      this.#leaveOut({ from: this.tail, to: offered });
      this.#state.tail = offered;
    }
    this.#setOrigin({ stream, shift: position - this.tail, since: this.tail });
    return before !== undefined;
  }

  #setOrigin(origin: Origin): void {
    this.#origin = origin;
    const { log, onError } = this.#options;
    const recording = log?.setOrigin(origin).catch(onError).finally(() => {
      if (this.#following === recording) this.#following = undefined;
    });
    this.#following = recording;
  }

  /**
   * Appends whole messages. `position`: the source's, before them. If it returns a promise, the source
   * must await it.
   */
  push(bytes: Uint8Array, messages: number, position: number): void | Promise<void> {
    if (!this.#options.replayable && this.#origin.stream !== undefined) {
      // It adds to the stream, so positions of the source before it do not fit any more.
      this.#setOrigin({ shift: 0, since: this.tail });
    }
    if (this.#following !== undefined) {
      // Not before it is recorded which offsets are those of this upstream.
      return this.#following.then(() => this.push(bytes, messages, position));
    }
    if (this.#options.replayable) {
      const offset = position - this.#origin.shift;
      const known = Math.min(bytes.length, this.tail - offset);
      if (known > 0) {
        const again = Math.round(messages * known / bytes.length);
        this.duplicates += again;
        if (known === bytes.length) return;
        messages -= again;
        bytes = bytes.subarray(known);
      }
      // The source has lost what is between.
      if (offset > this.tail) {
        this.#missed = { from: this.tail, to: offset };
        this.#leaveOut(this.#missed);
        this.#state.tail = offset;
      }
    }
    const from = this.tail;
    this.#state.tail += bytes.length;
    this.messages += messages;
    this.#bytes += bytes.length;
    if (this.#isWanted(from, messages)) this.#keep(bytes, messages, from);
    if (this.#spiller?.on) this.#spiller.appendReady();
    this.#options.onNew();
    this.#reserveLost();
    return this.#retention.room();
  }

  /**
   * What such a source has sent is lost if this process is killed. Its offsets are used up, so that the
   * readers see a gap. The source does not wait for the record, which is made in advance.
   */
  #reserveLost(): void {
    const { replayable, onError } = this.#options;
    if (!replayable) this.#reservation?.reserve(this.tail)?.catch(onError);
  }

  /** Puts whole messages into memory, in parts of which the log can store each. */
  #keep(bytes: Uint8Array, messages: number, from: number): void {
    const most = this.#options.log?.largestBatch ?? Infinity;
    while (bytes.length > most) {
      const cut = this.#cut(bytes, most);
      if (cut === 0) break;
      const part = Math.round(messages * cut / bytes.length);
      this.#state.blocks.push(bytes.subarray(0, cut), part, from);
      bytes = bytes.subarray(cut);
      messages -= part;
      from += cut;
    }
    this.#state.blocks.push(bytes, messages, from);
  }

  /** The last end of a message up to `most`, or else one soon after it; 0: there is only one message. */
  #cut(bytes: Uint8Array, most: number): number {
    const { floor } = this.#options;
    for (let at = most; at < bytes.length; at = Math.min(2 * at, bytes.length)) {
      const cut = floor(bytes, at);
      if (cut > 0) return cut;
    }
    return floor(bytes, bytes.length - 1);
  }

  /** Drops the new messages for readers whose backlog is too large; whether any reader gets them. */
  #isWanted(from: number, messages: number): boolean {
    const { policy, bound, whenFull, memory, durable } = this.#options;
    const full = whenFull === "drop-newest" && this.#spiller?.full !== undefined;
    let wanted = durable;
    for (const cursor of this.cursors) {
      if (!cursor.connected && !policy.keepsForAbsentReaders) {
        cursor.dropped += messages;
        cursor.droppedWhileAbsent += messages;
        continue;
      }
      if (policy.drops === "oldest") this.#dropOldestOf(cursor, from);
      const refuses = full ? cursor.behind : policy.drops === "newest" && cursor.isStuck &&
        (this.pendingOf(cursor) > bound || memory.used > memory.limit);
      if (refuses) cursor.drop(from, this.tail, messages);
      else wanted = true;
    }
    return wanted;
  }

  /** Drops the oldest blocks of a reader whose backlog, up to `end`, is too large. */
  #dropOldestOf(cursor: StreamCursor, end: number): void {
    const { bound, memory } = this.#options;
    const { blocks } = this.#state;
    if (!cursor.isStuck) return;
    // A block is at most this long, and the newest one is not dropped.
    const most = Math.max(memory.used > memory.limit ? 0 : bound, LONGEST_WRITE);
    let from = Math.max(cursor.sent + cursor.inFlight, cursor.holes.at(-1)?.to ?? 0);
    for (let pending = this.pendingOf(cursor) - (this.tail - end); pending > most;) {
      const block = blocks.after(from);
      if (block === undefined || block === blocks.last) return;
      // What is sent in part is completed.
      if (block.offset >= from) {
        cursor.drop(block.offset, block.end, block.messages);
        pending -= block.length;
      }
      from = block.end;
    }
  }

  /** Bytes in memory for this reader that its kernel has not accepted. */
  pendingOf(cursor: StreamCursor): number {
    return this.#lag.pending(cursor);
  }

  /** What this reader has not got: bytes, about how many messages, and the age of the oldest; s. */
  lagOf(cursor: StreamCursor): Pick<ReaderFigures, "lagBytes" | "lagMessages" | "lagSeconds"> {
    return this.#lag.of(cursor, this.messages / this.#bytes);
  }

  /** Bytes that this reader has not got and that are not on disk. */
  unstoredFor(cursor: StreamCursor): number {
    return this.#lag.unstored(cursor);
  }

  /** What is on disk; undefined: nothing is stored. */
  get figures(): LogFigures | undefined {
    const { log } = this.#options;
    if (log === undefined) return undefined;
    const { stream, bytes, segments, oldestMs } = log;
    const oldestSeconds = oldestMs === undefined ? 0 : (wallClockMs() - oldestMs) / 1000;
    return { stream, bytes, segments, oldestSeconds };
  }

  /**
   * What is to be sent next to this reader: bytes from `sent` on; or the offset of its next bytes, if
   * there are none at `sent`; undefined: nothing yet.
   */
  next(cursor: StreamCursor): Piece | number | undefined | Promise<Piece | number | undefined> {
    const { sent } = cursor;
    if (sent >= this.#visible) return undefined;
    const hole = cursor.holeAt(sent);
    if (hole !== undefined) return hole.to;
    const most = Math.min(cursor.holeAfter(sent), this.#visible) - sent;
    const block = this.#state.blocks.at(sent);
    if (block === undefined) return this.#nextStored(cursor, most);
    const from = sent - block.offset;
    const bytes = block.buffer.subarray(from, Math.min(block.length, from + most));
    return { bytes, block, whole: block };
  }

  async #nextStored(cursor: StreamCursor, most: number): Promise<Piece | number> {
    const { sent, readAhead } = cursor;
    const batch = sent < this.#storedEnd ? await readAhead!.batch(sent) : null;
    if (batch !== null && batch.offset <= sent) {
      const from = sent - batch.offset;
      return { bytes: batch.bytes.subarray(from, from + most), whole: batch };
    }
    return this.#nextAfter(sent, batch);
  }

  /** The first offset from `offset` on with bytes; `batch`: the first one on disk after it. */
  #nextAfter(offset: number, batch: StoredBatch | null): number {
    const block = this.#state.blocks.after(offset);
    const next = Math.min(batch?.offset ?? Infinity, block?.offset ?? Infinity, this.tail);
    // Bytes may have come into memory meanwhile.
    return Math.max(offset, next);
  }

  /** The first offset at or after `offset` that can be sent to this reader, now or later. */
  async available(cursor: StreamCursor, offset: number): Promise<number> {
    while (offset < this.tail) {
      const hole = cursor.holeAt(offset);
      if (hole === undefined) {
        if (this.#state.blocks.at(offset) !== undefined) return offset;
        const batch = offset < this.#storedEnd ? await this.#options.log!.read(offset) : null;
        return this.#nextAfter(offset, batch);
      }
      offset = hole.to;
    }
    return offset;
  }

  /** Start of the message that contains the first byte that is not delivered. */
  async startOfMessage({ delivered }: StreamCursor): Promise<number> {
    const stored = delivered < this.#storedEnd;
    const whole = this.#state.blocks.at(delivered) ??
      (stored ? await this.#options.log!.read(delivered) : null);
    if (whole === null || whole.offset > delivered) return delivered;
    return whole.offset + this.#options.floor(whole.bytes, delivered - whole.offset);
  }

  /** Bytes of a piece from `sent` on that end with a message: at most `most`, unless a message is longer. */
  wholeMessages({ whole }: Piece, sent: number, most: number): number {
    const { bytes } = whole;
    const at = sent - whole.offset;
    for (let length = most; at + length < bytes.length; length *= 2) {
      const end = this.#options.floor(bytes, at + length);
      if (end > at) return end - at;
    }
    return bytes.length - at;
  }

  /** The reader is connected, and is sent the stream from `at` on. */
  attach(cursor: StreamCursor, connection: CursorConnection, at: number): void {
    cursor.begin(connection, at, this.#options.log);
    this.review();
  }

  /** The reader is not connected any more. */
  detach(cursor: StreamCursor): void {
    // Before it counts as absent: they were dropped on its connection.
    if (!this.#options.policy.keepsForAbsentReaders) this.discard(cursor);
    cursor.end();
    this.#gaps.report(cursor);
    this.review();
  }

  /** Drops and counts all that this reader has not got. */
  discard(cursor: StreamCursor): void {
    for (let block; (block = this.#state.blocks.after(cursor.delivered)) !== undefined;) {
      if (cursor.needs(block.offset, block.end)) {
        cursor.dropped += block.messages;
        if (!cursor.connected) cursor.droppedWhileAbsent += block.messages;
      }
      cursor.delivered = block.end;
    }
    cursor.holes.length = 0;
    cursor.delivered = cursor.sent = Math.max(cursor.delivered, this.tail);
  }

  /**
   * To be called before bytes up to `end` are sent to a reader that acknowledges. If it returns a
   * promise, they may be sent only once it has resolved.
   */
  reserve(end: number): void | Promise<void> {
    return this.#reservation?.reserve(end);
  }

  /** The kernel has accepted so many bytes for this reader. */
  accept(cursor: StreamCursor, bytes: number): void {
    cursor.sent += bytes;
    this.#gaps.report(cursor);
    this.#retention.progress();
  }

  /** There are no bytes for this reader between `sent` and `to`. */
  skip(cursor: StreamCursor, to: number): void {
    const from = cursor.sent;
    this.miss(cursor, from, to);
    cursor.sent = to;
    // No byte will tell: there may be none after it.
    if (cursor.delivered === from) cursor.delivered = to;
    cursor.passHoles(to);
  }

  /** This reader does not get the bytes from `from` to `to`. */
  miss(cursor: StreamCursor, from: number, to: number): void {
    const why = this.#whyMissing(cursor, from, to);
    const atMost = why === "repair" || (from < this.#lost.to && to > this.#lost.from);
    this.#gaps.add(cursor, {
      from,
      to,
      ...(why === undefined ? {} : { why }),
      ...(atMost ? { atMost } : {}),
    });
  }

  /** Why there are no bytes for this reader from one offset to another; undefined: nobody knows. */
  #whyMissing(cursor: StreamCursor, from: number, to: number): GapWhy | undefined {
    const { log, policy } = this.#options;
    if (cursor.holeAt(from) !== undefined) {
      return policy.drops === undefined ? "drop-newest" : "drop";
    }
    if (from < this.#deleted.to) return this.#deleted.why;
    if (isSkippedByRepair(from, to)) return "repair";
    if (from < this.#lost.to && to > this.#lost.from) return this.#lost.why;
    if (from < this.#missed.to && to > this.#missed.from) return "source";
    return log?.isDamaged(from, to) ? "damage" : undefined;
  }

  /** Everything before `offset` is delivered to this reader. */
  acknowledge(cursor: StreamCursor, offset: number): void {
    if (offset <= cursor.delivered) return;
    cursor.delivered = offset;
    if (cursor.stored === undefined) this.#options.onSafe();
    else this.#records.soon();
    this.#retention.progress();
  }

  #onStored(): void {
    this.review();
    this.#options.onNew();
    this.#options.onSafe();
    this.#records.awaitSync();
  }

  #onFull(why: "max" | "disk" | undefined): void {
    const { whenFull: then, onEvent } = this.#options;
    let dropped = 0;
    for (const cursor of this.cursors) dropped += cursor.dropped;
    if (why === undefined) onEvent({ event: "queue-room", dropped: dropped - this.#droppedBefore });
    else onEvent({ event: "queue-full", why, then });
    this.#droppedBefore = dropped;
    this.review();
  }

  /** Deletes the oldest part on disk; readers that have not got it miss it. Whether there was any. */
  async dropOldest(why: "drop-oldest" | "retain"): Promise<boolean> {
    const { log } = this.#options;
    if (log === undefined || log.start >= log.end) return false;
    const before = log.start;
    const start = await log.dropOldest();
    if (start > before) this.#deleted = { to: start, why };
    for (const cursor of this.cursors) {
      // A connected reader comes to the gap when it is sent what is after it.
      if (cursor.connected || cursor.delivered >= start) continue;
      this.#gaps.add(cursor, { from: cursor.delivered, to: start, why });
      cursor.delivered = cursor.sent = start;
      cursor.passHoles(start);
    }
    this.#records.soon();
    return start > before;
  }

  /** Deletes what is on disk since longer than this. */
  async expire(retainMs: number): Promise<void> {
    const { log } = this.#options;
    if (log === undefined) return;
    while ((log.oldestSegmentMs ?? Infinity) < wallClockMs() - retainMs) {
      if (!await this.dropOldest("retain")) return;
    }
  }

  /**
   * Decides what is stored, frees memory, and lets the source go on. To be called once a tick, and when
   * much has changed.
   */
  review(): void {
    this.#retention.review();
    this.#gaps.review();
  }

  /** Reports gaps that may still grow: the server ends. */
  reportGaps(): void {
    this.#gaps.reportAll();
  }

  /** Records how far each reader has come; resolves once that is durable. */
  record(): Promise<void> {
    return this.#records.now();
  }

  /** The source waits no more: the server is ending. */
  unblockSource(): void {
    this.#retention.unblock();
  }

  /** The source has ended. */
  finish(): void {
    this.#retention.finish();
  }

  /** Stores what is in memory, as far as the queue has room, and records how far each reader has come. */
  async store(): Promise<void> {
    const { log } = this.#options;
    this.#gaps.reportAll();
    if (log === undefined) return;
    this.#records.stop();
    await this.#spiller!.flush();
    await this.#records.now();
    // After an orderly end nothing is lost. A reader can have more than that only if a server was killed,
    // and the source is not there again.
    await log.reserve(Math.max(this.tail, ...[...this.cursors].map(({ offered }) => offered)));
    this.#records.start();
  }

  /** After `store`: nothing more is recorded, and what found no room is not tried again. */
  end(): void {
    this.#records.stop();
    this.#spiller?.end();
  }
}
