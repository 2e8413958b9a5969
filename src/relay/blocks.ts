/**
 * The part of a stream that is in memory: whole messages in blocks, oldest first. A reader that keeps
 * up needs one of 16 KiB; with its backlog, blocks grow to 1 MiB.
 *
 * One write offers one block to the kernel, and one batch stores one block on disk, so that neither
 * has a cost per message.
 */
import { LONGEST_WRITE } from "../message/message.ts";

/**
 * Length of the first block. 10,000 readers that each begin with 1 MiB take seconds to connect, and
 * 10 GB of address space.
 */
const FIRST_LENGTH = 16_384;

/** Buffers kept for reuse: without them the garbage of 1 GB/s grows to hundreds of MB. */
const MOST_SPARE = 8;

export class Block {
  /** Stream offset of its first byte. */
  readonly offset: number;
  /** Position of the source before its first message. */
  readonly position: number;
  /** When its first message arrived; ms of `performance.now()`. */
  readonly sinceMs: number;
  readonly buffer: Uint8Array;
  length = 0;
  messages = 0;
  /** No more messages are added. */
  sealed = false;
  /** A write in flight still uses its bytes: the buffer must not be reused. */
  pinned = false;

  constructor(offset: number, position: number, sinceMs: number, buffer: Uint8Array) {
    this.offset = offset;
    this.position = position;
    this.sinceMs = sinceMs;
    this.buffer = buffer;
  }

  get end(): number {
    return this.offset + this.length;
  }

  get bytes(): Uint8Array {
    return this.buffer.subarray(0, this.length);
  }
}

export class Blocks {
  readonly #blocks: Block[] = [];
  /** Buffers of the length `#usual`. */
  readonly #spare: Uint8Array[] = [];
  #usual = FIRST_LENGTH;
  /** Total length of all blocks; bytes. */
  bytes = 0;

  get first(): Block | undefined {
    return this.#blocks[0];
  }

  get last(): Block | undefined {
    return this.#blocks.at(-1);
  }

  /** Appends a copy of whole messages. `offset`: the stream's end; `position`: the source's. */
  push(bytes: Uint8Array, messages: number, offset: number, position: number): void {
    let block = this.last;
    const room = block === undefined || block.sealed ? 0 : block.buffer.length - block.length;
    if (block === undefined || bytes.length > room || block.end !== offset) {
      if (block !== undefined) {
        if (!block.sealed) this.#grow();
        block.sealed = true;
      }
      block = new Block(offset, position, performance.now(), this.#allocate(bytes.length));
      this.#blocks.push(block);
    }
    block.buffer.set(bytes, block.length);
    block.length += bytes.length;
    block.messages += messages;
    this.bytes += bytes.length;
  }

  /** The block that contains the byte at `offset`, if it is in memory. */
  at(offset: number): Block | undefined {
    for (const block of this.#blocks) {
      if (offset < block.offset) return undefined;
      if (offset < block.end) return block;
    }
    return undefined;
  }

  /** The first block that ends after `offset`. */
  after(offset: number): Block | undefined {
    return this.#blocks.find((block) => block.end > offset);
  }

  /** Drops the blocks that end at or before `offset`. */
  release(offset: number): void {
    let count = 0;
    for (const block of this.#blocks) {
      if (block.end > offset) break;
      this.#recycle(block);
      count++;
    }
    this.#blocks.splice(0, count);
  }

  #allocate(least: number): Uint8Array {
    while (this.#usual < Math.min(least, LONGEST_WRITE)) this.#grow();
    // A longer message gets a buffer of its own.
    if (least > LONGEST_WRITE) return new Uint8Array(least);
    return this.#spare.pop() ?? new Uint8Array(this.#usual);
  }

  /** A block did not suffice: the next ones are twice as long, up to 1 MiB. */
  #grow(): void {
    if (this.#usual >= LONGEST_WRITE) return;
    this.#usual = Math.min(2 * this.#usual, LONGEST_WRITE);
    this.#spare.length = 0;
  }

  #recycle(block: Block): void {
    this.bytes -= block.length;
    const usual = block.buffer.length === this.#usual;
    if (usual && !block.pinned && this.#spare.length < MOST_SPARE) this.#spare.push(block.buffer);
  }
}
