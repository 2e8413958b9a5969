/** Runs of whole messages out of chunks that end anywhere: what sources of bytes have in common. */
import type { Framer } from "../message/frame.ts";

/** A block that grew beyond this for one long message is given back. */
const LARGEST_BLOCK = 1 << 20;
const SMALLEST_BLOCK = 4096;

/**
 * Whole messages out of chunks that end anywhere. They are delivered as views of the chunk; only a
 * message which crosses from one chunk into another is copied, into a block of its own.
 */
export class Reassembly {
  readonly #framer: Framer;
  readonly #deliver: (bytes: Uint8Array, messages: number) => void | Promise<void>;
  #block = new Uint8Array(SMALLEST_BLOCK);
  #length = 0;

  constructor(
    framer: Framer,
    deliver: (bytes: Uint8Array, messages: number) => void | Promise<void>,
  ) {
    this.#framer = framer;
    this.#deliver = deliver;
  }

  /** Bytes of a message that has begun, and not ended; a view valid until the next `take`. */
  get partial(): Uint8Array {
    return this.#block.subarray(0, this.#length);
  }

  /** Forgets that message: what is taken next begins one. */
  reset(): void {
    this.#length = 0;
    this.#framer.reset();
  }

  /**
   * Delivers the messages that end in a chunk, which has to stay as it is meanwhile. Rejects with a
   * FrameError, once those before it are delivered.
   */
  take(chunk: Uint8Array): void | Promise<void> {
    const { first, end, messages, error } = this.#framer.push(chunk);
    if (error !== undefined) return this.#takeLast(chunk, first, end, messages, error);
    return this.#takeFramed(chunk, first, end, messages);
  }

  async #takeLast(
    chunk: Uint8Array,
    first: number,
    end: number,
    messages: number,
    error: Error,
  ): Promise<never> {
    await this.#takeFramed(chunk.subarray(0, end), first, end, messages);
    throw error;
  }

  #takeFramed(
    chunk: Uint8Array,
    first: number,
    end: number,
    messages: number,
  ): void | Promise<void> {
    if (messages === 0) return this.#keep(chunk);
    if (this.#length === 0) return this.#takeRest(chunk, 0, end, messages);
    this.#keep(chunk.subarray(0, first));
    const delivering = this.#deliver(this.partial, 1);
    this.#length = 0;
    // Nothing may be kept in the block while the sink still looks at it.
    return delivering instanceof Promise
      ? delivering.then(() => this.#takeRest(chunk, first, end, messages - 1))
      : this.#takeRest(chunk, first, end, messages - 1);
  }

  #takeRest(
    chunk: Uint8Array,
    start: number,
    end: number,
    messages: number,
  ): void | Promise<void> {
    if (end < chunk.length) this.#keep(chunk.subarray(end));
    if (messages === 0) return;
    const whole = end - start === chunk.length ? chunk : chunk.subarray(start, end);
    return this.#deliver(whole, messages);
  }

  #keep(bytes: Uint8Array): void {
    const needed = this.#length + bytes.length;
    if (needed > this.#block.length) {
      const grown = new Uint8Array(Math.max(needed, 2 * this.#block.length));
      grown.set(this.partial);
      this.#block = grown;
    } else if (
      this.#length === 0 && this.#block.length > LARGEST_BLOCK && needed <= LARGEST_BLOCK
    ) {
      this.#block = new Uint8Array(Math.max(needed, SMALLEST_BLOCK));
    }
    this.#block.set(bytes, this.#length);
    this.#length = needed;
  }
}
