/** What all framers have in common: they find where messages begin and end in a stream of bytes. */

/**
 * - `fixed`: messages of `size` bytes;
 * - `line`: a message ends after its `\n`;
 * - `u32`: a message is 4 bytes, big-endian, with the length of its body, and then the body;
 * - `octet`: a message is the length of its body in decimal digits, a space, and then the body (RFC 6587, 3.4.1);
 * - `none`: a stream without messages; each chunk counts as one message.
 */
export type Frame = { kind: "fixed"; size: number } | { kind: "line" | "u32" | "octet" | "none" };

/** The stream does not have the expected frame, or a message is too long. The message is one line. */
export class FrameError extends Error {
  override name = "FrameError";
}

/** What a framer found in a chunk. Offsets are relative to the chunk; 0: no message ends in it. */
export interface Framed {
  /** The end of the first message that ends in the chunk. */
  first: number;
  /** The end of the last one. */
  end: number;
  /** Messages that end in the chunk. */
  messages: number;
  /** The bytes after `end` cannot be a message. Until `reset` or `skip`, later chunks fail as well. */
  error: FrameError | undefined;
}

export interface Framer {
  /**
   * Examines the next bytes of the stream. With `most`, stops after that many messages: then only the
   * bytes up to `end` are consumed, and the next call must pass the rest again. The result is valid
   * until the next call. Never throws.
   */
  push(chunk: Uint8Array, most?: number): Framed;
  /** Starts over: the next chunk begins with a message. */
  reset(): void;
  /**
   * After an error: passes over the message that is too long, whose rest is in `bytes` (what follows
   * `end`) and in later chunks. Returns how many of these bytes belong to it; the next message begins
   * after them. If its end is not among them, `skipping` is true, and `skip` takes the next chunk too.
   */
  skip(bytes: Uint8Array): number;
  readonly skipping: boolean;
  /** The length of the message at the start of `bytes`; undefined if it is incomplete. */
  lengthOf(bytes: Uint8Array): number | undefined;
  /**
   * The start of the message that contains the byte at `offset`; `bytes` must begin with a message.
   * For `none` it is `offset` itself.
   */
  floor(bytes: Uint8Array, offset: number): number;
}

/** A framer's result before its first chunk. */
export const emptyResult = (): Framed => ({ first: 0, end: 0, messages: 0, error: undefined });

/** Sets and returns a framer's result, which is reused so that `push` allocates nothing. */
export function setResult(into: Framed, first: number, end: number, messages: number): Framed {
  into.first = first;
  into.end = end;
  into.messages = messages;
  return into;
}
