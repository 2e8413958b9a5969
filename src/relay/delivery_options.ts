/** The options and the events of a `Delivery`. */
import type { Deadlines, Passed } from "../send/deadlines.ts";
import type { Policy } from "../send/overflow.ts";
import type { Ticker } from "../send/pacer.ts";
import type { Unread, UnreadEvent } from "../send/unread.ts";
import type { StreamEvent } from "./stream_event.ts";

/**
 * What counts as delivered: `none`, what the server's kernel accepted; `tcp`, what the reader's
 * kernel acknowledged; `reader`, what the reader itself acknowledged (src/message/protocol.ts).
 */
export type Ack = "none" | "tcp" | "reader";

export type DeliveryEvent =
  | StreamEvent
  | UnreadEvent
  /** The overflow policy acts for the first time; `passed`: because of that deadline. */
  | { event: "overflow"; policy: Policy; messages: number; backlog: number; passed?: Passed }
  /** Bytes lost at shutdown: the disk was full, and the source cannot send them again. */
  | { event: "lost"; bytes: number }
  /** The reader's window was zero, without progress, for too long: the connection is reset. */
  | { event: "dead"; why: "window"; seconds: number };

export interface DeliveryOptions extends Deadlines {
  policy: Policy;
  /** High watermark: the backlog in memory above which the policy acts; bytes. */
  bound: number;
  /** How much may lie unread at the reader; undefined: as much as the kernel takes. */
  unread?: Unread | undefined;
  /** Infinity: never. */
  zeroWindowTimeoutMs: number;
  ticker: Ticker;
  onEvent: (event: DeliveryEvent) => void;
}
