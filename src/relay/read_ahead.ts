/**
 * Reads a log in order for one reader, some batches ahead, so that the disk and the network work in
 * parallel.
 */
import { endOf, type Log, type StoredBatch } from "../queue/queue.ts";

/** What all readers together request ahead; each of them one batch at least. */
const MOST_BYTES = 8 << 20;
/** Batches may be short. */
const MOST_AHEAD = 16;
/** Buffers kept for reuse: without them the garbage of 1 GB/s grows to hundreds of MB. */
const MOST_SPARE = 8;
/** How many readers read ahead now. */
let active = 0;

export class ReadAhead {
  readonly #log: Log;
  /** The batch that was returned last. */
  #batch: StoredBatch | undefined;
  /** The batches after it, in order. */
  #next: Promise<StoredBatch | null>[] = [];
  /** Where the batch after those begins, where there are any and that is known. */
  #nextAt: number | undefined;
  readonly #spare: ArrayBufferLike[] = [];
  #reading = false;

  constructor(log: Log) {
    this.#log = log;
  }

  /**
   * The batch that contains `offset`, or else the first one after it; null: none. Offsets must not
   * decrease. Its bytes are valid until another batch is returned.
   */
  async batch(offset: number): Promise<StoredBatch | null> {
    const known = this.#batch;
    if (known !== undefined && offset < endOf(known)) return known;
    // All of it has been sent.
    this.#reuse(known);
    const requested = this.#next;
    let batch: StoredBatch | null = null;
    while (this.#next.length > 0 && (batch === null || endOf(batch) <= offset)) {
      this.#reuse(batch);
      batch = await this.#next.shift()!;
    }
    // Null: it was requested before the batch was stored.
    if (batch === null || endOf(batch) <= offset) {
      batch = await this.#log.read(offset, this.#spare.pop());
    }
    this.#batch = batch ?? undefined;
    if (batch === null) this.stop();
    // Stopped meanwhile: its reader has caught up.
    else if (this.#next === requested) this.#requestAhead(batch);
    return batch;
  }

  #reuse(batch: StoredBatch | null | undefined): void {
    if (batch && this.#spare.length < MOST_SPARE) this.#spare.push(batch.bytes.buffer);
  }

  #requestAhead(batch: StoredBatch): void {
    if (!this.#reading) active++;
    this.#reading = true;
    const most = Math.max(1, Math.floor(MOST_BYTES / active / batch.bytes.length));
    if (this.#next.length === 0) this.#nextAt = endOf(batch);
    while (this.#next.length < Math.min(most, MOST_AHEAD) && endOf(batch) < this.#log.end) {
      // Where it begins is not known, as at the end of a segment: one, and after that it is again.
      if (this.#nextAt === undefined) return;
      const at = this.#nextAt;
      this.#nextAt = this.#log.batchEnd(at);
      const next = this.#log.read(at, this.#spare.pop());
      // Who takes this batch gets the error; there may never be anybody.
      next.catch(() => {});
      this.#next.push(next);
    }
  }

  /** Nothing more is read ahead. */
  stop(): void {
    if (this.#reading) active--;
    this.#reading = false;
    this.#next = [];
  }
}
