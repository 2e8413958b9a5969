/** Reads a reader's queue in order, one batch ahead. */
import type { Batch, QueueReader } from "./queue.ts";

export class ReadAhead {
  readonly #queue: QueueReader;
  #batch: Batch | undefined;
  #next: { offset: number; batch: Promise<Batch | null> } | undefined;
  /** Where the batches begin that were given and are not yet delivered, rising. */
  #starts: number[] = [];

  constructor(queue: QueueReader) {
    this.#queue = queue;
  }

  /** The batch that holds `offset`, or the first one after it; null: there is none. */
  async batch(offset: number): Promise<Batch | null> {
    const known = this.#batch;
    if (known !== undefined && offset >= known.offset && offset < endOf(known)) return known;
    const next = this.#next;
    this.#next = undefined;
    const batch = await (next?.offset === offset ? next.batch : this.#queue.read(offset));
    this.#batch = batch ?? undefined;
    if (batch !== null && batch.offset > (this.#starts.at(-1) ?? -1)) {
      this.#starts.push(batch.offset);
    }
    if (batch !== null && endOf(batch) < this.#queue.tail) {
      this.#next = { offset: endOf(batch), batch: this.#queue.read(endOf(batch)) };
      // Whoever asks for it gets the error; nobody may.
      this.#next.batch.catch(() => {});
    }
    return batch;
  }

  /** The start of the batch, of those that were given, that holds a delivered offset. */
  startOf(offset: number): number | undefined {
    while ((this.#starts[1] ?? Infinity) <= offset) this.#starts.shift();
    const start = this.#starts[0];
    return start !== undefined && start <= offset ? start : undefined;
  }

  forget(): void {
    this.#batch = this.#next = undefined;
    this.#starts = [];
  }
}

/** The offset behind its last byte. */
export const endOf = ({ offset, bytes }: Pick<Batch, "offset" | "bytes">): number =>
  offset + bytes.length;
