/** The results of `limit` as a table of text. */
import { formatTable } from "../text/table.ts";
import { formatByteRate, formatCount, formatSeconds } from "../text/units.ts";
import { CONFIRMED, highestKeptUp, type LimitResult } from "../measure/limit_result.ts";

/** Formats two rates with one unit: `19.98-20.17 MB/s`. Bytes a second. */
export function formatInterval(lower: number, upper: number): string {
  const [, unit = ""] = formatByteRate(upper).split(" ");
  const scale = { "B/s": 1, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9, "TB/s": 1e12 }[unit] ?? 1;
  // One digit more than is needed for the two to differ.
  const digits = Math.max(0, Math.ceil(-Math.log10((upper - lower) / scale)) + 1);
  const show = (rate: number) => (rate / scale).toFixed(Math.min(digits, 6));
  return `${show(lower)}-${show(upper)} ${unit}`;
}

const HEAD = ["reader", "speed limit", "messages", "offered twice that", "then at half of it"];

function row(result: LimitResult): string[] {
  const { reader, readers, outcome, limit, overload, recovery } = result;
  const name = readers === 1 ? reader : `${readers} x ${reader}`;
  const keepsUpAt = highestKeptUp(result.trials);
  const speedLimit = limit !== null
    ? formatInterval(limit.lower, limit.upper)
    : outcome === "generator-limited" || outcome === "path-limited"
    ? `above ${formatByteRate(keepsUpAt)}`
    : result.interrupted && keepsUpAt > 0
    ? `above ${formatByteRate(keepsUpAt)}?`
    : "-";
  return [
    name,
    speedLimit,
    limit === null ? "-" : `${formatCount(Math.round(limit.messagesPerSecond))}/s`,
    overload === null
      ? "-"
      : `drains ${formatByteRate(overload.drained)}${overload.collapsed ? ": collapsed" : ""}`,
    recovery === null
      ? "-"
      : recovery.recovered
      ? `clears in ${formatSeconds(recovery.seconds)}`
      : "does not recover",
  ];
}

/** A table with one row for each reader, followed by notes on results that need an explanation. */
export function formatLimits(results: readonly LimitResult[]): string {
  const rows = [HEAD, ...results.map(row)];
  const lines = [formatTable(rows)];
  for (const result of results) {
    const { reader, outcome, message, interrupted } = result;
    const { firstBehind, readers, limit, queueSource } = result;
    if (interrupted) lines.push(`${reader}: ${message}`);
    else if (message !== CONFIRMED) lines.push(`${reader}: ${outcome}: ${message}`);
    if (firstBehind !== undefined) {
      lines.push(`${reader}: reader ${firstBehind + 1} of ${readers} fell behind first`);
    }
    if (limit !== null && result.until === "taken") {
      lines.push(
        `${reader}: only what it takes from its socket was measured, not whether it finishes its work`,
      );
    }
    if (limit !== null && queueSource !== "socket") {
      lines.push(
        queueSource === "window"
          ? `${reader}: the reader is on another host, so its receive queue was estimated from its ` +
            "window, which does not show a backlog below 128 KiB"
          : `${reader}: the reader's receive queue could not be measured, so the limit may be lower`,
      );
    }
  }
  const { environment, seconds } = results.at(-1)!;
  const total = results.reduce((sum, result) => sum + result.seconds, 0) || seconds;
  lines.push(
    "",
    `${formatSeconds(total)}, ${results.reduce((n, r) => n + r.trials.length, 0)} trials; ` +
      `server on ${environment.runtime}; ${environment.cores} x ${environment.cpu}, ` +
      `${environment.kernel}, ${environment.congestionControl ?? "unknown congestion control"}`,
  );
  return lines.join("\n");
}
