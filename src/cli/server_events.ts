/** Prints a server's events as text. */
import { formatFrame } from "../message/frame.ts";
import type { Frame } from "../message/framer.ts";
import type { Passed } from "../send/deadlines.ts";
import { policyOf } from "../send/overflow.ts";
import { runtime } from "../kernel/runtime.ts";
import { infoLine, logLine } from "./program.ts";
import type { ServeEvent } from "../relay/serve_event.ts";
import type { GapWhy } from "../relay/stream_event.ts";
import type { SourceEvent } from "../source/source.ts";
import { printable } from "../text/printable.ts";
import {
  formatByteRate,
  formatBytes,
  formatCount,
  formatHostPort,
  formatSeconds,
} from "../text/units.ts";

/** What a server sends, either a flood or messages of a source, and its overflow policy. */
export interface ServerDescription {
  /** Bytes of a message, and messages a second. */
  flood?: { size: number; rate: number };
  /** `name`: as on the command line. */
  source?: { name: string; frame: Frame };
  policy: string;
  /** Readers are recognized by names (--reader-id): lines have them beside the numbers. */
  named: boolean;
}

/** Prints an event as one line: what did not work goes to standard error. */
export function printEvent(event: ServeEvent, server: ServerDescription): void {
  // Of what happens to a connection.
  const connection = (of: { reader: number; name?: string }) =>
    server.named && of.name !== undefined
      ? `reader ${of.reader} (${of.name})`
      : `reader ${of.reader}`;
  // Of what happens to a reader, connected or not, or to all.
  const reader = (of: { reader: number; name: string }) =>
    server.named && of.reader > 0 ? connection(of) : of.name;
  switch (event.event) {
    case "listening":
      return infoLine(
        `listening on ${formatHostPort(event)} (${runtime}): ${describe(server)}, ` +
          `on overflow ${server.policy}`,
      );
    case "connecting":
      return infoLine(
        `connecting to ${formatHostPort(event)} (${runtime}): ${describe(server)}, ` +
          `on overflow ${server.policy}`,
      );
    case "unreachable":
      return logLine(
        `cannot connect to ${formatHostPort(event)} (${event.error}); trying again in ` +
          formatSeconds(event.inMs / 1000),
      );
    case "reader":
      return infoLine(`reader ${event.reader} connected from ${formatHostPort(event)}`);
    case "named":
      return infoLine(`reader ${event.reader} is ${event.name}`);
    case "refused":
      return logLine(`rejected ${formatHostPort(event)}: ${refusedWhy(event)}`);
    case "accept-failed": {
      const what = event.error === "EMFILE"
        ? "too few file descriptors (raise ulimit -n)"
        : `accept failed (${event.error})`;
      return logLine(`${what}: ${event.count} connections were not accepted`);
    }
    case "overflow":
      return infoLine(`${connection(event)}: ${overflowLine(event)}`);
    case "held":
      return logLine(
        `${connection(event)}: takes only ${formatByteRate(event.rate)}, after ` +
          `${formatByteRate(event.usual)} before: it is sent nothing until it has read the ` +
          `${formatBytes(event.unread)} that it has`,
      );
    case "released":
      return infoLine(
        `${connection(event)}: has read them after ${formatSeconds(event.seconds)}: sending again`,
      );
    case "spilling":
      return infoLine(
        `${reader(event)}: ${
          event.why === "absent" ? "is not connected" : `backlog of ${formatBytes(event.backlog)}`
        }: storing to disk from now on`,
      );
    case "caught-up":
      return infoLine(
        `${reader(event)}: caught up: delivering from memory again` +
          (event.spilled > 0 ? ` after ${formatBytes(event.spilled)} through the disk` : ""),
      );
    case "queue-full": {
      const why = event.why === "max" ? "the queue has reached --spill-max" : "the disk is full";
      const then = {
        block: "the source has to wait",
        "drop-newest": "dropping new messages",
        "drop-oldest": "dropping the oldest messages",
      }[event.then];
      return logLine(`${reader(event)}: ${why}: ${then}`);
    }
    case "queue-room":
      return logLine(
        `${reader(event)}: the queue has room again` +
          (event.dropped > 0 ? `; ${event.dropped} messages were dropped` : ""),
        "info",
      );
    case "gap":
      if (event.why === "repair") {
        return logLine(
          `${event.name}: gap: the offsets from ${event.from} to ${event.to} were skipped when the queue was ` +
            "repaired: nobody knows whether they had messages, perhaps nothing was lost",
        );
      }
      return logLine(
        `${reader(event)}: gap: ${event.atMost ? "at most " : ""}` +
          `${formatBytes(event.to - event.from)} from offset ${event.from} on are not delivered: ` +
          (event.why === undefined ? "they are neither in memory nor on disk" : GAP_WHY[event.why]),
        "error",
      );
    case "lost":
      return logLine(
        `${reader(event)}: ${formatBytes(event.bytes)} are lost: there was no room on disk`,
        "error",
      );
    case "dead":
      return logLine(
        event.why === "window"
          ? `${reader(event)}: window was zero for ${formatSeconds(event.seconds)}: ` +
            "resetting the connection"
          : `${connection(event)}: its host has answered nothing for ` +
            `${formatSeconds(event.seconds)}: resetting the connection`,
      );
    case "protocol":
      return logLine(
        `${connection(event)}: protocol error, resetting the connection: ${event.error}`,
      );
    case "source":
      return printSourceEvent(event.what, server.source?.name ?? "flood");
    case "source-replaced":
      return logLine(
        `${server.source?.name ?? "source"}: it was replaced: its stream was ${event.before} and ` +
          `is now ${event.now}, which is read from its beginning on`,
      );
    case "closed": {
      const seconds = formatSeconds(event.seconds);
      const who = connection(event);
      if (event.refused !== undefined) {
        return logLine(`${who}: rejected after ${seconds}: ${event.refused}`);
      }
      const line = `${who}: ${closedLine(event)} after ${seconds}: ` +
        `${event.messages} messages, ${formatBytes(event.bytes)}` +
        (event.dropped > 0 ? `, ${event.dropped} dropped` : "");
      return event.error === undefined ? infoLine(line) : logLine(line);
    }
    case "done":
      return infoLine(
        `done: ${event.readers} readers, ${event.messages} messages` +
          (event.dropped > 0 ? `, ${event.dropped} dropped` : ""),
      );
  }
}

