/** A plan as text. */
import type { Plan, PlanOptions } from "../plan/plan.ts";
import { formatPercent } from "../text/deviation.ts";
import { formatTable } from "../text/table.ts";
import { formatByteRate, formatBytes, formatSeconds } from "../text/units.ts";

/** What was planned for, then the answers, what would help, and other readers. */
export function formatPlan(plan: Plan, options: PlanOptions): string {
  return [formatGiven(plan), formatAnswers(plan, options), formatHelp(plan), formatOthers(plan)]
    .join("\n\n");
}

function formatGiven({ feed, limit, utilisation }: Plan): string {
  const rate = formatByteRate(feed.afterwards);
  const what = feed.bytes === 0
    ? `${rate}, without a peak`
    : `${formatBytes(feed.bytes)} in ${formatSeconds(feed.seconds)}, ` +
      `${feed.peak === null ? "some of it at once" : `at most ${formatByteRate(feed.peak)}`}; ` +
      `then ${rate}`;
  return `feed    ${what}\nreader  ${formatByteRate(limit)}; the feed takes ${
    formatPercent(utilisation)
  } of that in the long run`;
}

function formatAnswers(plan: Plan, options: PlanOptions): string {
  const { backlog, delay, disconnects, collapse, outage, growth } = plan;
  const rows: string[][] = [];
  if (backlog.clearedAt === null) {
    rows.push(["backlog", "grows for ever: as much arrives as the reader can take, or more"]);
  } else if (backlog.largest === 0) {
    rows.push(["largest backlog", "none: the feed is never faster than the reader"]);
  } else {
    rows.push(
      ["largest backlog", `${formatBytes(backlog.largest)}, after ${formatSeconds(backlog.at)}`],
      ["longest delay", formatSeconds(delay!)],
      ["cleared", `${formatSeconds(backlog.clearedAt - backlog.at)} later`],
    );
  }
  if (collapse !== null) {
    const { at, rate, burst, tolerance } = collapse;
    rows.push([
      "reader",
      `collapses after ${formatSeconds(at)}: what came is like a burst of ${
        formatBytes(burst)
      } on top of ` +
      `${formatByteRate(rate)}, and it survives ${formatBytes(tolerance)} there`,
    ]);
  } else if (options.tolerated !== undefined) rows.push(["reader", "does not collapse"]);
  if (disconnects !== null) {
    rows.push([
      "sender",
      `disconnects the reader after ${formatSeconds(disconnects.at)}: ${
        formatCause(disconnects.by, options)
      }`,
    ]);
  } else if (hasSender(options)) rows.push(["sender", "keeps the connection"]);
  if (outage !== null) {
    const cleared = outage.clears === null
      ? "never cleared"
      : `cleared ${formatSeconds(outage.clears)} after the reader is back`;
    rows.push([
      `outage of ${formatSeconds(outage.seconds)}`,
      `${formatBytes(outage.stored)} to store; ${cleared}`,
    ]);
  }
  rows.push(["growth", formatGrowth(growth, options)]);
  const width = Math.max(...rows.map(([name]) => name!.length));
  return rows.map(([name, text]) => `${name!.padEnd(width)}  ${text}`).join("\n");
}

function formatGrowth(growth: number, options: PlanOptions): string {
  const factor = growth.toPrecision(3);
  const what = options.tolerated !== undefined
    ? "the reader collapses, or falls behind for ever"
    : hasSender(options)
    ? "the sender disconnects the reader"
    : "the backlog is never cleared";
  return growth >= 1
    ? `the feed may grow to ${factor} times its size: beyond that, ${what}`
    : `the feed would have to shrink to ${factor} times its size, or ${what}`;
}

const hasSender = (options: PlanOptions) =>
  options.senderBuffer !== undefined || options.senderAfter !== undefined ||
  options.writeDeadline !== undefined;

function formatCause(
  by: NonNullable<Plan["disconnects"]>["by"],
  { senderBuffer, senderAfter, writeDeadline }: PlanOptions,
): string {
  switch (by) {
    case "senderBuffer":
      return `its buffer of ${formatBytes(senderBuffer!)} is full`;
    case "senderAfter":
      return `it has held over ${formatBytes(senderAfter!.bytes)} for ${
        formatSeconds(senderAfter!.seconds)
      }`;
    case "writeDeadline":
      return `what it wrote was not taken within ${formatSeconds(writeDeadline!)}`;
  }
}

function formatHelp({ help, limit }: Plan): string {
  const faster = `a reader of ${formatByteRate(help.limit)}, ${
    (help.limit / limit).toPrecision(3)
  } times as fast`;
  const room = help.backlog === null ? "" : formatBytes(help.backlog);
  switch (help.mostly) {
    case "nothing":
      return "Nothing has to change.";
    case "reader":
      return help.backlog === null
        ? `Only ${faster}, helps: a buffer or a queue only puts off the end.`
        : `What helps most: ${faster}. Also: room for ${room} at the sender.`;
    case "unread":
      return "What helps most: a sender that bounds what lies unread at the reader, as\n" +
        `speedlimit serve --unread auto. It must hold up to ${room}.`;
    case "buffer":
      return `What helps most: a buffer of ${room} at the sender. Also: ${faster}.`;
    case "queue":
      return `What helps most: a queue on disk with room for ${room}, as that of\n` +
        `speedlimit serve --overflow spill. Also: ${faster}.`;
  }
}

function formatOthers({ others }: Plan): string {
  const enough = others.findIndex(({ largest }) => largest === 0);
  return formatTable([
    ["a reader of", "largest backlog", "longest delay"],
    ...others.slice(0, enough < 0 ? undefined : enough + 1).map(({ limit, largest, delay }) => [
      formatByteRate(limit),
      largest === null ? "grows for ever" : formatBytes(largest),
      delay === null ? "" : formatSeconds(delay),
    ]),
  ]);
}
