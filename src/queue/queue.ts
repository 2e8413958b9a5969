/**
 * Room: the durable queue: stores messages on disk, by reader, until they are delivered.
 * In: `Batch`es to append, and the offset up to which each reader's stream is delivered.
 * Out: the stored batches in order; `Damage` for each batch that cannot be read back.
 */

/**
 * Whole messages, about 1 MiB, contiguous in the stream of one reader. The batches of a stream are in
 * order and do not overlap; there may be gaps between them.
 */
export interface Batch {
  /** Offset of its first byte: bytes of the reader's stream, counted from 0 at the queue's creation. */
  offset: number;
  bytes: Uint8Array;
  messages: number;
  /** Position of the source after it, where the source can resume after a restart. */
  position: number;
}

/** The queue of one reader. */
export interface QueueReader {
  readonly name: string;
  /** Identifies the stream: 16 random hex digits. Offsets of different streams are unrelated. */
  readonly stream: string;
  /** Offset up to which the stream is delivered; kept up to date by append and release. */
  readonly delivered: number;
  /** Position of the source at `delivered`. */
  readonly deliveredPosition: number;
  /** End of the last stored batch (= delivered when none is stored). */
  readonly tail: number;
  /** Position after the last stored batch (deliveredPosition when none is stored). */
  readonly tailPosition: number;
  /** Offset up to which an earlier process may have sent bytes: see `reserve`. */
  readonly reserved: number;
  /** What is stored and not yet released. */
  readonly stored: { batches: number; bytes: number; messages: number };
  /**
   * Stores a batch after the previous one; resolves once it is as safe as the sync mode promises.
   * If the bytes fill their buffer, the buffer is transferred and no longer usable by the caller;
   * else it is copied. Several appends may be in progress. If one fails, all later appends fail too
   * until all have settled; then the caller may try again. Rejects with QueueFull or QueueError.
   */
  append(batch: Batch): Promise<void>;
  /**
   * The stored batch that contains `offset`, or else the first one after it; null: none. A damaged
   * batch is set aside, reported through `onDamage`, and skipped. The caller owns the bytes. Without
   * an offset: the batch after that of the previous read, which may still be in progress.
   */
  read(offset?: number): Promise<Batch | null>;
  /**
   * Everything before `offset` has been delivered: batches that end at or before it are deleted.
   * Cheap to call often: it is written with the next append, or after some 50 ms.
   */
  release(offset: number, position: number): void;
  /** Records that offsets up to `offset` may be used for bytes that are sent but never stored. */
  reserve(offset: number): Promise<void>;
}

export interface Queue {
  /** Names of all readers that have a queue. */
  readonly names: readonly string[];
  /** The queue of a reader; created if it does not exist. */
  open(name: string): Promise<QueueReader>;
  /** Writes pending changes, and closes the queue. */
  close(): Promise<void>;
}

/** A batch that cannot be delivered because it no longer is what was stored. */
export interface Damage {
  reader: string;
  offset: number;
  bytes: number;
  messages: number;
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
