/**
 * Room: where a server's messages come from.
 * In: a TCP server, a file, standard input, or messages of our own making.
 * Out: runs of whole messages, pushed into a `Sink` that may make the source wait.
 */
import type { Closed } from "../net/net.ts";
import { parseHostPort, UnitError } from "../text/units.ts";

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
