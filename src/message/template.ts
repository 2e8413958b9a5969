/**
 * Messages made from a template: text with fields that differ from message to message.
 *
 * - `{seq}`: the message's number, ten digits, from 1000000000 on;
 * - `{time}`: the time at which it is sent: RFC 3339, UTC, to the microsecond;
 * - `{crc}`: the CRC-32 of the message's bytes before it: eight hexadecimal digits;
 * - `{pad:N}`: N bytes of filler;
 * - `{pick:a|b|c}`: one of these after the other.
 *
 * All fields but `{pick}` always have the same size, so that where a message begins depends on its number only.
 */
import { crc32 } from "./crc32.ts";
import type { Frame } from "./framer.ts";
import { Layout } from "./layout.ts";
import { LONGEST_WRITE, type Message } from "./message.ts";

/** The template cannot be used; the message is a clause that follows "a template". */
export class TemplateError extends Error {
  override name = "TemplateError";
}

/** The number of the first message. With it, all numbers have the same length and no leading zero. */
export const FIRST_SEQ = 1_000_000_000;
const SEQ_DIGITS = 10;
/** Different messages, before the picks repeat; and bytes of one message, and of all of them. */
const MOST_DIFFERENT = 10_000;
const LONGEST = 1 << 24;
const MOST_BYTES = 1 << 26;

type Field =
  | { kind: "text"; bytes: Uint8Array }
  | { kind: "seq" | "time" | "crc" }
  | { kind: "pick"; choices: Uint8Array[] };

/** Where a field of a message is that is written anew each time. Bytes from the message's start. */
interface Slot {
  kind: "seq" | "time" | "crc";
  at: number;
}

/** One of the messages, before its fields are written. */
interface Blank {
  bytes: Uint8Array;
  slots: Slot[];
  /** Where the CRC's bytes begin: behind the length in front of the message. */
  body: number;
}

const encoder = new TextEncoder();
const SIZES = { seq: SEQ_DIGITS, time: "2026-01-01T00:00:00.000000Z".length, crc: 8 };

/** Messages from a template, delimited as `frame` says: `line`, `u32`, `octet` or `none`. Throws a TemplateError. */
export function templateMessage(template: string, frame: Frame): Message {
  const fields = parse(template);
  const different = fields.reduce(
    (count, field) =>
      field.kind === "pick" ? leastCommonMultiple(count, field.choices.length) : count,
    1,
  );
  if (different > MOST_DIFFERENT) {
    throw new TemplateError(
      `must repeat after at most ${MOST_DIFFERENT} messages; with its {pick:...} it repeats after ${different}`,
    );
  }
  const blanks: Blank[] = [];
  let all = 0;
  for (let i = 0; i < different; i++) {
    const blank = fill(fields, i, frame);
    all += blank.bytes.length;
    if (blank.bytes.length > LONGEST || all > MOST_BYTES) {
      throw new TemplateError(`must not be longer than ${LONGEST} bytes a message`);
    }
    blanks.push(blank);
  }
  const layout = Layout.of(blanks.map(({ bytes }) => bytes.length));
  if (layout.lap === 0) throw new TemplateError("must not be empty");
  return new TemplateMessage(blanks, layout, frame);
}

/** Splits a template into its fields. Throws a TemplateError. */
function parse(template: string): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const text = (to: number) => {
    if (to > at) fields.push({ kind: "text", bytes: encoder.encode(template.slice(at, to)) });
  };
  // Other braces are text, as in JSON.
  for (const match of template.matchAll(/\{([a-z]+)(?::([^}]*))?\}/g)) {
    text(match.index);
    at = match.index + match[0].length;
    const [whole, name, value] = match;
    if ((name === "seq" || name === "time" || name === "crc") && value === undefined) {
      fields.push({ kind: name });
    } else if (name === "pad" && /^[1-9]\d{0,7}$/.test(value ?? "")) {
      const size = Number(value);
      if (size > LONGEST) {
        throw new TemplateError(`must not have ${whole}: at most ${LONGEST} bytes`);
      }
      fields.push({
        kind: "text",
        bytes: Uint8Array.from({ length: size }, (_, i) => 97 + i % 26),
      });
    } else if (name === "pick" && value !== undefined) {
      fields.push({ kind: "pick", choices: value.split("|").map((each) => encoder.encode(each)) });
    } else {
      throw new TemplateError(
        `must not have ${whole}: its fields are {seq}, {time}, {crc}, {pad:N} and {pick:a|b|c}`,
      );
    }
  }
  text(template.length);
  return fields;
}

const LF = 10;

