/** What happens in a server's life, as lines for people. */
import { formatFrame, type Frame } from "../message/frame.ts";
import { policyOf } from "../send/overflow.ts";
import { runtime } from "../kernel/runtime.ts";
import { print, report } from "./program.ts";
import type { ServeEvent } from "../relay/serve_event.ts";
import type { SourceEvent } from "../source/source.ts";
import {
  formatByteRate,
  formatBytes,
  formatCount,
  formatHostPort,
  formatSeconds,
} from "../text/units.ts";

/** What a server sends, and what it does when it cannot. */
export interface ServerDescription {
  /** Bytes of a message, and messages a second, where it floods. */
  flood?: { size: number; rate: number };
  /** As it was given, where it passes on. */
  source?: { name: string; frame: Frame };
  policy: string;
}

/** Prints an event as a line; what went wrong goes to standard error. */
export function tellPeople(event: ServeEvent, server: ServerDescription): void {
  switch (event.event) {
    case "listening":
      return print(
        `listening on ${formatHostPort(event)} (${runtime}): ${describe(server)}, ` +
          `on overflow ${server.policy}`,
      );
    case "reader":
      return print(`reader ${event.reader} connected from ${formatHostPort(event)}`);
    case "refused":
      return report(`refused ${formatHostPort(event)}: ${event.readers} readers are here already`);
    case "overflow":
      return print(`reader ${event.reader}: ${overflowLine(event)}`);
    case "spilling":
      return print(`${event.name}: to disk from now on, ${formatBytes(event.backlog)} waiting`);
    case "caught-up":
      return print(`${event.name}: from memory again, ${formatBytes(event.spilled)} went to disk`);
    case "queue-full": {
      const why = event.why === "max" ? "the queue has reached --spill-max" : "the disk is full";
      const then = event.then === "block" ? "the source has to wait" : "dropping what is new";
      return report(`${event.name}: ${why}: ${then}`);
    }
    case "queue-room":
      return report(
        `${event.name}: the queue takes more again` +
          (event.dropped > 0 ? `, ${event.dropped} messages were dropped meanwhile` : ""),
      );
    case "gap":
      return report(
        `${event.name}: ${formatBytes(event.to - event.from)} are missing, from offset ` +
          `${event.from} on: no disk and no memory has them`,
      );
    case "lost":
      return report(
        `${event.name}: ${formatBytes(event.bytes)} found no room on disk, and are lost`,
      );
    case "dead":
      return report(
        `${event.name}: dead, its window was zero for ${formatSeconds(event.seconds)}; resetting`,
      );
    case "protocol":
      return report(`resetting a reader: ${event.error}`);
    case "source":
      return tellSource(event.what, server.source?.name ?? "flood");
    case "closed":
      return print(
        `reader ${event.reader}: ${closedLine(event)} after ${formatSeconds(event.seconds)}: ` +
          `${event.messages} messages, ${formatBytes(event.bytes)}` +
          (event.dropped > 0 ? `, ${event.dropped} dropped` : ""),
      );
    case "done":
      return print(
        `done: ${event.readers} readers, ${event.messages} messages` +
          (event.dropped > 0 ? `, ${event.dropped} dropped` : ""),
      );
  }
}

function describe({ flood, source }: ServerDescription): string {
  if (flood === undefined) return `${source!.name}, ${formatFrame(source!.frame)} messages`;
  const { size, rate } = flood;
  const pace = rate === Infinity
    ? "as fast as it goes"
    : `${formatCount(rate)}/s (${formatByteRate(rate * size)})`;
  return `${formatBytes(size)} messages at ${pace} to each reader`;
}

function tellSource(event: SourceEvent, name: string): void {
  const lost = "discarded" in event && event.discarded > 0
    ? `, ${formatBytes(event.discarded)} of a message that did not end are dropped`
    : "";
  switch (event.event) {
    case "connected":
      return print(`${name}: connected`);
    case "disconnected":
      return report(`${name}: the connection ended (${event.errno ?? event.reason})${lost}`);
    case "retrying":
      return report(
        `${event.error ?? name}: connecting again in ${formatSeconds(event.inMs / 1000)}`,
      );
    case "ended":
      return print(`${name}: ended${lost}`);
  }
}

/** The policy acts for the first time, as one clause. */
export function overflowLine(event: ServeEvent & { event: "overflow" }): string {
  const { policy, messages, backlog } = event;
  return `send buffer full, ${policyOf(policy).doing} after ${messages} messages` +
    (backlog > 0 && backlog < Infinity ? `, ${formatBytes(backlog)} waiting` : "");
}

/** How a connection ended, as one clause. */
export function closedLine({ reason, errno, refused }: ServeEvent & { event: "closed" }): string {
  if (refused !== undefined) return `turned away (${refused})`;
  if (reason === "local") return "closed by us";
  return reason === "eof" ? "closed by it" : `ended by ${reason} (${errno})`;
}
