/**
 * A feed that was recorded: a table of times and bytes or messages, or a log with a time on each line.
 *
 *     time,bytes                         2026-11-29T08:00:00.125Z first message
 *     0,5000000                          2026-11-29T08:00:00.131Z second message
 *     1,5200000
 */
import type { Arrival, Feed } from "./feed.ts";

/** A trace cannot be read. The message is one line: which line, and what would be right. */
export class TraceError extends Error {
  override name = "TraceError";
}

export interface TraceOptions {
  /** Bytes of a message, for a table that counts messages. */
  messageSize?: number;
}

/** What the column of a table with this name has. */
const COLUMNS: Record<string, "time" | "bytes" | "messages"> = {
  ...{ time: "time", seconds: "time", timestamp: "time", date: "time", t: "time" },
  ...{ bytes: "bytes", size: "bytes", length: "bytes" },
  ...{ messages: "messages", count: "messages", lines: "messages" },
};
const SEPARATOR = /[,;\t]/;
const NUMBER = /^\d+(?:\.\d+)?(?:e[+-]?\d+)?$/i;
/** A time at the beginning of a line of a log. */
const STAMP =
  /^\[?((?:\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?(?:Z|[+-]\d\d:?\d\d))?|\d+(?:\.\d+)?)(?=[\]\s,;]|$)/;

/**
 * Reads a trace. A line of a table says what arrived from its time on until that of the next line; the
 * last one lasts as long as the one before it. A line of a log arrives at its time, with its bytes.
 * Lines can be in any order. The feed goes on at its average rate. Throws a TraceError.
 */
export function parseTrace(text: string, options: TraceOptions = {}): Feed {
  const lines = text.split("\n").map((line) => line.replace(/\r$/, ""));
  if (lines.at(-1) === "") lines.pop();
  const first = lines.findIndex((line) => line.trim() !== "");
  if (first < 0) throw new TraceError("it is empty");
  const arrivals = tableColumns(lines[first]!) === undefined
    ? readLog(lines)
    : readTable(lines, first, options);
  const bytes = arrivals.reduce((sum, arrival) => sum + arrival.bytes, 0);
  const last = arrivals.at(-1)!;
  const seconds = last.at + last.seconds;
  if (!(seconds > 0)) throw new TraceError("all of it arrives at one time: it must have two times");
  return { arrivals, afterwards: bytes / seconds };
}

interface Columns {
  time: number;
  amount: number;
  unit: "bytes" | "messages";
  hasHead: boolean;
}

/** The columns of a table, from its first line; undefined: it is not a table. */
function tableColumns(line: string): Columns | undefined {
  const cells = line.split(SEPARATOR).map((cell) => cell.trim().replace(/^"(.*)"$/, "$1"));
  const kinds = cells.map((cell) => COLUMNS[cell.toLowerCase()]);
  const time = kinds.indexOf("time");
  const bytes = kinds.indexOf("bytes");
  const messages = kinds.indexOf("messages");
  if (time >= 0 && bytes >= 0) return { time, amount: bytes, unit: "bytes", hasHead: true };
  if (time >= 0 && messages >= 0) {
    return { time, amount: messages, unit: "messages", hasHead: true };
  }
  if (cells.length === 2 && parseTime(cells[0]!) !== undefined && NUMBER.test(cells[1]!)) {
    return { time: 0, amount: 1, unit: "bytes", hasHead: false };
  }
  return undefined;
}

function readTable(lines: readonly string[], first: number, options: TraceOptions): Arrival[] {
  const { time, amount, unit, hasHead } = tableColumns(lines[first]!)!;
  const { messageSize } = options;
  if (unit === "messages" && messageSize === undefined) {
    throw new TraceError("it counts messages: their size must be given, with --size");
  }
  const rows: { at: number; bytes: number }[] = [];
  for (let i = hasHead ? first + 1 : first; i < lines.length; i++) {
    if (lines[i]!.trim() === "") continue;
    const cells = lines[i]!.split(SEPARATOR).map((cell) => cell.trim().replace(/^"(.*)"$/, "$1"));
    const at = parseTime(cells[time] ?? "");
    const count = NUMBER.test(cells[amount] ?? "") ? Number(cells[amount]) : undefined;
    if (at === undefined || count === undefined) {
      throw new TraceError(`line ${i + 1} must have a time and a number of ${unit}`);
    }
    rows.push({ at, bytes: count * (unit === "bytes" ? 1 : messageSize!) });
  }
  if (rows.length < 2) throw new TraceError("it must have two lines with a time");
  rows.sort((a, b) => a.at - b.at);
  const origin = rows[0]!.at;
  const arrivals: Arrival[] = [];
  rows.forEach(({ at, bytes }, i) => {
    const next = rows[i + 1]?.at;
    const seconds = next === undefined ? arrivals.at(-1)!.seconds : next - at;
    arrivals.push({ at: at - origin, seconds, bytes });
  });
  return arrivals;
}

function readLog(lines: readonly string[]): Arrival[] {
  const arrivals: { at: number; seconds: number; bytes: number }[] = [];
  const encoder = new TextEncoder();
  let at: number | undefined;
  for (const [i, line] of lines.entries()) {
    const stamp = STAMP.exec(line)?.[1];
    const time = stamp === undefined ? undefined : parseTime(stamp);
    // A line without a time belongs to the message before it.
    at = time ?? at;
    if (at === undefined) {
      throw new TraceError(
        `line ${i + 1} must begin with a time, or be the head of a table such as time,bytes`,
      );
    }
    arrivals.push({ at, seconds: 0, bytes: encoder.encode(line).length + 1 });
  }
  arrivals.sort((a, b) => a.at - b.at);
  const origin = arrivals[0]!.at;
  return arrivals.map((arrival) => ({ ...arrival, at: arrival.at - origin }));
}

/** Seconds: a number, an ISO 8601 date and time (without a zone: UTC), or a time of day. */
function parseTime(text: string): number | undefined {
  if (NUMBER.test(text)) return Number(text);
  const plain = text.replace(",", ".");
  const day = /^(\d\d):(\d\d):(\d\d(?:\.\d+)?)$/.exec(plain);
  if (day !== null) return Number(day[1]) * 3600 + Number(day[2]) * 60 + Number(day[3]);
  const [, date, clock, fraction = "", zone = "Z"] =
    /^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d+)? ?(Z|[+-]\d\d:?\d\d)?$/.exec(plain) ?? [];
  if (date === undefined) return undefined;
  const whole = Date.parse(`${date}T${clock}${zone.replace(/^(...)(\d\d)$/, "$1:$2")}`);
  // Date has ms; a trace may have ns.
  return Number.isNaN(whole) ? undefined : whole / 1000 + Number(`0${fraction}`);
}
