/** The events of a server, also printed as JSON lines with `--json`. */
import type { Closed } from "../net/net.ts";
import type { Passed } from "../send/deadlines.ts";
import type { Policy } from "../send/overflow.ts";
import type { UnreadEvent } from "../send/unread.ts";
import type { ReaderTotals } from "./feeder.ts";
import type { Rejection } from "./rejection.ts";
import type { RelayEvent } from "./relay_options.ts";

/**
 * An event of a server. `reader` counts from 1; `time`: seconds since `serve` was called. Of a
 * reader that was closed: `name`, where it is known; `refused`, why it was not served, and `why`, the kind of
 * that; `replacedBy`, the number of the connection with which it took over itself; `error`, what failed on
 * our side.
 */
export type ServeEvent =
  & { time: number }
  & (
    | { event: "listening"; host: string; port: number }
    /** It connects to a reader that listens there, instead of listening itself. */
    | { event: "connecting"; host: string; port: number }
    /** That could not be done, with this errno's name; it tries again in `inMs`. */
    | { event: "unreachable"; host: string; port: number; error: string; inMs: number }
    | { event: "reader"; reader: number; host: string; port: number }
    | {
      event: "refused";
      host: string;
      port: number;
      /** `allow`: its address is not allowed; `readers`: there are too many; `end`: the server ends. */
      why: "allow" | "readers" | "end";
      /** Those that are connected. */
      readers: number;
    }
    /**
     * The limit of open descriptors was reached: `count` connections were closed, or could not be
     * accepted yet, since the last such event, at least a second ago. `error`: the errno's name.
     */
    | { event: "accept-failed"; error: string; count: number }
    | { event: "sent"; reader: number; messages: number }
    | {
      event: "overflow";
      reader: number;
      policy: Policy;
      messages: number;
      backlog: number;
      passed?: Passed;
    }
    | ({ reader: number } & UnreadEvent)
    /** The reader's host has answered nothing for too long: the connection is reset. */
    | { event: "dead"; reader: number; why: "silent"; seconds: number }
    | RelayEvent
    | (
      & { event: "closed"; reader: number; name?: string }
      & { refused?: string; why?: Rejection; replacedBy?: number; error?: string }
      & ReaderTotals
      & Closed
    )
    | ({ event: "done" } & ServeResult)
  );

/** Totals of a server; `dropped` includes messages whose reader was not connected. */
export interface ServeResult extends ReaderTotals {
  /** Connections accepted. */
  readers: number;
}

export type UntimedEvent = ServeEvent extends infer E
  ? E extends { time: number } ? Omit<E, "time"> : never
  : never;
