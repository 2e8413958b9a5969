/** The interface between `serve` and what sends messages to its readers: floods, or a relay. */
import type { Closed, Connection } from "../net/net.ts";
import type { ServerFigures } from "./figures.ts";
import type { Rejection } from "./rejection.ts";

/** What was sent to one reader. */
export interface ReaderTotals {
  /** Whole messages that the server's kernel accepted. */
  messages: number;
  /** Bytes that the server's kernel accepted. */
  bytes: number;
  /** Messages dropped by the overflow policy or by a full queue. */
  dropped: number;
  /** How often the overflow policy acted. */
  overflows: number;
  /** Time from connect to close. */
  seconds: number;
}

/** What was sent on one connection, and how it ended. */
export interface ConnectionTotals extends Omit<ReaderTotals, "seconds"> {
  closed: Closed;
  /** Of the reader, where it is known. */
  name?: string;
  /** Why the server rejected it: one line, and the kind of reason. */
  refused?: string;
  why?: Rejection;
  /** The number of the connection that took over: another one of the same reader. */
  replacedBy?: number;
}

/** Sends messages to the readers of a server. */
export interface Feeder {
  /** Settles when there are no more messages, or after `stop`; connections may still be open. */
  readonly done: Promise<void>;
  /** Messages that were dropped while their readers were not connected. */
  readonly droppedWhileAbsent?: number;
  /** As of now. Costs some µs for each reader. */
  figures(): ServerFigures;
  /** Starts what does not need a connected reader, such as a shared source. */
  start?(): Promise<void>;
  /** Sends messages on a connection until it ends, and closes it. */
  feed(connection: Connection, reader: number): Promise<ConnectionTotals>;
  /**
   * Ends all connections: within 1 s in order where what readers send is read, else at once. May be
   * called twice.
   */
  stop(): void;
}
