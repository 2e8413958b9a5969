/** What there is of one reader's stream, from the first byte that is still owed: in memory, and on disk. */
import { type Block, Blocks } from "./blocks.ts";
import type { Batch, QueueReader } from "../queue/queue.ts";
import { ReadAhead } from "./read_ahead.ts";
import { Spiller, type SpillerOptions } from "./spiller.ts";

export interface StreamBufferOptions {
  /** Where it spills to. */
  queue?: QueueReader | undefined;
  /** By how much a byte moves the source's position on: 1, 1 / message size, or 0. */
  positionPerByte: number;
  /** The source can go on at a position after a restart. */
  replayable: boolean;
  /** Where the message starts that holds byte `offset` of bytes that begin with a message. */
  floor: (bytes: Uint8Array, offset: number) => number;
}

/** Bytes of the stream, to the end of the block or the batch that they lie in. */
export interface Piece {
  bytes: Uint8Array;
  /** Where they lie in memory. */
  block?: Block;
  /** The block or the batch. */
  whole: Block | Batch;
}

export class StreamBuffer {
  readonly blocks: Blocks = new Blocks();
  readonly spiller: Spiller | undefined;
  /** End of the stream. */
  tail: number;
  /** Where the source stands at the tail. */
  position: number;
  readonly #options: StreamBufferOptions;
  readonly #stored: ReadAhead | undefined;

  constructor(
    options: StreamBufferOptions,
    events: Pick<SpillerOptions, "onStored" | "onFull" | "onError">,
  ) {
    this.#options = options;
    const { queue, replayable } = options;
    // What a source that cannot go back had sent, and nobody stored, must not be numbered again.
    this.tail = queue === undefined ? 0 : Math.max(queue.tail, replayable ? 0 : queue.reserved);
    this.position = queue?.tailPosition ?? 0;
    if (queue === undefined) return;
    this.#stored = new ReadAhead(queue);
    this.spiller = new Spiller({
      queue,
      blocks: this.blocks,
      positionAfter: (block) => this.positionAt(block.end),
      ...events,
    });
  }

  /** End of what is on disk. */
  get storedEnd(): number {
    return this.spiller?.end ?? 0;
  }

  /** Takes whole messages in. */
  push(bytes: Uint8Array, messages: number): void {
    this.blocks.push(bytes, messages, this.tail, this.position);
    this.tail += bytes.length;
    this.pass(bytes.length);
  }

  /** The source has gone on by bytes that are not kept. */
  pass(bytes: number): void {
    this.position += bytes * this.#options.positionPerByte;
  }

  /**
   * The source goes on further on: it kept no more, because our reader has it already, or it is gone.
   * Offsets move on by as much, so that the reader's own stay true.
   */
  skipTo(position: number): void {
    const { positionPerByte } = this.#options;
    if (this.tail > 0) this.tail += Math.round((position - this.position) / positionPerByte);
    this.position = position;
  }

  positionAt(offset: number): number {
    return Math.floor(this.position - (this.tail - offset) * this.#options.positionPerByte + 1e-6);
  }

  /** What there is from `offset` on; undefined: nothing, perhaps not yet. */
  find(offset: number): Piece | undefined | Promise<Piece | undefined> {
    const block = this.blocks.at(offset);
    if (block === undefined) return this.#isStored(offset) ? this.#findStored(offset) : undefined;
    return { bytes: block.bytes.subarray(offset - block.offset), block, whole: block };
  }

  async #findStored(offset: number): Promise<Piece | undefined> {
    const batch = await this.#stored!.batch(offset);
    if (batch === null || batch.offset > offset) return undefined;
    return { bytes: batch.bytes.subarray(offset - batch.offset), whole: batch };
  }

  /** The first offset from `offset` on that can be sent, now or later. */
  async available(offset: number): Promise<number> {
    if (offset >= this.tail || this.blocks.at(offset) !== undefined) return offset;
    const batch = this.#isStored(offset) ? await this.#stored!.batch(offset) : null;
    if (batch !== null && batch.offset <= offset) return offset;
    const block = this.blocks.after(offset);
    const next = Math.min(batch?.offset ?? Infinity, block?.offset ?? Infinity);
    return Math.max(offset, Math.min(next, this.tail));
  }

  /** Where the message starts that holds the byte at `offset`. */
  async startOfMessage(offset: number): Promise<number> {
    const held: Block | Batch | null = this.blocks.at(offset) ??
      (this.#isStored(offset) ? await this.#stored!.batch(offset) : null);
    if (held === null || held.offset > offset) return offset;
    return held.offset + this.#options.floor(held.bytes, offset - held.offset);
  }

  /**
   * All before `offset` is delivered. The queue is told so down to the start of a message: that is
   * where the source goes on after a restart, if nothing is stored behind it.
   */
  release(offset: number): void {
    this.blocks.release(offset);
    const { queue, floor } = this.#options;
    if (queue === undefined) return;
    const block = this.blocks.at(offset);
    const start = offset >= this.tail
      ? this.tail
      : block === undefined
      ? this.#stored!.startOf(offset)
      : block.offset + floor(block.bytes, offset - block.offset);
    if (start !== undefined) queue.release(start, this.positionAt(start));
  }

  /** Puts all that is in memory on disk. */
  async store(): Promise<void> {
    const { queue, replayable } = this.#options;
    await this.spiller?.flush();
    if (!replayable && queue !== undefined && queue.reserved > this.tail) {
      await queue.reserve(this.tail);
    }
  }

  /** Nobody reads on where the last one stopped. */
  forgetReading(): void {
    this.#stored?.forget();
  }

  #isStored(offset: number): boolean {
    return offset < this.storedEnd;
  }
}
