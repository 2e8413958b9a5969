/**
 * The durable queue as the rest of the program sees it: for each reader, by name, the stretches of
 * its stream that wait for it. Offsets are bytes of the reader's stream, counted from 0 since its
 * queue began; batches rise, do not overlap, and may have gaps between them.
 */

/** A run of whole messages, about 1 MiB, contiguous in the stream. */
export interface Batch {
  /** Of its first byte, in the reader's stream. */
  offset: number;
  bytes: Uint8Array;
  messages: number;
  /** Where the source stands after it, so that a source that starts again can go on there. */
  position: number;
}

/** One reader's queue. */
export interface QueueReader {
  readonly name: string;
  /** 16 hex digits, random, made with the reader's queue: an offset means nothing in another stream. */
  readonly stream: string;
  /** As stored; kept up to date by append and release. */
  readonly delivered: number;
  /** Where the source stood at `delivered`. */
  readonly deliveredPosition: number;
  /** End of the last stored batch (= delivered when none is stored). */
  readonly tail: number;
  /** Position after the last stored batch (deliveredPosition when none is stored). */
  readonly tailPosition: number;
  /** Offsets up to here may have been used by an earlier life: see reserve. */
  readonly reserved: number;
  /** Stored batches, bytes and messages of them not yet released. */
  readonly stored: { batches: number; bytes: number; messages: number };
  /**
   * Stores it; resolves once it is as safe as `sync` promises. Takes the buffer over if the bytes
   * are all of it (it is transferred: gone for the caller), else copies. Rejects with QueueFull or
   * QueueError. In order, one after the other; several may be under way. When one fails, those that
   * were handed over behind it fail as well, until all have settled: then a caller may try again.
   */
  append(batch: Batch): Promise<void>;
  /**
   * The stored batch that holds `offset`, or the first one after it; null: none. A damaged batch is
   * set aside, told of through `onDamage`, and skipped. The bytes are the caller's. Without an offset:
   * the one behind that of the read before it, which need not have come back yet.
   */
  read(offset?: number): Promise<Batch | null>;
  /**
   * All before `offset` has been delivered: batches that end at or before it are deleted. Cheap to
   * call often: it is gathered, and written with the next append or after some 50 ms.
   */
  release(offset: number, position: number): void;
  /** Stores that offsets up to `offset` may have been used though they are not stored. */
  reserve(offset: number): Promise<void>;
}

export interface Queue {
  /** Readers that it knows. */
  readonly names: readonly string[];
  /** The queue of a reader, made when it is not known. */
  open(name: string): Promise<QueueReader>;
  /** Writes what is gathered, and closes. */
  close(): Promise<void>;
}

/** A batch that can no longer be delivered as it was stored. */
export interface Damage {
  reader: string;
  offset: number;
  bytes: number;
  messages: number;
  reason: string;
}

/** There is no room for a batch: `max`, the bound of the queue is reached, or `disk`, it is full. */
export class QueueFull extends Error {
  override name = "QueueFull";
  readonly reason: "max" | "disk";
  constructor(message: string, reason: "max" | "disk", cause?: unknown) {
    super(message, { cause });
    this.reason = reason;
  }
}

/** The queue cannot be used, or not so. Its message is one line. */
export class QueueError extends Error {
  override name = "QueueError";
}
