/**
 * The acknowledgement protocol (docs/protocol.md), as text. Lines are ASCII and end in `\n`. OFFSET is
 * a decimal number of bytes since the start of the reader's stream. STREAM is the stream's name: 16
 * hex digits, chosen by the server.
 *
 * 1. With `--reader-id hello`, the reader first sends its name: 1 to 64 of `A-Za-z0-9._-`.
 * 2. With `--ack reader`, it then sends `resume OFFSET STREAM` if it has stored all bytes of that
 *    stream before OFFSET, or `resume - -` if it has stored nothing.
 * 3. The server replies `at OFFSET STREAM`. The raw bytes of the stream from that OFFSET on follow,
 *    until the connection ends. If OFFSET is above the requested one, the bytes between are lost. If
 *    STREAM differs, the reader's offset is meaningless, and the reader must not continue by itself.
 * 4. The reader sends `ack OFFSET` when it has stored all bytes before OFFSET. The server never sends
 *    acknowledged bytes again.
 */
import { randomBytes } from "node:crypto";

/** The longest line that a reader may send, without the line feed. Bytes. */
export const LONGEST_LINE = 256;

/** An offset in a stream. */
export interface StreamOffset {
  /** Bytes since the start of the stream. */
  offset: number;
  /** The stream's name: 16 hex digits. */
  stream: string;
}

/** The peer violates the protocol. The message is one line: what it sent, and what would be right. */
export class ProtocolError extends Error {
  override name = "ProtocolError";
}

const LINE_FEED = 10;
const NAME = /^[A-Za-z0-9._-]{1,64}$/;
const STREAM = /^[0-9a-f]{16}$/;
const OFFSET = /^(?:0|[1-9]\d{0,15})$/;

/** Whether this is a valid name of a reader. */
export function isReaderName(name: string): boolean {
  return NAME.test(name);
}

/** Whether this is a valid name of a stream: 16 hex digits in lower case. */
export function isStream(text: string): boolean {
  return STREAM.test(text);
}

/** A random name for a new stream. */
export function newStream(): string {
  return randomBytes(8).toString("hex");
}

/** The reader's first line, including the line feed. */
export function formatHello(name: string): string {
  return `${name}\n`;
}

/** The name in a reader's first line (without the line feed). Throws a ProtocolError. */
export function parseHello(line: string): string {
  if (isReaderName(line)) return line;
  throw new ProtocolError(
    `the reader's first line ${quoted(line)} must be its name: 1 to 64 of A-Z a-z 0-9 . _ -`,
  );
}

/** The reader's `resume` line, including the line feed. Undefined: it has stored nothing. */
export function formatResume(stored?: StreamOffset): string {
  return stored === undefined ? "resume - -\n" : `resume ${formatStreamOffset(stored)}\n`;
}

/** What the reader has stored; undefined: nothing. Throws a ProtocolError. */
export function parseResume(line: string): StreamOffset | undefined {
  if (line === "resume - -") return undefined;
  const stored = line.startsWith("resume ") ? parseStreamOffset(line.slice(7)) : undefined;
  if (stored !== undefined) return stored;
  checkHeight(line, /^resume ([1-9]\d*) [0-9a-f]{16}$/);
  throw new ProtocolError(
    `the reader's line ${quoted(line)} must be "resume OFFSET STREAM" or "resume - -"`,
  );
}

/** The server's reply, including the line feed. */
export function formatAt(offset: StreamOffset): string {
  return `at ${formatStreamOffset(offset)}\n`;
}

/** The offset from which the server will send, from its reply. Throws a ProtocolError. */
export function parseAt(line: string): StreamOffset {
  const offset = line.startsWith("at ") ? parseStreamOffset(line.slice(3)) : undefined;
  if (offset !== undefined) return offset;
  throw new ProtocolError(`the server's reply ${quoted(line)} must be "at OFFSET STREAM"`);
}

/** An acknowledgement, including the line feed: the reader has stored all bytes before `offset`. */
export function formatAck(offset: number): string {
  return `ack ${offset}\n`;
}

