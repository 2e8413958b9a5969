/** The undelivered part of one reader's stream, in memory and on disk. */
import { type Block, Blocks } from "./blocks.ts";
import type { Batch, QueueReader } from "../queue/queue.ts";
import { ReadAhead } from "./read_ahead.ts";
import { Spiller, type SpillerOptions } from "./spiller.ts";

export interface StreamBufferOptions {
  /** The queue on disk to spill to. */
  queue?: QueueReader | undefined;
  /** How far one byte advances the source's position: 1, 1 / message size, or 0. */
  positionPerByte: number;
  /** The source can resume at a position after a restart. */
  replayable: boolean;
  /** Start of the message that contains byte `offset`; `bytes` begin at a message's start. */
  floor: (bytes: Uint8Array, offset: number) => number;
}

/** Bytes of the stream, up to the end of the block or batch that contains them. */
export interface Piece {
  bytes: Uint8Array;
  /** The block that contains them; absent if they were read from the disk. */
  block?: Block;
  /** The block or batch that contains them. */
  whole: Block | Batch;
}

export class StreamBuffer {
  readonly blocks: Blocks = new Blocks();
  readonly spiller: Spiller | undefined;
  /** End of the stream. */
  tail: number;
  /** Position of the source at the tail. */
  position: number;
  readonly #options: StreamBufferOptions;
  readonly #readAhead: ReadAhead | undefined;

  constructor(
    options: StreamBufferOptions,
    events: Pick<SpillerOptions, "onStored" | "onFull" | "onError">,
  ) {
    this.#options = options;
    const { queue, replayable } = options;
    // Bytes that a non-replayable source sent before a restart, and that were not stored, are lost:
    // their offsets must not be used again.
    this.tail = queue === undefined ? 0 : Math.max(queue.tail, replayable ? 0 : queue.reserved);
    this.position = queue?.tailPosition ?? 0;
    if (queue === undefined) return;
    this.#readAhead = new ReadAhead(queue);
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

  /** Appends whole messages. */
  push(bytes: Uint8Array, messages: number): void {
    this.blocks.push(bytes, messages, this.tail, this.position);
    this.tail += bytes.length;
    this.advance(bytes.length);
  }

  /** Advances the source's position, for bytes that are not kept too. */
  advance(bytes: number): void {
    this.position += bytes * this.#options.positionPerByte;
  }

  /**
   * The source resumes at a later position than expected: the bytes before it were delivered already,
   * or are lost. The offset advances by the same length, so that the reader's own offset stays valid.
   */
  skipTo(position: number): void {
    const { positionPerByte } = this.#options;
    if (this.tail > 0) this.tail += Math.round((position - this.position) / positionPerByte);
    this.position = position;
  }

  /** Position of the source at `offset`. */
  positionAt(offset: number): number {
    return Math.floor(this.position - (this.tail - offset) * this.#options.positionPerByte + 1e-6);
  }

  /** The bytes from `offset` on; undefined: none, or none yet. */
  find(offset: number): Piece | undefined | Promise<Piece | undefined> {
    const block = this.blocks.at(offset);
    if (block === undefined) return this.#isStored(offset) ? this.#findStored(offset) : undefined;
    return { bytes: block.bytes.subarray(offset - block.offset), block, whole: block };
  }

  async #findStored(offset: number): Promise<Piece | undefined> {
    const batch = await this.#readAhead!.batch(offset);
    if (batch === null || batch.offset > offset) return undefined;
    return { bytes: batch.bytes.subarray(offset - batch.offset), whole: batch };
  }

  /** The first offset at or after `offset` that can be sent, now or later. */
  async available(offset: number): Promise<number> {
    if (offset >= this.tail || this.blocks.at(offset) !== undefined) return offset;
    const batch = this.#isStored(offset) ? await this.#readAhead!.batch(offset) : null;
    if (batch !== null && batch.offset <= offset) return offset;
    const block = this.blocks.after(offset);
    const next = Math.min(batch?.offset ?? Infinity, block?.offset ?? Infinity);
    return Math.max(offset, Math.min(next, this.tail));
  }

  /** Start of the message that contains the byte at `offset`. */
  async startOfMessage(offset: number): Promise<number> {
    const whole: Block | Batch | null = this.blocks.at(offset) ??
      (this.#isStored(offset) ? await this.#readAhead!.batch(offset) : null);
    if (whole === null || whole.offset > offset) return offset;
    return whole.offset + this.#options.floor(whole.bytes, offset - whole.offset);
  }

  /**
   * Everything before `offset` is delivered. The queue records it rounded down to the start of a
   * message: the source resumes there after a restart if nothing is stored after it.
   */
  release(offset: number): void {
    this.blocks.release(offset);
    const { queue, floor } = this.#options;
    if (queue === undefined) return;
    const block = this.blocks.at(offset);
    const start = offset >= this.tail
      ? this.tail
      : block === undefined
      ? this.#readAhead!.startOf(offset)
      : block.offset + floor(block.bytes, offset - block.offset);
    if (start !== undefined) queue.release(start, this.positionAt(start));
  }

  /** Stores everything in memory on disk. */
  async store(): Promise<void> {
    const { queue, replayable } = this.#options;
    await this.spiller?.flush();
    if (!replayable && queue !== undefined && queue.reserved > this.tail) {
      await queue.reserve(this.tail);
    }
  }

  /** The connection ended: the next one starts at another offset. */
  resetReadAhead(): void {
    this.#readAhead?.reset();
  }

  #isStored(offset: number): boolean {
    return offset < this.storedEnd;
  }
}
