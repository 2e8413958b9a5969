/**
 * Computes what a feed would do to a reader whose limit is known. Needs no network.
 *
 *     deno task plan --limit 55MB/s --rate 5MB/s --peak 80MB/s --for 3s --sender-buffer 4M
 *     deno task plan --limit limit.json --trace rates.csv --outage 1h
 */
import { readFileSync } from "node:fs";
import type { MapResult } from "../burst/map_result.ts";
import type { Tolerated } from "../plan/collapse.ts";
import { type Feed, steadyFeed } from "../plan/feed.ts";
import { plan, type PlanOptions } from "../plan/plan.ts";
import { parseTrace, TraceError } from "../plan/trace.ts";
import { formatPlan } from "../report/plan_table.ts";
import { readResults } from "../report/report.ts";
import { parseBytes, parseDuration, parseSustained } from "../text/units.ts";
import { flag, option, parseCommandLine, UsageError } from "./command_line.ts";
import {
  bytesPerSecond,
  chooseLimit,
  type FiniteRate,
  LIMIT_OPTION,
  parseFiniteRate,
} from "./limit_option.ts";
import { printLine } from "./program.ts";

const spec = {
  name: "plan",
  summary: "Computes what a feed would do to a reader whose limit is known: the largest\n" +
    "backlog, the longest delay, whether the sender disconnects the reader, the disk\n" +
    "for an outage, and what would help. It needs no network.",
  options: {
    limit: LIMIT_OPTION,
    map: option({
      value: "FILE",
      help: "a result of map --json: also says whether the reader collapses; its limit is the " +
        "default of --limit",
      parse: String,
    }),
    rate: option({ value: "RATE", help: "the rate of the feed", parse: parseFiniteRate }),
    peak: option({
      value: "RATE",
      help: "its rate at first, for the time of --for",
      parse: parseFiniteRate,
    }),
    for: option({ value: "TIME", help: "how long the peak lasts", parse: parseDuration }),
    trace: option({
      value: "FILE",
      help: "the feed as it was recorded, instead of --rate: a table with the columns time and " +
        "bytes or messages (CSV), or a log with a time at the beginning of each line",
      parse: String,
    }),
    size: option({
      value: "SIZE",
      help: "size of a message, for rates and traces in messages",
      parse: parseBytes,
    }),
    senderBuffer: option({
      value: "SIZE",
      help: "what the sender queues for the reader, socket buffers included, before it " +
        "disconnects it",
      parse: parseBytes,
    }),
    after: option({
      value: "SIZE:TIME",
      help: "the sender disconnects a reader that it has queued more than SIZE for, for TIME",
      parse: parseSustained,
    }),
    writeDeadline: option({
      value: "TIME",
      help: "the sender disconnects a reader that does not take what was written within TIME",
      parse: parseDuration,
    }),
    outage: option({
      value: "TIME",
      help: "also plan for a reader that is away for so long, at the worst time for it",
      parse: parseDuration,
    }),
    json: flag("prints the plan as one JSON object"),
  },
};

/** Runs the command and returns its exit status. Throws a UsageError, or an Error of one line. */
export async function main(args: readonly string[], called = "plan.ts"): Promise<number> {
  const usage = [
    `${called} --limit RATE|FILE --rate RATE [OPTIONS]`,
    `${called} --limit RATE|FILE --trace FILE [OPTIONS]`,
    `${called} --map FILE --trace FILE [OPTIONS]`,
  ];
  const { options } = parseCommandLine({ ...spec, usage }, args);
  const { limit, size, senderBuffer, after, writeDeadline, outage } = options;
  const map = options.map === undefined ? undefined : readMap(options.map);
  if (limit === undefined && map === undefined) {
    throw new UsageError("no --limit: must be the limit of the reader, such as 20MB/s");
  }
  const given: PlanOptions = {
    limit: limit === undefined ? map!.limit : chooseLimit(limit, size),
    feed: feedOf(options),
    ...(map === undefined ? {} : { tolerated: toleratedOf(map) }),
    ...(senderBuffer === undefined ? {} : { senderBuffer }),
    ...(after === undefined
      ? {}
      : { senderAfter: { bytes: after.bytes, seconds: after.ms / 1000 } }),
    ...(writeDeadline === undefined ? {} : { writeDeadline: writeDeadline / 1000 }),
    ...(outage === undefined ? {} : { outage: outage / 1000 }),
  };
  const result = plan(given);
  printLine(options.json ? JSON.stringify(result) : formatPlan(result, given));
  return await Promise.resolve(0);
}

/** Throws an Error of one line where it is no map. */
function readMap(path: string): MapResult {
  const { map } = readResults(path);
  if (map === undefined) throw new UsageError(`--map "${path}" must be a result of map --json`);
  return map;
}

const toleratedOf = ({ rates }: MapResult): Tolerated[] =>
  rates.map(({ rate, state, tolerance: { lower } }) => ({
    rate,
    burst: state === "stable" ? Infinity : lower,
  }));

function feedOf(options: {
  rate: FiniteRate | undefined;
  peak: FiniteRate | undefined;
  for: number | undefined;
  trace: string | undefined;
  size: number | undefined;
}): Feed {
  const { rate, peak, trace, size } = options;
  if ((rate === undefined) === (trace === undefined)) {
    throw new UsageError(
      rate === undefined
        ? "no feed: give --rate, or --trace with a recorded one"
        : "--rate and --trace exclude each other: give one of them",
    );
  }
  if ((peak === undefined) !== (options.for === undefined)) {
    throw new UsageError("--peak and --for need each other: a peak has a rate and a duration");
  }
  if (rate !== undefined) {
    return steadyFeed(
      bytesPerSecond(rate, size, "--rate"),
      peak === undefined ? undefined : {
        rate: bytesPerSecond(peak, size, "--peak"),
        seconds: options.for! / 1000,
      },
    );
  }
  if (peak !== undefined) throw new UsageError("--peak needs --rate: a trace has its own peaks");
  try {
    return parseTrace(readTrace(trace!), size === undefined ? {} : { messageSize: size });
  } catch (error) {
    if (!(error instanceof TraceError)) throw error;
    throw new Error(`${trace}: ${error.message}`, { cause: error });
  }
}

function readTrace(path: string): string {
  try {
    return readFileSync(path === "-" ? 0 : path, "utf8");
  } catch (cause) {
    throw new Error(`cannot read ${path}: ${(cause as Error).message}`, { cause });
  }
}
