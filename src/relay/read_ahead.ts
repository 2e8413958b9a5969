/**
 * Reads one reader's queue in order, several batches ahead, so that the disk, the queue's worker
 * thread and the network work in parallel.
 */
import { returnBuffers } from "../queue/buffers.ts";
import type { Batch, QueueReader } from "../queue/queue.ts";

/** Limits of what is requested ahead: batches, and bytes where batches are long. */
const MOST_AHEAD = 16;
const MOST_BYTES = 16 << 20;

export class ReadAhead {
  readonly #queue: QueueReader;
  /** The batch that was returned last. */
  #batch: Batch | undefined;
  /** The offset it was requested for: there is no earlier batch from there on. */
  #from = 0;
  /** The batches after it, in order. */
  #next: Promise<Batch | null>[] = [];
  /** Start offsets of batches that were returned and are not yet delivered, ascending. */
  #starts: number[] = [];

  constructor(queue: QueueReader) {
    this.#queue = queue;
  }

  /**
   * The batch that contains `offset`, or else the first one after it; null: none. Its bytes are valid
   * until another batch is returned.
   */
  async batch(offset: number): Promise<Batch | null> {
    const known = this.#batch;
    if (known !== undefined && offset >= this.#from && offset < endOf(known)) return known;
    const batch = await this.#take(offset);
    this.#batch = batch ?? undefined;
    this.#from = offset;
    if (batch === null) return null;
    if (batch.offset > (this.#starts.at(-1) ?? -1)) this.#starts.push(batch.offset);
    this.#requestAhead(batch);
    return batch;
  }

  async #take(offset: number): Promise<Batch | null> {
    const known = this.#batch;
    this.#batch = undefined;
    if (known !== undefined && offset === endOf(known)) {
      // All of it has been written to the reader: its buffer is free.
      returnBuffers([known.bytes.buffer as ArrayBuffer]);
      // Null: the request was made before the batch was stored; read it again below.
      const next = await this.#next.shift();
      if (next !== undefined && next !== null) return next;
    }
    this.#next = [];
    return await this.#queue.read(offset);
  }

  #requestAhead(batch: Batch): void {
    const { length } = batch.bytes;
    const left = Math.ceil((this.#queue.tail - endOf(batch)) / length);
    const most = Math.max(1, Math.min(MOST_AHEAD, Math.floor(MOST_BYTES / length), left));
    while (left > 0 && this.#next.length < most) {
      const next = this.#queue.read();
      // The caller that takes this batch gets the error; there may never be one.
      next.catch(() => {});
      this.#next.push(next);
    }
  }

  /** Start of the returned batch that contains a delivered offset. */
  startOf(offset: number): number | undefined {
    while ((this.#starts[1] ?? Infinity) <= offset) this.#starts.shift();
    const start = this.#starts[0];
    return start !== undefined && start <= offset ? start : undefined;
  }

  /** Discards all that was read ahead: the next read starts elsewhere. */
  reset(): void {
    this.#batch = undefined;
    this.#next = [];
    this.#starts = [];
  }
}

/** The offset just past its last byte. */
export const endOf = ({ offset, bytes }: Pick<Batch, "offset" | "bytes">): number =>
  offset + bytes.length;
