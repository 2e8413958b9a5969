/**
 * Where messages come from: the contract between a source and the one who takes its messages, and
 * what sources of bytes have in common: runs of whole messages out of chunks that end anywhere.
 */
import type { Framer } from "./frame.ts";
import type { Closed } from "./net.ts";
import { parseHostPort, UnitError } from "./units.ts";

/** Who takes the messages. */
export interface Sink {
  /**
   * Whole messages, in order and one call at a time. The bytes are a view that is valid until the
   * call returns, or its promise settles: what is to be kept has to be copied, for the buffer below
   * is the source's, and is used again. While a promise waits the source delivers nothing more.
   *
   * `position`: where the source stands before these bytes (0 where it cannot go back to it).
   */
  push(bytes: Uint8Array, messages: number, position: number): void | Promise<void>;
  note(event: SourceEvent): void;
}

/** What happens in a source's life, beside messages. */
export type SourceEvent =
  /**
   * With acknowledgement: positions count in `stream`, to be kept with them; the next byte that is
   * delivered is at `position`, and `missed` bytes before it are gone, which came not to us.
   */
  | {
    event: "connected";
    host: string;
    port: number;
    stream?: string;
    position?: number;
    missed?: number;
  }
  /** `discarded`: bytes of a message that had begun; with acknowledgement they come again. */
  | { event: "disconnected"; reason: Closed["reason"]; errno?: string; discarded: number }
  /** `error`: one line, why it could not connect; absent after a connection that broke. */
  | { event: "retrying"; inMs: number; error?: string }
  /** It has no more to give. `discarded`: bytes after the last whole message. Not after `stop`. */
  | { event: "ended"; discarded: number };

export interface Source {
  /** It can go on at a position after a restart; false: what was missed is gone. */
  readonly replayable: boolean;
  /**
   * Delivers from a position on (0: from the beginning) until it has no more, or until `stop`.
   * Rejects with one line, or with what the sink throws. To be called once.
   */
  run(sink: Sink, from: number): Promise<void>;
  /** Ends `run`, as soon as the sink has settled the push that is under way. */
  stop(): void;
  /** For a source that is to be told what is safe: all before `position`. Cheap to call often. */
  acknowledge?(position: number): void;
}

/** Where to read from, as on a command line. */
export type SourceAddress =
  | { kind: "tcp"; host: string; port: number }
  /** `-` is standard input. */
  | { kind: "file"; path: string };

/** `tcp://HOST:PORT`, `-` or a file. Throws a UnitError. */
export function parseSource(text: string): SourceAddress {
  const [, scheme, rest] = /^(\w+):\/\/(.*)$/s.exec(text) ?? [];
  if (scheme === undefined && text !== "") return { kind: "file", path: text };
  try {
    if (scheme === "tcp") return { kind: "tcp", ...parseHostPort(rest!.replace(/\/$/, "")) };
  } catch (error) {
    if (!(error instanceof UnitError)) throw error;
  }
  throw new UnitError("must be tcp://HOST:PORT, a file, or - for standard input");
}

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
  #kept = 0;

  constructor(
    framer: Framer,
    deliver: (bytes: Uint8Array, messages: number) => void | Promise<void>,
  ) {
    this.#framer = framer;
    this.#deliver = deliver;
  }

  /** Bytes of a message that has begun, and not ended; a view valid until the next `take`. */
  get partial(): Uint8Array {
    return this.#block.subarray(0, this.#kept);
  }

  /** Forgets that message: what is taken next begins one. */
  reset(): void {
    this.#kept = 0;
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
    if (this.#kept === 0) return this.#takeRest(chunk, 0, end, messages);
    this.#keep(chunk.subarray(0, first));
    const delivering = this.#deliver(this.partial, 1);
    this.#kept = 0;
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
    const needed = this.#kept + bytes.length;
    if (needed > this.#block.length) {
      const grown = new Uint8Array(Math.max(needed, 2 * this.#block.length));
      grown.set(this.partial);
      this.#block = grown;
    } else if (this.#kept === 0 && this.#block.length > LARGEST_BLOCK && needed <= LARGEST_BLOCK) {
      this.#block = new Uint8Array(Math.max(needed, SMALLEST_BLOCK));
    }
    this.#block.set(bytes, this.#kept);
    this.#kept = needed;
  }
}