function describe({ flood, source }: ServerDescription): string {
  if (flood === undefined) {
    const { name, frame } = source!;
    return `${frame.kind === "none" ? "bytes" : `${formatFrame(frame)} messages`} from ${name}`;
  }
  const { size, rate } = flood;
  const pace = rate === Infinity
    ? "as fast as possible"
    : `${formatCount(rate)}/s (${formatByteRate(rate * size)})`;
  return `${formatBytes(size)} messages at ${pace} to each reader`;
}

function printSourceEvent(event: SourceEvent, name: string): void {
  const lost = "discarded" in event && event.discarded > 0
    ? `; dropped ${formatBytes(event.discarded)} of an incomplete message`
    : "";
  switch (event.event) {
    case "connected":
      if (!event.missed) return infoLine(`${name}: connected`);
      return logLine(
        `${name}: connected: it no longer has ${formatBytes(event.missed)}, which are lost`,
        "error",
      );
    case "opened":
      // Of another file than before there is an event of its own.
      return;
    case "disconnected":
      return logLine(
        event.reason === "local"
          ? `${name}: disconnected by this server${lost}`
          : `${name}: disconnected (${event.errno ?? event.reason})${lost}`,
      );
    case "retrying":
      return logLine(
        `${event.error ?? name}: retrying in ${formatSeconds(event.inMs / 1000)}`,
      );
    case "bad-frame": {
      const { then, count, reason } = event;
      // Else the server ends, with the same reason.
      if (then === "stop") return;
      const what = then === "skip" ? `skipped (${count} so far)` : "reconnecting";
      return logLine(`${name}: ${reason}: ${what}`);
    }
    case "ended":
      return infoLine(`${name}: ended${lost}`);
  }
}

function refusedWhy({ why, readers }: ServeEvent & { event: "refused" }): string {
  if (why === "allow") return "its address is not one of --allow";
  return why === "end" ? "the server is ending" : `${readers} readers are connected already`;
}

const GAP_WHY: Readonly<Record<Exclude<GapWhy, "repair">, string>> = {
  drop: "they were dropped (--overflow drop or drop-oldest)",
  "drop-newest": "they were dropped, since the queue was full (--spill-full drop-newest)",
  "drop-oldest": "they were deleted to make room (--spill-full drop-oldest)",
  retain: "they were older than --retain",
  damage: "they are damaged on disk",
  killed: "they were only in memory when a server was killed",
  source: "the source has lost them",
};

const PASSED: Readonly<Record<Passed, string>> = {
  after: "backlog too large for too long (--after)",
  writeDeadline: "what was written was not taken in time (--write-deadline)",
};

/** The first overflow of a reader, as one clause. */
export function overflowLine(event: ServeEvent & { event: "overflow" }): string {
  const { policy, messages, backlog, passed } = event;
  const why = passed === undefined ? "send buffer full" : PASSED[passed];
  return `${why}, ${policyOf(policy).doing} after ${messages} messages` +
    (backlog > 0 && backlog < Infinity ? `, backlog ${formatBytes(backlog)}` : "");
}

/** How a connection ended, as one clause. */
export function closedLine(event: ServeEvent & { event: "closed" }): string {
  const { reason, errno, refused, replacedBy, error } = event;
  if (error !== undefined) return `closed because of an error: ${printable(error)}`;
  if (refused !== undefined) return `rejected: ${refused}`;
  if (replacedBy !== undefined) return `replaced by reader ${replacedBy}`;
  if (reason === "local") return "closed by the server";
  return reason === "eof" ? "closed by the reader" : `ended by ${reason} (${errno})`;
}
