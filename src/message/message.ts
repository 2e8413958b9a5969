/** What a flood sends: one message, again and again, as a function of the offset in the stream. */

/** The article's message: 13 bytes with its terminating NUL, as a C string is sent. */
export const ARTICLE_MESSAGE = "Hello World!\0";

/** The longest piece that one write offers to the kernel. Bytes. */
export const LONGEST_WRITE = 1 << 20;

export interface Message {
  /** Bytes of one message. */
  readonly size: number;
  /**
   * The bytes of the endless stream from `offset` on: a view of at most `limit` bytes, at least one,
   * at most `LONGEST_WRITE`. Nothing is copied.
   */
  slice(offset: number, limit: number): Uint8Array;
}

/** A message of these bytes. Throws a RangeError when there are none. */
export function repeatedMessage(bytes: Uint8Array): Message {
  const size = bytes.length;
  if (size === 0) throw new RangeError("cannot send messages of 0 bytes: a message has at least 1");
  // Whole messages over the longest write, so that any phase of a message has that much behind it.
  const block = new Uint8Array(Math.ceil((LONGEST_WRITE + size) / size) * size);
  block.set(bytes);
  for (let filled = size; filled < block.length; filled *= 2) {
    block.copyWithin(filled, 0, Math.min(filled, block.length - filled));
  }
  return {
    size,
    slice(offset, limit) {
      const phase = offset % size;
      return block.subarray(phase, phase + Math.min(limit, LONGEST_WRITE));
    },
  };
}

/** A message with this text in UTF-8, nothing added. */
export function textMessage(text: string): Message {
  return repeatedMessage(new TextEncoder().encode(text));
}

/** A message of `size` printable bytes. */
export function fillerMessage(size: number): Message {
  return repeatedMessage(Uint8Array.from({ length: size }, (_, i) => 33 + i % 94));
}
