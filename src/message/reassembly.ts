/** Finds whole messages in the chunks of a byte stream. */
import type { Framed, FrameError, Framer } from "./framer.ts";

/** A block that has grown beyond this size for a long message is freed afterwards. */
const LARGEST_BLOCK = 1 << 20;
const SMALLEST_BLOCK = 4096;

/** What becomes of messages that are too long, where they are to be skipped. */
export interface Skipping {
  /** Such a message was found. */
  found(error: FrameError): void;
  /** All of it was passed over: so many bytes. */
  skipped(bytes: number): void;
}

/**
 * Delivers the whole messages in chunks that may end in the middle of a message. They are views of
 * the chunk; only a message that is spread over several chunks is copied, into a block of its own.
 */
export class Reassembly {
  readonly #framer: Framer;
  readonly #deliver: (bytes: Uint8Array, messages: number) => void | Promise<void>;
  readonly #skipping: Skipping | undefined;
  #block = new Uint8Array(SMALLEST_BLOCK);
  #length = 0;
  /** Bytes that were passed over of a message that is too long. */
  #skipped = 0;

  /** `skipping`: messages that are too long are skipped; default: `take` rejects. */
  constructor(
    framer: Framer,
    deliver: (bytes: Uint8Array, messages: number) => void | Promise<void>,
    skipping?: Skipping,
  ) {
    this.#framer = framer;
    this.#deliver = deliver;
    this.#skipping = skipping;
  }

  /** Bytes of an incomplete message; a view that is valid until the next `take`. */
  get partial(): Uint8Array {
    return this.#block.subarray(0, this.#length);
  }

  /** Drops the incomplete message: the next chunk starts with a new message. */
  reset(): void {
    this.#length = 0;
    this.#framer.reset();
  }

  /**
   * Delivers the messages that end in a chunk. The chunk must not change until the call returns or
   * its promise settles. Rejects with a FrameError, unless such messages are skipped, once the messages
   * before the error are delivered.
   */
  take(chunk: Uint8Array): void | Promise<void> {
    if (this.#framer.skipping && this.#skipping !== undefined) {
      chunk = this.#skip(chunk, this.#skipping);
      if (chunk.length === 0) return;
    }
    const framed = this.#framer.push(chunk);
    if (framed.error !== undefined) return this.#takeBad(chunk, framed);
    return this.#takeFramed(chunk, framed.first, framed.end, framed.messages);
  }

  /** Takes a chunk with a message that is too long, and perhaps with more of them. */
  async #takeBad(chunk: Uint8Array, framed: Framed): Promise<void> {
    let { first, end, messages, error } = framed;
    while (error !== undefined) {
      await this.#takeFramed(chunk.subarray(0, end), first, end, messages);
      if (this.#skipping === undefined) throw error;
      this.#skipping.found(error);
      this.#skipped = this.#length;
      this.#length = 0;
      chunk = this.#skip(chunk.subarray(end), this.#skipping);
      ({ first, end, messages, error } = this.#framer.push(chunk));
      if (chunk.length === 0) return;
    }
    await this.#takeFramed(chunk, first, end, messages);
  }

  /** The bytes that follow a message that is too long. */
  #skip(bytes: Uint8Array, skipping: Skipping): Uint8Array {
    const skipped = this.#framer.skip(bytes);
    this.#skipped += skipped;
    // Not before its end: a source that resumes in the middle would take the rest for a message.
    if (!this.#framer.skipping) skipping.skipped(this.#skipped);
    return bytes.subarray(skipped);
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
    // The block must not be overwritten while the sink still uses it.
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