/** Message number `index`, without what is written anew each time. */
function fill(fields: readonly Field[], index: number, frame: Frame): Blank {
  const pieces: Uint8Array[] = [];
  const slots: Slot[] = [];
  let size = 0;
  for (const field of fields) {
    if (field.kind === "text") pieces.push(field.bytes);
    else if (field.kind === "pick") pieces.push(field.choices[index % field.choices.length]!);
    else {
      slots.push({ kind: field.kind, at: size });
      pieces.push(new Uint8Array(SIZES[field.kind]));
    }
    size += pieces.at(-1)!.length;
  }
  let head = new Uint8Array(0);
  if (frame.kind === "line") {
    const ends = pieces.at(-1)?.at(-1) === LF;
    if (!ends) {
      pieces.push(Uint8Array.of(LF));
      size++;
    }
    const lines = pieces.reduce(
      (count, piece) => count + piece.filter((byte) => byte === LF).length,
      0,
    );
    if (lines > 1) {
      throw new TemplateError(
        "must not have a line feed inside: with frame line it ends a message",
      );
    }
  } else if (frame.kind === "u32") {
    head = new Uint8Array(4);
    new DataView(head.buffer).setUint32(0, size);
  } else if (frame.kind === "octet") {
    head = encoder.encode(`${size} `);
  } else if (frame.kind === "fixed") {
    throw new TemplateError("has messages of its own size: its frame is line, u32, octet or none");
  }
  const bytes = new Uint8Array(head.length + size);
  let at = 0;
  for (const piece of [head, ...pieces]) {
    bytes.set(piece, at);
    at += piece.length;
  }
  const body = head.length;
  return { bytes, slots: slots.map(({ kind, at }) => ({ kind, at: body + at })), body };
}

function leastCommonMultiple(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y > 0) [x, y] = [y, x % y];
  return a / x * b;
}

/** The messages of one connection. Those that were made last are kept, so that a rest of them can be sent. */
class TemplateMessage implements Message {
  readonly constant = false;
  readonly frame: Frame;
  readonly #blanks: readonly Blank[];
  readonly #layout: Layout;
  #block = new Uint8Array(0);
  /** Which bytes of the stream are in the block. */
  #from = 0;
  #to = 0;

  constructor(blanks: readonly Blank[], layout: Layout, frame: Frame) {
    this.#blanks = blanks;
    this.#layout = layout;
    this.frame = frame;
  }

  get size(): number {
    return this.#layout.size;
  }

  get longest(): number {
    return this.#layout.longest;
  }

  offsetOf(index: number): number {
    return this.#layout.offsetOf(index);
  }

  begunBefore(offset: number): number {
    return this.#layout.begunBefore(offset);
  }

  forConnection(): Message {
    return new TemplateMessage(this.#blanks, this.#layout, this.frame);
  }

  slice(offset: number, limit: number): Uint8Array {
    if (offset < this.#from || offset >= this.#to) {
      this.#make(offset, Math.min(limit, LONGEST_WRITE));
    }
    const at = offset - this.#from;
    return this.#block.subarray(
      at,
      Math.min(this.#to - this.#from, at + Math.min(limit, LONGEST_WRITE)),
    );
  }

  /** Makes the message at `offset`, and as many after it as begin in the next `limit` bytes. */
  #make(offset: number, limit: number): void {
    const layout = this.#layout;
    const first = layout.begunBefore(offset + 1) - 1;
    const last = layout.begunBefore(offset + limit);
    this.#from = layout.offsetOf(first);
    this.#to = layout.offsetOf(last);
    const length = this.#to - this.#from;
    if (this.#block.length < length) {
      this.#block = new Uint8Array(LONGEST_WRITE + 2 * layout.longest);
    }
    const block = this.#block;
    const blanks = this.#blanks;
    let time: Uint8Array | undefined;
    let at = 0;
    for (let index = first; index < last; index++) {
      const { bytes, slots, body } = blanks[index % blanks.length]!;
      block.set(bytes, at);
      for (const slot of slots) {
        const to = at + slot.at;
        if (slot.kind === "seq") writeDecimal(block, to, FIRST_SEQ + index);
        else if (slot.kind === "time") block.set(time ??= formatTime(), to);
        else writeHex(block, to, crc32(block, at + body, to));
      }
      at += bytes.length;
    }
  }
}

/** Ten digits. */
function writeDecimal(into: Uint8Array, at: number, value: number): void {
  for (let i = at + SEQ_DIGITS - 1; i >= at; i--) {
    const tenth = Math.floor(value / 10);
    into[i] = 48 + value - 10 * tenth;
    value = tenth;
  }
}

/** Eight digits. */
function writeHex(into: Uint8Array, at: number, value: number): void {
  for (let i = at + 7; i >= at; i--) {
    const digit = value & 15;
    into[i] = digit < 10 ? 48 + digit : 87 + digit;
    value >>>= 4;
  }
}

/** Now. */
function formatTime(): Uint8Array {
  const ms = performance.timeOrigin + performance.now();
  const us = Math.floor((ms - Math.floor(ms)) * 1000);
  return encoder.encode(new Date(ms).toISOString().replace("Z", `${String(us).padStart(3, "0")}Z`));
}
