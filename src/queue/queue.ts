/**
 * Room: the durable queue: stores streams on disk, each once, however many readers it has.
 * In: `Batch`es to append to a `Log`, and how far each reader has come (its `Cursor`).
 * Out: the stored batches in order; `Damage` for what cannot be read back.
 *
 * The interfaces are asynchronous, so that the log can also be on other machines.
 */

/** Whole messages, contiguous in the stream. Batches are in order; there may be gaps between them. */
export interface Batch {
  /** Offset of its first byte. */
  offset: number;
  bytes: Uint8Array;
  messages: number;
}

/** Milliseconds since 1970, by a clock that is not set while this process runs. */
export const wallClockMs = (): number => performance.timeOrigin + performance.now();

/** The offset just past the last byte of a batch. */
export const endOf = ({ offset, bytes }: Pick<Batch, "offset" | "bytes">): number =>
  offset + bytes.length;

/** How much of a stream. */
export interface Amount {
  bytes: number;
  messages: number;
}

/** About how many of the messages of `whole` bytes are in `part` of them: none only where there are no bytes. */
export function messagesIn(part: number, whole: number, messages: number): number {
  if (part <= 0 || messages === 0) return 0;
  return Math.max(1, Math.round(messages * part / whole));
}

/**
 * Where a stream goes on whose database was made anew: at a multiple of this, and at least so much after
 * all that is stored. So what nobody can know after the repair, how far the stream was used before, can be
 * told from what was lost.
 */
export const REPAIR_STEP = 2 ** 31;

/** Whether these are offsets that a repair has skipped. */
export const isSkippedByRepair = (from: number, to: number): boolean =>
  to % REPAIR_STEP === 0 && to - from >= REPAIR_STEP;

/** A batch as it was stored. */
export interface StoredBatch extends Batch {
  /** When it was stored; ms since 1970. */
  storedAtMs: number;
}

/**
 * Where the messages of a log come from. A position of the source is an offset of the log plus
 * `shift`, from the offset `since` on.
 */
export interface Origin {
  /** The stream of an upstream that acknowledges; absent for other sources. */
  stream?: string | undefined;
  shift: number;
  since: number;
}

/** One stream of messages. Offsets count its bytes. */
export interface Log {
  /** `""` for the stream that all readers share; else the name of the only reader. */
  readonly key: string;
  /** Identifies the stream: 16 random hex digits. Offsets of different streams are unrelated. */
  readonly stream: string;
  /** The longest batch that `append` accepts without splitting it on disk; bytes. */
  readonly largestBatch: number;
  /** Counts how often the log was opened for writing. Of two writers only the later one may append. */
  readonly epoch: number;
  /** Offset of the first stored byte; `end` if nothing is stored. */
  readonly start: number;
  /** Offset after the last batch whose `append` has resolved. */
  readonly end: number;
  /** Offset up to which stored batches survive a power failure. With sync mode `off`: `end`. */
  readonly durableEnd: number;
  /** Bytes on disk. */
  readonly bytes: number;
  readonly segments: number;
  /** When the oldest batch was stored; ms since 1970, undefined if unknown, or nothing is stored. */
  readonly oldestMs: number | undefined;
  /** When the newest batch of the oldest segment was stored; ms since 1970, undefined likewise. */
  readonly oldestSegmentMs: number | undefined;
  /** Offset up to which an earlier process may have sent bytes: see `reserve`. */
  readonly reserved: number;
  /**
   * Offset before which the readers of what is stored are not known: the database was made anew. They
   * come back as new ones.
   */
  readonly repairedEnd: number;
  /** Offset before which batches were stored when the queue was closed: after `end`, they are gone. */
  readonly closedEnd: number;
  readonly origin: Origin;
  /** All readers that have come so far, also those that are not connected. */
  readonly cursors: readonly Cursor[];
  /**
   * Stores a batch after the last one; resolves once it is as safe as the sync mode promises. The
   * bytes must not change until then. Several appends may be in progress, in order. If one fails, those
   * pending after it fail too. `after`: where the batch before it ends. If the log does not end there
   * when this batch is to be stored, it is rejected: so none is stored in the place of one that failed.
   * Rejects with QueueFull, Unavailable or QueueError.
   */
  append(batch: Batch, after?: number): Promise<void>;
  /**
   * The stored batch that contains `offset`, or else the first one after it; null: none. What is
   * damaged is reported through `onDamage`, and skipped. The bytes are the caller's; they may be in
   * `into`, if that is long enough. Rejects with Unavailable or QueueError.
   */
  read(offset: number, into?: ArrayBufferLike): Promise<StoredBatch | null>;
  /** The end of the stored batch that contains `offset`, where that is known at once. */
  batchEnd(offset: number): number | undefined;
  /** When the first batch that ends after `offset` was stored, where that is known at once; ms since 1970. */
  storedAtMs(offset: number): number | undefined;
  /**
   * What is stored from `offset` on. An estimate where `offset` is within a batch, or where the batches of a segment are
   * not known now; but bytes are never without messages.
   */
  after(offset: number): Amount;
  /** Whether damage was found that makes bytes from one offset to another unreadable. */
  isDamaged(from: number, to: number): boolean;
  /** Offsets up to `offset` may be used for bytes that are sent but never stored. Durable when settled. */
  reserve(offset: number): Promise<void>;
  /** Durable when settled. */
  setOrigin(origin: Origin): Promise<void>;
  /** The cursor of a reader; a new one begins at `offset`. It is durable once this has resolved. */
  openCursor(name: string, offset: number): Promise<Cursor>;
  /** Resolves once all releases so far are durable, and what no cursor needs is deleted. */
  settled(): Promise<void>;
  /** Deletes the oldest segment though a cursor needs it; returns the new `start`. */
  dropOldest(): Promise<number>;
}

