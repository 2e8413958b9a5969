/** The options of a relay, and its events. */
import type { Queue } from "../queue/queue.ts";
import type { Deadlines } from "../send/deadlines.ts";
import type { Policy } from "../send/overflow.ts";
import type { Ticker } from "../send/pacer.ts";
import type { Unread } from "../send/unread.ts";
import type { Source, SourceEvent } from "../source/source.ts";
import type { Ack, DeliveryEvent } from "./delivery_options.ts";
import type { WhenFull } from "./stream_event.ts";

/**
 * How a reader that reconnects is recognized: `single`, there is only one reader; `address`, by its
 * IP address; `hello`, by the name in its first line.
 */
export type ReaderId = "single" | "address" | "hello";

export type RelayEvent =
  /** A reader has said its name, and is served: only where readers are recognized by it. */
  | { event: "named"; reader: number; name: string }
  | ({ reader: number; name: string } & DeliveryEvent)
  | { event: "sent"; reader: number; messages: number }
  /** A reader violated the acknowledgement protocol: its connection is reset. */
  | { event: "protocol"; reader: number; name: string; error: string }
  | { event: "source"; what: SourceEvent }
  /** The source is another stream than before a restart, or a reconnection: it was replaced. */
  | { event: "source-replaced"; before: string; now: string };

export interface RelayOptions extends Deadlines {
  policy: Policy;
  /** High watermark: the backlog above which a reader is served from disk, or the policy acts; bytes. */
  bound: number;
  /** Low watermark: the backlog at which a reader is served from memory again; bytes. */
  resumeBelow: number;
  /** What happens to new messages that a full queue cannot store. */
  whenFull: WhenFull;
  /** Every message is stored before it is delivered. */
  durable: boolean;
  /** Messages on disk are deleted after this time, delivered or not; ms, default never. */
  retainMs?: number | undefined;
  /** What all streams may take in memory; bytes. */
  memory: number;
  /** Where a reader begins that has never come before. */
  start: "now" | "oldest";
  /** Readers with new names are refused beyond this number. */
  mostNames: number;
  /** How much may lie unread at a reader; default: as much as the kernel takes. */
  unread?: Unread | undefined;
  /** Infinity: never. */
  zeroWindowTimeoutMs: number;
  /** Default: `reader` if it sends a `resume` line, else `tcp` where available, else `none`. */
  ack?: Ack | undefined;
  /** Creates the source: once if it is shared by all readers, else once for each. */
  source: () => Source;
  shared: boolean;
  /** There is no source: only what is in the queue is delivered. */
  sourceless: boolean;
  /** The source can resume at a position after a restart. */
  replayable: boolean;
  /** The source is stopped this long after its start; ms, default never. */
  endsAfterMs?: number | undefined;
  /** How often `sent` is reported for each reader; ms, default never. */
  sentEveryMs?: number | undefined;
  queue?: Queue | undefined;
  readerId: ReaderId;
  /** Time limit for a reader's handshake; ms. */
  handshakeTimeoutMs: number;
  /** Read and discard what a reader sends, unless it acknowledges. */
  drainReplies: boolean;
  /** Start of the message that contains byte `offset`; `bytes` begin at a message's start. */
  floor: (bytes: Uint8Array, offset: number) => number;
  ticker: Ticker;
  onEvent: (event: RelayEvent) => void;
}
