/**
 * Reads a reader's queue in order, some batches ahead, so that the disk, the queue's thread and the
 * network work at the same time.
 */
import { giveBuffers } from "../queue/buffers.ts";
import type { Batch, QueueReader } from "../queue/queue.ts";

/** Batches that are asked for and not yet given, and their bytes if they are long. */
const MOST_AHEAD = 16;
const MOST_BYTES = 16 << 20;

export class ReadAhead {
  readonly #queue: QueueReader;
  #batch: Batch | undefined;
  /** Where it was looked for: it is the first one from there on. */
  #from = 0;
  /** Those behind it, in order. */
  #next: Promise<Batch | null>[] = [];
  /** Where the batches begin that were given and are not yet delivered, rising. */
  #starts: number[] = [];

  constructor(queue: QueueReader) {
    this.#queue = queue;
  }

  /**
   * The batch that holds `offset`, or the first one after it; null: there is none. Its bytes stay as
   * they are until another one is given.
   */
  async batch(offset: number): Promise<Batch | null> {
    const known = this.#batch;
    if (known !== undefined && offset >= this.#from && offset < endOf(known)) return known;
    const batch = await this.#take(offset);
    this.#batch = batch ?? undefined;
    this.#from = offset;
    if (batch === null) return null;
    if (batch.offset > (this.#starts.at(-1) ?? -1)) this.#starts.push(batch.offset);
    this.#askAhead(batch);
    return batch;
  }

  async #take(offset: number): Promise<Batch | null> {
    const known = this.#batch;
    this.#batch = undefined;
    if (known !== undefined && offset === endOf(known)) {
      // All of it was written: nobody looks at it any more.
      giveBuffers([known.bytes.buffer as ArrayBuffer]);
      // None is there when it was asked for too early.
      const next = await this.#next.shift();
      if (next !== undefined && next !== null) return next;
    }
    this.#next = [];
    return await this.#queue.read(offset);
  }

  #askAhead(batch: Batch): void {
    const { length } = batch.bytes;
    const left = Math.ceil((this.#queue.tail - endOf(batch)) / length);
    const most = Math.max(1, Math.min(MOST_AHEAD, Math.floor(MOST_BYTES / length), left));
    while (left > 0 && this.#next.length < most) {
      const next = this.#queue.read();
      // Whoever asks for it gets the error; nobody may.
      next.catch(() => {});
      this.#next.push(next);
    }
  }

  /** The start of the batch, of those that were given, that holds a delivered offset. */
  startOf(offset: number): number | undefined {
    while ((this.#starts[1] ?? Infinity) <= offset) this.#starts.shift();
    const start = this.#starts[0];
    return start !== undefined && start <= offset ? start : undefined;
  }

  forget(): void {
    this.#batch = undefined;
    this.#next = [];
    this.#starts = [];
  }
}

/** The offset behind its last byte. */
export const endOf = ({ offset, bytes }: Pick<Batch, "offset" | "bytes">): number =>
  offset + bytes.length;