/** How far one reader has come. */
export interface Cursor {
  readonly name: string;
  /** Everything before it has been delivered. */
  readonly offset: number;
  /** `offset` as it is recorded durably. */
  readonly durable: number;
  /** The reader has used the acknowledgement protocol: it must do so from now on. */
  readonly acknowledges: boolean;
  /** Everything before `offset` is delivered. Cheap: recorded within some 50 ms, see `settled`. */
  release(offset: number): void;
  /** Moves the cursor back, or forth. Durable when settled. */
  seek(offset: number): Promise<void>;
  /** Durable when settled. */
  setAcknowledges(): Promise<void>;
  /** Removes the reader. */
  forget(): Promise<void>;
}

export interface Queue {
  /** All logs that are stored. */
  readonly logs: readonly Log[];
  /** Free space where the queue is; bytes, undefined if unknown. */
  readonly diskFree: number | undefined;
  /** How often the disk was waited for (fsync), and how long; seconds. */
  readonly syncs: { count: number; seconds: number; longestSeconds: number };
  /** The log with this key; created, from `start` on, if it does not exist. */
  openLog(key: string, start?: number): Promise<Log>;
  /** Records what is pending, and closes the queue. */
  close(): Promise<void>;
}

/** A part of a log that cannot be delivered because it no longer is what was stored. */
export interface Damage {
  key: string;
  /** Offset from which on bytes are missing; their exact number may be unknown. */
  offset: number;
  bytes: number;
  reason: string;
}

/** A batch does not fit: `max`, the queue's own limit is reached; `disk`, the disk is full. */
export class QueueFull extends Error {
  override name = "QueueFull";
  readonly reason: "max" | "disk";
  constructor(message: string, reason: "max" | "disk", cause?: unknown) {
    super(message, { cause });
    this.reason = reason;
  }
}

/** The queue cannot be used, or was used incorrectly. Its message is one line. */
export class QueueError extends Error {
  override name = "QueueError";
}

/** The queue cannot be reached at the moment. The same call may succeed later. */
export class Unavailable extends Error {
  override name = "Unavailable";
}

/** Another writer has opened the log: this one must not append any more. */
export class Fenced extends QueueError {
  override name = "Fenced";
}
