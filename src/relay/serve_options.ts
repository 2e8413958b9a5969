/** What `serve` is asked for. */
import type { Message } from "../message/message.ts";
import type { Frame } from "../message/frame.ts";
import type { Adapter } from "../net/net.ts";
import type { Queue } from "../queue/queue.ts";
import type { Replies } from "../send/flood.ts";
import type { Policy } from "../send/overflow.ts";
import type { NumberedMessage } from "../source/flood_source.ts";
import type { Source } from "../source/source.ts";
import type { Ack } from "./delivery.ts";
import type { ReaderId } from "./relay.ts";
import type { ServeEvent } from "./serve_event.ts";

export interface ServeOptions {
  /** Default 127.0.0.1: loopback only; any other address must be asked for. */
  host?: string;
  /** Default 8000; 0: any free one. */
  port?: number;
  /** What a flood sends; default the article's 13 bytes, numbered messages of 64 for spill. */
  message?: Message | NumberedMessage;
  /** Messages a second, to each reader; Infinity: as fast as its kernel takes them. Default 1M. */
  rate?: number;
  /** Default: close. */
  overflow?: Policy;
  /**
   * Bytes that may wait in memory before the policy acts; default 0, the first full buffer, but
   * 8 MiB for spill.
   */
  backlog?: number;
  /** Default: ignore for a plain flood, else drain. */
  replies?: Replies;
  /** SO_SNDBUF of each connection; the kernel takes the double. Default: it tunes itself. */
  sendBuffer?: number;
  /** Generates for so long from the first reader on, then delivers what is pending and ends; ms. */
  durationMs?: number;
  /** Readers at once; a further one is hung up on. Default: no limit. */
  maxReaders?: number;
  /** How often `sent` is reported for each reader; ms, default never. */
  sentEveryMs?: number;
  /** Where the messages come from, instead of a flood for each reader: one for all of them. */
  source?: Source;
  /** Where the source's messages begin and end; default none. */
  frame?: Frame;
  /** Where messages wait that memory does not hold; needed by `spill`, and closed by the caller. */
  queue?: Queue;
  /** Bytes that wait when a spilling reader is fed from memory again; default half the backlog. */
  resumeBelow?: number;
  /** What becomes of messages that a full queue does not take; default: block. */
  whenFull?: "block" | "drop";
  /**
   * What counts as delivered; default: `reader` for one that asks where to go on as soon as it has
   * connected, else `tcp`, where the kernel tells, else `none`.
   */
  ack?: Ack;
  /** Who comes back; default: single. */
  readerId?: ReaderId;
  /** A reader whose window was zero, and for whom nothing moved, for so long is reset; ms, default never. */
  zeroWindowTimeoutMs?: number;
  /** How long a reader may take to say its name, or its offset, before it is hung up on; ms, default 10 s. */
  handshakeTimeoutMs?: number;
  adapter?: Adapter;
  /** Ends the server at once. */
  signal?: AbortSignal | undefined;
  onEvent?: (event: ServeEvent) => void;
}

/** Names that options had in earlier versions, accepted until 1.0. */
export interface OldServeOptions {
  /** @deprecated `resumeBelow` */
  low?: number;
  /** @deprecated `zeroWindowTimeoutMs` */
  deadAfterMs?: number;
  /** @deprecated `handshakeTimeoutMs` */
  patienceMs?: number;
  /** @deprecated `message: { numbered: true, size }` */
  message?: { sequence: true; size: number };
}

/** What `serve` takes: its options, by their present or by their old names. */
export type GivenServeOptions =
  & Omit<ServeOptions, "message">
  & Omit<OldServeOptions, "message">
  & { message?: ServeOptions["message"] | OldServeOptions["message"] };

/** The options by their present names. */
export function presentOptions(given: GivenServeOptions): ServeOptions {
  const { low, deadAfterMs, patienceMs, message, ...options } = given;
  const renamed: ServeOptions = {
    ...(low === undefined ? {} : { resumeBelow: low }),
    ...(deadAfterMs === undefined ? {} : { zeroWindowTimeoutMs: deadAfterMs }),
    ...(patienceMs === undefined ? {} : { handshakeTimeoutMs: patienceMs }),
  };
  if (message !== undefined) {
    renamed.message = "sequence" in message ? { numbered: true, size: message.size } : message;
  }
  return { ...renamed, ...options };
}
