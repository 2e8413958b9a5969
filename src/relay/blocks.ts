/**
 * The part of a stream that is in memory: whole messages in blocks, oldest first. A reader that keeps
 * up needs one of 16 KiB; with its backlog, blocks grow to 1 MiB.
 *
 * One write offers one block to the kernel, and one batch stores one block on disk, so that neither
 * has a cost per message.
 */
import { type Amount, messagesIn } from "../queue/queue.ts";

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
  /** When its first message arrived; ms of `performance.now()`. */
  readonly sinceMs: number;
  readonly buffer: Uint8Array;
  length = 0;
  messages = 0;
  /** No more messages are added. */
  sealed = false;
  /** Writes in progress that use its bytes: meanwhile the buffer must not be reused. */
  pins = 0;

  constructor(offset: number, sinceMs: number, buffer: Uint8Array) {
    this.offset = offset;
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
  #usual: number;
  /** Total length of all blocks; bytes. */
  bytes = 0;
  readonly #longest: number;
  readonly #onBytes: (bytes: number) => void;

  /**
   * `longest`: the longest block, but for longer messages; bytes. `onBytes`: so many bytes were added;
   * negative: removed.
   */
  constructor(longest: number, onBytes: (bytes: number) => void) {
    this.#longest = longest;
    this.#onBytes = onBytes;
    this.#usual = Math.min(FIRST_LENGTH, longest);
  }

  get first(): Block | undefined {
    return this.#blocks[0];
  }

  get last(): Block | undefined {
    return this.#blocks.at(-1);
  }

  /** Appends a copy of whole messages. `offset`: the end of the stream so far. */
  push(bytes: Uint8Array, messages: number, offset: number): void {
    let block = this.last;
    const room = block === undefined || block.sealed ? 0 : block.buffer.length - block.length;
    if (block === undefined || bytes.length > room || block.end !== offset) {
      if (block !== undefined) {
        if (!block.sealed) this.#grow();
        block.sealed = true;
      }
      block = new Block(offset, performance.now(), this.#allocate(bytes.length));
      this.#blocks.push(block);
    }
    block.buffer.set(bytes, block.length);
    block.length += bytes.length;
    block.messages += messages;
    this.bytes += bytes.length;
    this.#onBytes(bytes.length);
  }

  /** The block that contains the byte at `offset`, if it is in memory. */
  at(offset: number): Block | undefined {
    const { last } = this;
    if (last !== undefined && offset >= last.offset) return offset < last.end ? last : undefined;
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

  /** How much is in memory from `offset` on. */
  amountAfter(offset: number): Amount {
    const amount = { bytes: 0, messages: 0 };
    for (let i = this.#blocks.length - 1; i >= 0; i--) {
      const { end, length, messages } = this.#blocks[i]!;
      if (end <= offset) break;
      const bytes = Math.min(length, end - offset);
      amount.bytes += bytes;
      amount.messages += messagesIn(bytes, length, messages);
    }
    return amount;
  }

  /** Drops the blocks that end at or before `offset`. */
  release(offset: number): void {
    let count = 0;
    for (const block of this.#blocks) {
      if (block.end > offset) break;
      this.#recycle(block);
      count++;
    }
    // An empty splice would still make an array.
    if (count > 0) this.#blocks.splice(0, count);
  }

  /** Drops the blocks that are not to be kept. */
  keep(isKept: (block: Block) => boolean): void {
    const dropped = this.#blocks.filter((block) => !isKept(block));
    for (const block of dropped) {
      this.#blocks.splice(this.#blocks.indexOf(block), 1);
      this.#recycle(block);
    }
  }

  #allocate(least: number): Uint8Array {
    while (this.#usual < Math.min(least, this.#longest)) this.#grow();
    // A longer message gets a buffer of its own.
    if (least > this.#longest) return new Uint8Array(least);
    return this.#spare.pop() ?? new Uint8Array(this.#usual);
  }

  /** A block did not suffice: the next ones are twice as long, up to 1 MiB. */
  #grow(): void {
    if (this.#usual >= this.#longest) return;
    this.#usual = Math.min(2 * this.#usual, this.#longest);
    this.#spare.length = 0;
  }

  #recycle(block: Block): void {
    this.bytes -= block.length;
    this.#onBytes(-block.length);
    const usual = block.buffer.length === this.#usual;
    if (usual && block.pins === 0 && this.#spare.length < MOST_SPARE) {
      this.#spare.push(block.buffer);
    }
  }
}
