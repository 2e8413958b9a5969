/**
 * Room: messages and the protocol around them: constant messages, recordings, templates, numbered messages,
 * frames, acknowledgements.
 * In: options; offsets of a stream; bytes received.
 * Out: bytes to send; message boundaries; what is missing or damaged; parsed protocol lines.
 */
import type { Frame } from "./framer.ts";
import { Layout } from "./layout.ts";

/** The article's message: 13 bytes, including the terminating NUL of a C string. */
export const ARTICLE_MESSAGE = "Hello World!\0";

/** The most that one write offers to the kernel. Bytes. */
export const LONGEST_WRITE = 1 << 20;

/** An endless stream of messages. */
export interface Message {
  /** Size of one message: bytes; where sizes differ, their mean. */
  readonly size: number;
  /** Size of the longest message: bytes. */
  readonly longest: number;
  /** All messages are the same. */
  readonly constant: boolean;
  /** How a reader of the stream finds the messages in it. */
  readonly frame: Frame;
  /**
   * The bytes of the stream from `offset` on, without copying: a view of at least one and at most
   * `limit` or `LONGEST_WRITE` bytes, valid until the next call.
   */
  slice(offset: number, limit: number): Uint8Array;
  /** The offset at which message number `index`, counted from 0, begins. */
  offsetOf(index: number): number;
  /** How many messages begin before `offset`. */
  begunBefore(offset: number): number;
  /**
   * The stream for one connection. Absent: the bytes at an offset never change, so that all connections can
   * share it.
   */
  forConnection?(): Message;
}

/** Bytes that are repeated without end; they may hold many messages. */
export class RepeatedBytes implements Message {
  readonly frame: Frame;
  readonly #layout: Layout;
  /** Bytes until the stream repeats itself. */
  readonly #lap: number;
  /** One lap, or so many that a longest write can begin anywhere in the first one. */
  readonly #block: Uint8Array;

  /** `bytes`: whole messages, laid out like `layout`, whose lap may be a part of them. */
  constructor(bytes: Uint8Array, layout: Layout, frame: Frame) {
    this.#layout = layout;
    this.frame = frame;
    this.#lap = bytes.length;
    this.#block = bytes.length > SHORT_LAP ? bytes : repeat(bytes);
  }

  get constant(): boolean {
    return this.#lap === this.#layout.lap && this.#layout.count === 1;
  }

  get size(): number {
    return this.#layout.size;
  }

  get longest(): number {
    return this.#layout.longest;
  }

  slice(offset: number, limit: number): Uint8Array {
    const phase = offset % this.#lap;
    return this.#block.subarray(phase, phase + Math.min(limit, LONGEST_WRITE));
  }

  offsetOf(index: number): number {
    return this.#layout.offsetOf(index);
  }

  begunBefore(offset: number): number {
    return this.#layout.begunBefore(offset);
  }
}

/** Above this length a lap is not copied: one write in each lap is then shorter than it could be. Bytes. */
const SHORT_LAP = 16 * LONGEST_WRITE;

function repeat(bytes: Uint8Array): Uint8Array {
  const { length } = bytes;
  const block = new Uint8Array(Math.ceil((LONGEST_WRITE + length) / length) * length);
  block.set(bytes);
  for (let filled = length; filled < block.length; filled *= 2) {
    block.copyWithin(filled, 0, Math.min(filled, block.length - filled));
  }
  return block;
}

/** A message of these bytes. Throws a RangeError when `bytes` is empty. */
export function repeatedMessage(bytes: Uint8Array): Message {
  const size = bytes.length;
  if (size === 0) throw new RangeError("cannot send messages of 0 bytes: a message has at least 1");
  return new RepeatedBytes(bytes, Layout.equal(size), { kind: "fixed", size });
}

/** A message with this text in UTF-8, without a terminator. */
export function textMessage(text: string): Message {
  return repeatedMessage(new TextEncoder().encode(text));
}

/** A message of `size` printable bytes. */
export function fillerMessage(size: number): Message {
  return repeatedMessage(Uint8Array.from({ length: size }, (_, i) => 33 + i % 94));
}
