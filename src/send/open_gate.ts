/** Chooses how a connection's reader is kept from having too much unread. */
import type { Connection } from "../net/net.ts";
import { PacedGate } from "./paced_gate.ts";
import { type Gate, type Unread, type UnreadEvent, UnreadGate } from "./unread.ts";
import { ReadView, seesFar, WindowView } from "./unread_view.ts";

export interface GateOptions {
  connection: Connection;
  unread: Unread;
  /** Bytes that were written on the connection before. */
  written?: number;
  /** What the reader itself has not acknowledged yet, if it does; bytes. */
  unacknowledged?: (() => number) | undefined;
  /** Called in a tick, when there is room again. */
  wake: () => void;
  onEvent?: (event: UnreadEvent) => void;
}

/**
 * By what the reader's program has read, where its socket is on this host; else by what the reader
 * acknowledges; else by its window, which shows less.
 */
export function openGate(options: GateOptions): Gate {
  const { connection, unread, written = 0, unacknowledged, wake, onEvent } = options;
  const how = { wake, ...(onEvent === undefined ? {} : { onEvent }) };
  if (seesFar(connection) || unacknowledged !== undefined) {
    const view = new ReadView(connection, written, unacknowledged);
    return new UnreadGate({ ...how, unread, view });
  }
  const view = new WindowView(connection, written);
  return unread === "auto"
    ? new PacedGate({ ...how, view })
    : new UnreadGate({ ...how, unread, view });
}
