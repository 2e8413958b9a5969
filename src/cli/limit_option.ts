/** The option --limit of commands that need a limit: a rate, or a result of `limit --json`. */
import { readResults } from "../report/report.ts";
import { parseRate, type Rate, UnitError } from "../text/units.ts";
import { option, UsageError } from "./command_line.ts";

/** A rate that is a number. */
export type FiniteRate = Exclude<Rate, "max">;

export const LIMIT_OPTION = option({
  value: "RATE|FILE",
  help: "the limit of the reader, or a result of limit --json",
  parse: (text) => text,
});

/** Like `parseRate`, but not `max`. Throws a UnitError. */
export function parseFiniteRate(text: string): FiniteRate {
  const expected = "must be a rate such as 5MB/s, or 1000/s (messages)";
  let rate: Rate;
  try {
    rate = parseRate(text);
  } catch (error) {
    throw error instanceof UnitError ? new UnitError(expected) : error;
  }
  if (rate === "max") throw new UnitError(expected);
  return rate;
}

/** In bytes a second. Throws a UsageError where the size of a message is needed and not known. */
export function bytesPerSecond(rate: FiniteRate, size: number | undefined, name: string): number {
  if ("bytesPerSecond" in rate) return rate.bytesPerSecond;
  if (size !== undefined) return rate.messagesPerSecond * size;
  throw new UsageError(`${name} is in messages: --size must say how large they are`);
}

/**
 * The value of --limit in bytes a second; of an interval, its lower bound. Throws a UsageError, or an
 * Error of one line where the file cannot be read.
 */
export function chooseLimit(text: string, size: number | undefined): number {
  if (/^[\d.]/.test(text)) {
    try {
      return bytesPerSecond(parseFiniteRate(text), size, "--limit");
    } catch (error) {
      if (!(error instanceof UnitError)) throw error;
      throw new UsageError(`--limit "${text}" ${error.message}, or a result of limit --json`);
    }
  }
  const { readers } = readResults(text);
  const [reader, another] = readers;
  if (reader === undefined || another !== undefined) {
    throw new UsageError(
      `--limit "${text}" must be the result of one reader, but has ${readers.length}`,
    );
  }
  if (reader.limit === null) {
    const why = reader.note === undefined ? "" : `: ${reader.note}`;
    throw new UsageError(`--limit "${text}" is a result without a limit${why}`);
  }
  return reader.limit.lower;
}
