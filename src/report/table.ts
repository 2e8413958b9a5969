/** The tables of a report: their rows, for a terminal and for a page. */
import { formatPercent } from "../text/deviation.ts";
import { formatByteRate, formatCount, formatSeconds } from "../text/units.ts";
import { formatPercentiles, LATENCY_HEAD as PERCENTILE_NAMES } from "../read/latency.ts";
import { formatMessageSize, type ReaderReport, type SenderReport } from "./report.ts";
import { formatEstimate } from "./text_curve.ts";

/** A cell: its text, and the key that it is sorted by, which is absent where there is no value. */
export interface TableCell {
  text: string;
  sort?: number | string;
}

export const READER_HEAD = [
  "reader",
  "message",
  "speed limit",
  "messages",
  "offered twice that",
  "then at half of it",
] as const;

/** The row of one reader. */
export function readerCells(reader: ReaderReport): TableCell[] {
  const { name, size, limit, overload, recovery } = reader;
  const none = { text: "-" };
  return [
    { text: name, sort: name },
    { text: formatMessageSize(size), sort: size },
    limit === null ? none : { text: formatEstimate(limit), sort: limit.middle },
    limit === null ? none : {
      text: `${formatCount(Math.round(limit.lower / size))}/s`,
      sort: limit.lower / size,
    },
    overload === null ? none : {
      text: `drains ${formatByteRate(overload.drained)}${overload.collapsed ? ": collapsed" : ""}`,
      sort: overload.drained,
    },
    recovery === null ? none : {
      text: recovery.recovered
        ? `clears in ${formatSeconds(recovery.seconds)}`
        : "does not recover",
      sort: recovery.recovered ? recovery.seconds : Infinity,
    },
  ];
}

export const LATENCY_HEAD: readonly string[] = [
  "reader",
  "message",
  "offered",
  "of the limit",
  ...PERCENTILE_NAMES,
];

/** Explains the figures in the table of latencies. */
export const LATENCY_METHOD =
  "latency is measured from the planned send to the read (corrected for coordinated omission), and " +
  "includes the sender's tick of 1 ms";

/** One row for each offered rate. */
export function latencyRows({ name, size, latency = [] }: ReaderReport): TableCell[][] {
  return latency.map(({ rate, share, ...percentiles }) => {
    const { p50, p90, p99, p999, p9999, max } = percentiles;
    const sorts = [p50, p90, p99, p999, p9999, max];
    return [
      { text: name, sort: name },
      { text: formatMessageSize(size), sort: size },
      { text: formatByteRate(rate), sort: rate },
      share === null ? { text: "-" } : { text: formatPercent(share), sort: share },
      ...formatPercentiles(percentiles).map((text, i) => ({ text, sort: sorts[i]! })),
    ];
  });
}

export const SENDER_HEAD = ["sender", "message", "rate", "messages"] as const;

/** The row of one sender. */
export function senderCells({ name, size, rate }: SenderReport): TableCell[] {
  const none = { text: "-" };
  return [
    { text: name, sort: name },
    { text: formatMessageSize(size), sort: size },
    rate === null ? none : { text: formatEstimate(rate), sort: rate.middle },
    rate === null ? none : {
      text: `${formatCount(Math.round(rate.middle / size))}/s`,
      sort: rate.middle / size,
    },
  ];
}

/** The notes on readers and senders, one line each. */
export function notesOf(
  rows: readonly { name: string; size: number; note?: string }[],
): string[] {
  return rows.flatMap(({ name, size, note }) =>
    note === undefined ? [] : [`${name}, ${formatMessageSize(size)} messages: ${note}`]
  );
}
