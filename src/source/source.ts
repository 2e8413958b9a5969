/**
 * Room: the sources of a server's messages.
 * In: a TCP server, a file, standard input, or a generator (the flood).
 * Out: runs of whole messages, pushed into a `Sink`, which may make the source wait.
 */
import type { Closed } from "../net/net.ts";
import type { Frame } from "../message/framer.ts";
import type { Rate } from "../text/units.ts";

/** Receives the messages of a source. */
export interface Sink {
  /**
   * Receives whole messages, in order. If it returns a promise, the source makes the next call only
   * after the promise has settled. The bytes are a view of a buffer that the source reuses: it is
   * valid until the call returns or its promise settles. Copy what must be kept.
   *
   * `position`: the source's position before these bytes, in bytes; 0 if the source is not replayable.
   */
  push(bytes: Uint8Array, messages: number, position: number): void | Promise<void>;
  note(event: SourceEvent): void;
}

/**
 * What a source does with a message that is too long for its frame.
 * - `stop`: the source fails, and the server with it;
 * - `skip`: the message is passed over;
 * - `reconnect`: the connection is closed, and the source connects again.
 */
export type OnBadFrame = "stop" | "skip" | "reconnect";

/** Events of a source. */
export type SourceEvent =
  /**
   * A TCP source has connected. Only with acknowledgement: `stream` identifies the stream in which
   * positions count from now on; `position` is that of the next byte delivered; `missed` bytes before it
   * are lost.
   */
  | {
    event: "connected";
    host: string;
    port: number;
    stream?: string;
    position?: number;
    missed?: number;
  }
  /** A file is open. `stream` identifies its beginning; `position` is that of the first byte delivered. */
  | { event: "opened"; stream: string; position: number }
  /** `discarded`: bytes of an incomplete message; with acknowledgement they are sent again. */
  | { event: "disconnected"; reason: Closed["reason"]; errno?: string; discarded: number }
  /**
   * `error`: one line, why it could not connect, or why it has ended the connection itself; absent if
   * the connection was ended by the other side.
   */
  | { event: "retrying"; inMs: number; error?: string }
  /**
   * A message is too long for the source's frame. `then`: what follows; `count`: all since the source
   * was started, of which those that are skipped are told at most once a second; `reason`: one line.
   */
  | { event: "bad-frame"; then: OnBadFrame; count: number; reason: string }
  /** There are no more messages. `discarded`: bytes after the last whole one. Not after `stop`. */
  | { event: "ended"; discarded: number };

export interface Source {
  /** Whether the source can resume at a position after a restart; if not, missed messages are lost. */
  readonly replayable: boolean;
  /** It has a connection, which it reports in `connected` and `disconnected`. Default: it has none. */
  readonly connects?: boolean;
  /**
   * Delivers from a position on (0: from the beginning) until there are no more messages, or until
   * `stop`. `stream`: that of an earlier `connected` or `opened` event, in which the position counts;
   * without it the source begins where it likes, a file at its beginning.
   * Rejects with an Error of one line, or with an error of the sink. To be called once.
   */
  run(sink: Sink, from: number, stream?: string): Promise<void>;
  /** Ends `run`, once the push in progress has settled. */
  stop(): void;
  /** Everything before `position` is safe: the source need not send it again. Cheap to call often. */
  acknowledge?(position: number): void;
}

/** What a kind of source may need to open one. */
export interface OpenSourceOptions {
  frame: Frame;
  /** The longest message of a frame without a fixed size: bytes; see `createFramer`. */
  maxMessage?: number | undefined;
  /** One of `onBadFrame` of the source; default: its first. */
  onBadFrame?: OnBadFrame | undefined;
  /** Default: as fast as the source has messages. */
  rate?: Rate | undefined;
  /** The source is to acknowledge what is safe; only where it can. */
  acknowledged?: boolean | undefined;
  /** A source that has sent nothing for this time is connected anew; only where it can; ms. */
  idleMs?: number | undefined;
}

/** A source as given on the command line. */
export interface SourceOnCommandLine {
  /** For messages to people: `tcp://feed:9000`. */
  readonly name: string;
  /** The source can be read at a given rate. */
  readonly takesRate: boolean;
  /** The source can be sent acknowledgements. */
  readonly acknowledges: boolean;
  /** The source is a connection, and is connected anew when that ends. */
  readonly reconnects: boolean;
  /** What it can do with a message that is too long for its frame; the first is the default. */
  readonly onBadFrame: readonly OnBadFrame[];
  /** Throws an Error of one line where it can be seen at once that it cannot be read. */
  open(options: OpenSourceOptions): Source;
}

/** A kind of source that a command line can name; see source_kinds.ts. */
export interface SourceKind {
  /** For the help: `tcp://HOST:PORT`. */
  readonly form: string;
  /** For an error message, after `must be`. */
  readonly words: string;
  /** Undefined: the text is not of this kind. */
  parse(text: string): SourceOnCommandLine | undefined;
}
