/** The options of `serve`. */
import { SILENCE_MS } from "../kernel/keepalive.ts";
import type { Address } from "../kernel/address.ts";
import type { Message } from "../message/message.ts";
import type { Frame } from "../message/framer.ts";
import type { Adapter } from "../net/net.ts";
import type { Queue } from "../queue/queue.ts";
import type { Replies } from "../send/flood.ts";
import type { Deadlines } from "../send/deadlines.ts";
import type { Policy } from "../send/overflow.ts";
import type { Unread } from "../send/unread.ts";
import type { NumberedMessage } from "../source/flood_source.ts";
import type { Source } from "../source/source.ts";
import type { Ack } from "./delivery_options.ts";
import type { ReaderId } from "./relay_options.ts";
import type { ServeEvent } from "./serve_event.ts";
import type { WhenFull } from "./stream_event.ts";

/** The default of `deadPeerTimeoutMs`: as long as keepalive waits for the host of an idle reader. */
export const DEFAULT_DEAD_PEER_TIMEOUT_MS = SILENCE_MS;

export interface ServeOptions extends Deadlines {
  /** Address to listen on; default 127.0.0.1, loopback only. */
  host?: string;
  /** Default 8000; 0: any free port. */
  port?: number;
  /** Instead of listening: connects to a reader that listens there, and again when the connection has ended. */
  connect?: Address;
  /** The message of a flood; default the article's 13 bytes, with spill numbered messages of 64. */
  message?: Message | NumberedMessage;
  /** Messages a second to each reader; Infinity: as fast as the kernel accepts them. Default 1M. */
  rate?: number;
  /** Default: close. */
  overflow?: Policy;
  /**
   * High watermark: backlog in memory above which the policy acts; bytes. Default 0, the policy acts
   * as soon as the send buffer is full; with spill 8 MiB; with a deadline none.
   */
  backlog?: number;
  /**
   * How much may lie unread at a reader: the rest stays with the server until the reader has read all of
   * that. Bytes, or `auto`: as much as it takes without getting slower. Default: as much as the kernel takes.
   */
  unread?: Unread;
  /** What to do with bytes that readers send. Default: ignore for a plain flood, else drain. */
  replies?: Replies;
  /** SO_SNDBUF of each connection; the kernel doubles it. Default: the kernel tunes it. */
  sendBuffer?: number;
  /**
   * How long messages are generated, for a plain flood from the first reader's connect; then the
   * backlog is delivered and the server ends; ms, default no end.
   */
  durationMs?: number;
  /** Most concurrent readers; further connections are closed. Default: no limit. */
  maxReaders?: number;
  /**
   * Accepts only readers with these addresses: IPv4 or IPv6, single ones or ranges (CIDR) such as
   * `10.0.0.0/8`. Default: all.
   */
  allow?: readonly string[];
  /** How often `sent` is reported for each reader; ms, default never. */
  sentEveryMs?: number;
  /** One source of messages for all readers. Default: a flood for each reader. */
  source?: Source;
  /** How the source's messages are delimited; default none. */
  frame?: Frame;
  /** The queue on disk; required by `spill`. The caller closes it. */
  queue?: Queue;
  /**
   * Low watermark: backlog at which a spilling reader is served from memory again; bytes, default
   * half the high watermark.
   */
  resumeBelow?: number;
  /** What to do with messages when the queue is full; default: block. */
  whenFull?: WhenFull;
  /** Every message is stored, and synced as the queue is, before it is delivered. Default: false. */
  durable?: boolean;
  /**
   * Messages on disk are deleted after this time, delivered or not; ms, default never. `openDiskQueue`
   * should have the same `retainMs`: without it nothing is deleted before its segment, of 64 MiB, is full.
   */
  retainMs?: number;
  /** What all messages may take in memory; bytes, default 64 MiB, or 4 times `backlog`. */
  memory?: number;
  /** Where a reader begins that has never come before, with a source; default: now. */
  start?: "now" | "oldest";
  /** Most names of readers that are kept; a reader with a new name is then refused. Default 1,000. */
  maxReaderNames?: number;
  /**
   * What counts as delivered. Default: `reader` for a reader that sends a `resume` line right after
   * it connects, else `tcp` where the kernel reports acknowledgements, else `none`.
   */
  ack?: Ack;
  /** How a reader that reconnects is recognized; default: single. */
  readerId?: ReaderId;
  /** Resets a reader whose window was zero, without progress, for this time; ms, default never. */
  zeroWindowTimeoutMs?: number;
  /**
   * Resets a reader whose host has answered nothing for this time, though bytes wait for it; ms,
   * default 2 minutes, Infinity: never. A reader that only does not read is kept. Needs libc: without it
   * the default does nothing, and a given time is an error.
   */
  deadPeerTimeoutMs?: number;
  /** Time limit for a reader's handshake; then the server disconnects it; ms, default 10 s. */
  handshakeTimeoutMs?: number;
  /** Default: the adapter of this runtime. */
  adapter?: Adapter;
  /** Ends the server as `stop` does. */
  signal?: AbortSignal | undefined;
  /**
   * Called for each event. If it throws, or its promise rejects, the event's reader is closed, with
   * an `error` in its `closed` event; where the event is of no connected reader, the server ends and
   * `done` rejects with the error.
   */
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

/** The options of `serve`, by their current or their old names. */
export type GivenServeOptions =
  & Omit<ServeOptions, "message">
  & Omit<OldServeOptions, "message">
  & { message?: ServeOptions["message"] | OldServeOptions["message"] };

/** Renames options that were given by their old names. */
export function currentOptions(given: GivenServeOptions): ServeOptions {
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
