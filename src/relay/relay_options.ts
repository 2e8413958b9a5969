/** The options of a relay, and its events. */
import type { Queue } from "../queue/queue.ts";
import type { Source, SourceEvent } from "../source/source.ts";
import type { Ack, DeliveryEvent, DeliveryOptions } from "./delivery_options.ts";

/**
 * How a reader that reconnects is recognized: `single`, there is only one reader; `address`, by its
 * IP address; `hello`, by the name in its first line.
 */
export type ReaderId = "single" | "address" | "hello";

export type RelayEvent =
  | ({ reader: number; name: string } & DeliveryEvent)
  | { event: "sent"; reader: number; messages: number }
  /** A reader violated the acknowledgement protocol: its connection is reset. */
  | { event: "protocol"; reader: number; name: string; error: string }
  | { event: "source"; what: SourceEvent };

export interface RelayOptions extends Omit<DeliveryOptions, "queue" | "onEvent" | "onError"> {
  /** Default: `reader` if it sends a `resume` line, else `tcp` where available, else `none`. */
  ack?: Ack | undefined;
  /** Creates the source: once if it is shared by all readers, else once for each. */
  source: () => Source;
  shared: boolean;
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
  onEvent: (event: RelayEvent) => void;
}
