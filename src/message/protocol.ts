/**
 * The acknowledgement protocol, as text: what a reader says of what it has stored, and what the
 * server answers. Both sides' lines are ASCII and end in `\n`; an offset is a decimal number of
 * bytes since the reader's stream began, a stream 16 hex digits that the server chose.
 *
 * 1. With `--reader-id hello` the reader's first line is its name, 1 to 64 of `A-Za-z0-9._-`.
 * 2. With `--ack reader` its next line is `resume OFFSET STREAM`: it has stored all before OFFSET of
 *    that stream; or `resume - -`: it knows nothing.
 * 3. The server answers with one line, `at OFFSET STREAM`. The stream's bytes from OFFSET on follow,
 *    raw, until the connection ends. If OFFSET is above what was asked, what lies between is gone. If
 *    STREAM is another one, the reader's own offset means nothing in it: it must not go on by itself.
 * 4. The reader sends `ack OFFSET` whenever it has stored all before OFFSET. What is acknowledged is
 *    never sent again.
 *
 * A whole reader, in Python; `load` gives `("-", "-")` at first, and then what was stored last:
 *
 * ```python
 * s = socket.create_connection(("127.0.0.1", 8000))
 * asked, known = load()
 * s.sendall(f"my-name\nresume {asked} {known}\n".encode())
 * stream = s.makefile("rb")
 * _, offset, name = stream.readline().decode().split()
 * assert known in ("-", name), "another stream"
 * while data := stream.read1(65536):
 *     offset = int(offset) + len(data)
 *     store(data, offset, name)
 *     s.sendall(f"ack {offset}\n".encode())
 * ```
 */

import { randomBytes } from "node:crypto";

/** The longest line that a reader may send, without its end. Bytes. */
export const LONGEST_LINE = 256;

/** A place in a stream: the offset of a byte, and whose it is. */
export interface StreamOffset {
  offset: number;
  /** 16 hex digits. */
  stream: string;
}

/** The other side does not keep to the protocol: one line, what it sent, what would be right. */
export class ProtocolError extends Error {
  override name = "ProtocolError";
}

const NAME = /^[A-Za-z0-9._-]{1,64}$/;
const STREAM = /^[0-9a-f]{16}$/;
const OFFSET = /^(?:0|[1-9]\d{0,15})$/;

/** Whether a reader can have this name. */
export function isReaderName(name: string): boolean {
  return NAME.test(name);
}

/** Whether this names a stream: 16 hex digits, in lower case. */
export function isStream(text: string): boolean {
  return STREAM.test(text);
}

/** A name for a stream that begins. */
export function newStream(): string {
  return randomBytes(8).toString("hex");
}

/** The reader's first line, with its end. */
export function formatHello(name: string): string {
  return `${name}\n`;
}

/** The name in a reader's first line, which comes without its end. Throws a ProtocolError. */
export function parseHello(line: string): string {
  if (isReaderName(line)) return line;
  throw new ProtocolError(
    `the reader's first line ${quoted(line)} must be its name: 1 to 64 of A-Z a-z 0-9 . _ -`,
  );
}

/** The reader's question where to go on, with its end; undefined: it knows nothing. */
export function formatResume(place?: StreamOffset): string {
  return place === undefined ? "resume - -\n" : `resume ${formatStreamOffset(place)}\n`;
}

/** What the reader has stored; undefined: it knows nothing. Throws a ProtocolError. */
export function parseResume(line: string): StreamOffset | undefined {
  if (line === "resume - -") return undefined;
  const place = line.startsWith("resume ") ? parseStreamOffset(line.slice(7)) : undefined;
  if (place !== undefined) return place;
  throw new ProtocolError(
    `the reader's line ${quoted(line)} must be "resume OFFSET STREAM" or "resume - -"`,
  );
}

/** The server's answer, with its end. */
export function formatAt(place: StreamOffset): string {
  return `at ${formatStreamOffset(place)}\n`;
}

/** Where the stream goes on, from the server's answer. Throws a ProtocolError. */
export function parseAt(line: string): StreamOffset {
  const place = line.startsWith("at ") ? parseStreamOffset(line.slice(3)) : undefined;
  if (place !== undefined) return place;
  throw new ProtocolError(`the server's answer ${quoted(line)} must be "at OFFSET STREAM"`);
}

/** The reader has stored all before this offset; with its end. */
export function formatAck(offset: number): string {
  return `ack ${offset}\n`;
}

/** The offset of an acknowledgement. Throws a ProtocolError. */
export function parseAck(line: string): number {
  const offset = line.startsWith("ack ") ? parseOffset(line.slice(4)) : undefined;
  if (offset !== undefined) return offset;
  throw new ProtocolError(`the reader's line ${quoted(line)} must be "ack OFFSET"`);
}

/** `OFFSET STREAM`, as in lines and in offset files. */
export function formatStreamOffset({ offset, stream }: StreamOffset): string {
  return `${offset} ${stream}`;
}

/** Undefined when it is none. */
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

/** What the other side sent, on one line and not longer than one. */
function quoted(line: string): string {
  return JSON.stringify(line.length > 60 ? `${line.slice(0, 57)}...` : line);
}

/** A reader's lines, out of chunks that end anywhere: `push` one, then `next` until it has no more. */
export class LineReader {
  readonly #line = new Uint8Array(LONGEST_LINE);
  #length = 0;
  #chunk: Uint8Array | undefined;
  #at = 0;

  /** The chunk is looked at until `next` returns undefined, and not kept beyond. */
  push(chunk: Uint8Array): void {
    if (this.#chunk !== undefined) throw new Error("the last chunk has lines that were not taken");
    this.#chunk = chunk;
    this.#at = 0;
  }

  /** The next line without its end, or undefined: it takes another chunk. Throws a ProtocolError. */
  next(): string | undefined {
    const chunk = this.#chunk;
    if (chunk === undefined) return undefined;
    while (this.#at < chunk.length) {
      const byte = chunk[this.#at++]!;
      if (byte === NEWLINE) {
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

const NEWLINE = 10;

/** A reader's acknowledgements, which is all that it sends after the server's answer. */
export class AckParser {
  /** The highest so far. */
  acked = 0;
  readonly #lines: LineReader;

  /** `lines`: those that brought the first lines, and may have more. Throws a ProtocolError. */
  constructor(lines: LineReader = new LineReader()) {
    this.#lines = lines;
    this.#take(Infinity);
  }

  /**
   * Gives the highest offset so far. `sent`: the end of what was sent, beyond which nothing can be
   * acknowledged; default: whatever. Throws a ProtocolError.
   */
  push(chunk: Uint8Array, sent: number = Infinity): number {
    this.#lines.push(chunk);
    return this.#take(sent);
  }

  #take(sent: number): number {
    for (let line; (line = this.#lines.next()) !== undefined;) {
      const offset = parseAck(line);
      if (offset > sent) {
        throw new ProtocolError(
          `the reader acknowledges ${offset} bytes, and only ${sent} have been sent`,
        );
      }
      if (offset > this.acked) this.acked = offset;
    }
    return this.acked;
  }
}
