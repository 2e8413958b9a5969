/** The options and the events of a `Delivery`. */
import type { Policy } from "../send/overflow.ts";
import type { Ticker } from "../send/pacer.ts";
import type { StreamBufferOptions } from "./stream_buffer.ts";

/**
 * What counts as delivered: `none`, what the server's kernel accepted; `tcp`, what the reader's
 * kernel acknowledged; `reader`, what the reader itself acknowledged (src/message/protocol.ts).
 */
export type Ack = "none" | "tcp" | "reader";

export type DeliveryEvent =
  /** The overflow policy acts for the first time. */
  | { event: "overflow"; policy: Policy; messages: number; backlog: number }
  /** From now on the reader's messages are stored on disk; bytes of its backlog. */
  | { event: "spilling"; backlog: number }
  /** The reader is served from memory again; bytes stored on disk since the server started. */
  | { event: "caught-up"; spilled: number }
  /** The queue accepts no more: `max`, its own limit is reached; `disk`, the disk is full. */
  | { event: "queue-full"; why: "max" | "disk"; then: "block" | "drop" }
  /** The queue accepts messages again; `dropped` messages were lost in between. */
  | { event: "queue-room"; dropped: number }
  /** Bytes that are lost: their batch was damaged, or they were in memory when a server was killed. */
  | { event: "gap"; from: number; to: number }
  /** Bytes lost at shutdown: the disk was full, and the source cannot send them again. */
  | { event: "lost"; bytes: number }
  /** The reader's window was zero, without progress, for too long: the connection is reset. */
  | { event: "dead"; why: "window"; seconds: number };

export interface DeliveryOptions extends StreamBufferOptions {
  policy: Policy;
  /** High watermark: backlog in memory above which the policy acts; bytes. */
  bound: number;
  /** Low watermark: backlog at which a spilling stream is served from memory again; bytes. */
  resumeBelow: number;
  /** What happens to new messages that a full queue cannot store. */
  whenFull: "block" | "drop";
  /** Infinity: never. */
  zeroWindowTimeoutMs: number;
  ticker: Ticker;
  onEvent: (event: DeliveryEvent) => void;
  /** `safePosition` may have advanced. */
  onSafe?: (() => void) | undefined;
  /** The queue failed and cannot be used any more. */
  onError: (error: Error) => void;
}
