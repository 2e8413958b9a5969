/**
 * Room: messages and the protocol around them: fixed messages, numbered messages, frames,
 * acknowledgements.
 * In: options; offsets of a stream; bytes received.
 * Out: bytes to send; message boundaries; what is missing or damaged; parsed protocol lines.
 */

/** The article's message: 13 bytes, including the terminating NUL of a C string. */
export const ARTICLE_MESSAGE = "Hello World!\0";

/** The most that one write offers to the kernel. Bytes. */
export const LONGEST_WRITE = 1 << 20;

/** An endless stream that repeats one message. */
export interface Message {
  /** Size of one message: bytes. */
  readonly size: number;
  /**
   * The bytes of the stream from `offset` on, without copying: a view of at least one and at most
   * `limit` or `LONGEST_WRITE` bytes.
   */
  slice(offset: number, limit: number): Uint8Array;
}

/** A message of these bytes. Throws a RangeError when `bytes` is empty. */
export function repeatedMessage(bytes: Uint8Array): Message {
  const size = bytes.length;
  if (size === 0) throw new RangeError("cannot send messages of 0 bytes: a message has at least 1");
  // At least one message longer than the longest write, so that such a write can begin anywhere in a
  // message.
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

/** A message with this text in UTF-8, without a terminator. */
export function textMessage(text: string): Message {
  return repeatedMessage(new TextEncoder().encode(text));
}

/** A message of `size` printable bytes. */
export function fillerMessage(size: number): Message {
  return repeatedMessage(Uint8Array.from({ length: size }, (_, i) => 33 + i % 94));
}
