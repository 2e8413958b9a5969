/** What happens in a server's life, as an event or as a JSON line. */
import type { Closed } from "../net/net.ts";
import type { Policy } from "../send/overflow.ts";
import type { ReaderTotals } from "./feeder.ts";
import type { RelayEvent } from "./relay.ts";

/** What happens in a server's life. `reader` counts from 1; `time` is in seconds since it listens. */
export type ServeEvent =
  & { time: number }
  & (
    | { event: "listening"; host: string; port: number }
    | { event: "reader"; reader: number; host: string; port: number }
    | { event: "refused"; host: string; port: number; readers: number }
    | { event: "sent"; reader: number; messages: number }
    | { event: "overflow"; reader: number; policy: Policy; messages: number; backlog: number }
    | RelayEvent
    | ({ event: "closed"; reader: number; refused?: string } & ReaderTotals & Closed)
    | ({ event: "done" } & ServeResult)
  );

/** All of a server's life; `dropped` counts those, too, whose reader was away. */
export interface ServeResult extends ReaderTotals {
  /** Readers that came. */
  readers: number;
}

/** Without its time. */
export type UntimedEvent = ServeEvent extends infer E
  ? E extends { time: number } ? Omit<E, "time"> : never
  : never;