/** The offset of an acknowledgement. Throws a ProtocolError. */
export function parseAck(line: string): number {
  const offset = line.startsWith("ack ") ? parseOffset(line.slice(4)) : undefined;
  if (offset !== undefined) return offset;
  checkHeight(line, /^ack ([1-9]\d*)$/);
  throw new ProtocolError(`the reader's line ${quoted(line)} must be "ack OFFSET"`);
}

/** `OFFSET STREAM`, as in protocol lines and offset files. */
export function formatStreamOffset({ offset, stream }: StreamOffset): string {
  return `${offset} ${stream}`;
}

/** The reverse of `formatStreamOffset`; undefined when the text has another form. */
export function parseStreamOffset(text: string): StreamOffset | undefined {
  const space = text.indexOf(" ");
  const offset = parseOffset(text.slice(0, Math.max(0, space)));
  const stream = text.slice(space + 1);
  return offset === undefined || !isStream(stream) ? undefined : { offset, stream };
}

function parseOffset(text: string): number | undefined {
  const offset = Number(text);
  return OFFSET.test(text) && Number.isSafeInteger(offset) ? offset : undefined;
}

/** Throws a ProtocolError for a line with a number that no offset can be. */
function checkHeight(line: string, form: RegExp): void {
  const [, offset] = form.exec(line) ?? [];
  if (offset === undefined || Number(offset) <= Number.MAX_SAFE_INTEGER) return;
  throw new ProtocolError(
    `the reader's line ${quoted(line)} has an offset that is too high: the highest is 2^53 - 1`,
  );
}

/** What the peer sent, quoted for an error message, and shortened to 60 characters. */
function quoted(line: string): string {
  return JSON.stringify(line.length > 60 ? `${line.slice(0, 57)}...` : line);
}

/** Splits chunks, which may end anywhere, into lines. Call `push`, then `next` until it is undefined. */
export class LineReader {
  readonly #line = new Uint8Array(LONGEST_LINE);
  #length = 0;
  #chunk: Uint8Array | undefined;
  #at = 0;

  /** The chunk must not change until `next` has returned undefined. */
  push(chunk: Uint8Array): void {
    if (this.#chunk !== undefined) throw new Error("the last chunk has lines that were not read");
    this.#chunk = chunk;
    this.#at = 0;
  }

  /** The next line without its line feed; undefined: push another chunk. Throws a ProtocolError. */
  next(): string | undefined {
    const chunk = this.#chunk;
    if (chunk === undefined) return undefined;
    while (this.#at < chunk.length) {
      const byte = chunk[this.#at++]!;
      if (byte === LINE_FEED) {
        const line = String.fromCharCode(...this.#line.subarray(0, this.#length));
        this.#length = 0;
        return line;
      }
      if (this.#length === LONGEST_LINE) {
        const line = String.fromCharCode(...this.#line);
        throw new ProtocolError(`the line ${quoted(line)} is longer than ${LONGEST_LINE} bytes`);
      }
      this.#line[this.#length++] = byte;
    }
    this.#chunk = undefined;
    return undefined;
  }
}

/** Parses what a reader sends after the server's reply: acknowledgements only. */
export class AckParser {
  /** The highest acknowledged offset so far. */
  acked = 0;
  readonly #lines: LineReader;

  /**
   * `lines`: the LineReader that read the first lines, because it may already contain acknowledgements.
   */
  constructor(lines: LineReader = new LineReader()) {
    this.#lines = lines;
  }

  /**
   * Returns the highest acknowledged offset so far. `sent`: the offset up to which bytes were sent; an
   * acknowledgement above it is an error. Default: no limit. Throws a ProtocolError.
   */
  push(chunk: Uint8Array, sent: number = Infinity): number {
    this.parse(sent);
    this.#lines.push(chunk);
    return this.parse(sent);
  }

  /** The same for what came together with the first lines. */
  parse(sent: number = Infinity): number {
    for (let line; (line = this.#lines.next()) !== undefined;) {
      const offset = parseAck(line);
      if (offset > sent) {
        throw new ProtocolError(
          `the reader acknowledges ${offset} bytes, but only ${sent} have been sent`,
        );
      }
      if (offset > this.acked) this.acked = offset;
    }
    return this.acked;
  }
}
