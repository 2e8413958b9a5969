/** The contract between `serve` and what feeds its readers: floods, or a relay. */
import type { Closed, Connection } from "../net/net.ts";

/** What was sent to one reader. */
export interface ReaderTotals {
  /** Whole messages that the kernel accepted. */
  messages: number;
  /** Bytes that it accepted. */
  bytes: number;
  /** Messages that the policy dropped, or a full queue. */
  dropped: number;
  /** How often the policy had to act. */
  overflows: number;
  /** From its connection to its end. */
  seconds: number;
}

/** What one connection came to, and how it ended. */
export interface ConnectionTotals extends Omit<ReaderTotals, "seconds"> {
  closed: Closed;
  /** Why it was not let in. */
  refused?: string;
}

/** What feeds the readers of a server. */
export interface Feeder {
  /** Settles when it has no more to give, or has been stopped; connections may still end. */
  readonly done: Promise<void>;
  /** Messages that were dropped while their readers were away. */
  readonly droppedAway?: number;
  /** Begins what does not wait for a reader. */
  start?(): Promise<void>;
  /** Feeds a connection until it ends, and closes it. */
  feed(connection: Connection, reader: number): Promise<ConnectionTotals>;
  /** Hangs up on all. May be called twice. */
  stop(): void;
}
