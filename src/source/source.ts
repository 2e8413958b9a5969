/**
 * Room: the sources of a server's messages.
 * In: a TCP server, a file, standard input, or a generator (the flood).
 * Out: runs of whole messages, pushed into a `Sink`, which may make the source wait.
 */
import type { Closed } from "../net/net.ts";
import { parseHostPort, UnitError } from "../text/units.ts";

/** Receives the messages of a source. */
export interface Sink {
  /**
   * Receives whole messages, in order. If it returns a promise, the source makes the next call only
   * after the promise has settled. The bytes are a view of a buffer that the source reuses: it is
   * valid until the call returns or its promise settles. Copy what must be kept.
   *
   * `position`: the source's position before these bytes; 0 if the source is not replayable.
   */
  push(bytes: Uint8Array, messages: number, position: number): void | Promise<void>;
  note(event: SourceEvent): void;
}

/** Events of a source. */
export type SourceEvent =
  /**
   * A TCP source has connected. Only with acknowledgement: `stream` identifies the stream in which
   * positions count, and has to be stored with them; `position` is that of the next byte delivered;
   * `missed` bytes before it are lost.
   */
  | {
    event: "connected";
    host: string;
    port: number;
    stream?: string;
    position?: number;
    missed?: number;
  }
  /** `discarded`: bytes of an incomplete message; with acknowledgement they are sent again. */
  | { event: "disconnected"; reason: Closed["reason"]; errno?: string; discarded: number }
  /** `error`: one line, why it could not connect; absent if it was connected before. */
  | { event: "retrying"; inMs: number; error?: string }
  /** There are no more messages. `discarded`: bytes after the last whole one. Not after `stop`. */
  | { event: "ended"; discarded: number };

export interface Source {
  /** Whether the source can resume at a position after a restart; if not, missed messages are lost. */
  readonly replayable: boolean;
  /**
   * Delivers from a position on (0: from the beginning) until there are no more messages, or until
   * `stop`. Rejects with an Error of one line, or with an error of the sink. To be called once.
   */
  run(sink: Sink, from: number): Promise<void>;
  /** Ends `run`, once the push in progress has settled. */
  stop(): void;
  /** Everything before `position` is safe: the source need not send it again. Cheap to call often. */
  acknowledge?(position: number): void;
}

/** A source as given on the command line. */
export type SourceAddress =
  | { kind: "tcp"; host: string; port: number }
  /** `-` is standard input. */
  | { kind: "file"; path: string };

/** Parses `tcp://HOST:PORT`, `-` or a file name. Throws a UnitError. */
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
