/**
 * The speed limit of a reader: at which rate it falls behind, what it does then, and whether it
 * comes back.
 *
 *     deno task limit -- python3 my_reader.py {host} {port}
 *     npm run limit                        # the article's two readers on this runtime
 */
import process from "node:process";
import { main as client } from "./client.ts";
import { chooseMessage, MESSAGE_OPTIONS } from "./message_options.ts";
import { choice, flag, option, parseCommandLine, UsageError } from "./command_line.ts";
import { environment } from "../kernel/environment.ts";
import { findLimit } from "../measure/limit.ts";
import type { LimitEvent, LimitOptions } from "../measure/limit_options.ts";
import { type LimitResult, LIMITS_SCHEMA } from "../measure/limit_result.ts";
import { runtime } from "../kernel/runtime.ts";
import { interrupted, print } from "./program.ts";
import { recordAround } from "../measure/series.ts";
import { formatTrialFigures } from "../measure/trial_figures.ts";
import { formatLimits } from "../report/limit_table.ts";
import { ProgressLine } from "../text/progress.ts";
import {
  formatByteRate,
  formatHostPort,
  formatSeconds,
  parseByteRate,
  parseCount,
  parseDuration,
  parseFraction,
  parseHostPort,
} from "../text/units.ts";
import { parseOutFile } from "./out_file.ts";
import { terminal, writeText } from "./output.ts";
import { preparePage } from "../report/page.ts";
import { fromLimits } from "../report/report.ts";
import { formatTextCurve } from "../report/text_curve.ts";

const MOST_READERS = 1000;
/** Of each of the two trials that a page shows over time. */
const SERIES_SECONDS = 1.5;

const spec = {
  name: "limit",
  summary: "Finds the speed limit of a TCP reader: the highest rate at which it keeps up.\n" +
    "The reader is a program of any kind that connects and reads; {host} and {port} in its\n" +
    "command are replaced. Without one, it measures the drain client in both its modes.",
  command: "starts the reader: -- python3 my_reader.py {host} {port}",
  options: {
    attach: flag("waits for readers to come by themselves"),
    listen: option({
      value: "HOST:PORT",
      help: "where readers connect; port 0: any free one (default 127.0.0.1:0)",
      parse: (text) => parseHostPort(text, { least: 0 }),
    }),
    ...MESSAGE_OPTIONS,
    precision: option({
      value: "SHARE",
      help: "how narrow the interval must be",
      default: "1%",
      parse: (text) => parseFraction(text, { least: 0.002, most: 0.5 }),
    }),
    minRate: option({
      value: "RATE",
      help: "below this there is nothing to look for; bytes a second",
      default: "1kB/s",
      parse: parseByteRate,
    }),
    maxRate: option({
      value: "RATE",
      help: "nor above this (default: as far as the sender goes)",
      parse: parseByteRate,
    }),
    maxTrial: option({
      value: "TIME",
      help: "the longest time that one trial may take to be clear",
      default: "6s",
      parse: (text) => parseDuration(text, { least: 1000 }),
    }),
    readers: option({
      value: "N",
      help: "readers at once, each with a flood of its own",
      default: "1",
      parse: (text) => parseCount(text, { most: MOST_READERS }),
    }),
    replies: choice({
      help: "what becomes of what the reader sends",
      choices: ["drain", "ignore"],
      default: "drain",
    }),
    json: flag("prints the result as one JSON object"),
    html: option({
      value: "FILE",
      help: "writes a page with the curves, and records what it shows over time",
      parse: parseOutFile,
    }),
  },
};

/** One reader to measure: how to start it, unless it comes by itself, and what to call it. */
type Subject = Pick<LimitOptions, "command" | "name">;

/** The command; its exit status. Throws a UsageError, a NetError, or where nothing can be measured. */
export async function main(args: readonly string[], called = "limit.ts"): Promise<number> {
  // The reader that we measure without a command is this same program, whatever file it is in.
  if (args[0] === "client") return await client(args.slice(1));
  const usage = ["-- COMMAND", "--attach", ""].map((how) => `${called} [OPTIONS] ${how}`.trimEnd());
  const { options, command } = parseCommandLine({ ...spec, usage }, args);
  const { attach, listen, json, html, minRate, maxRate } = options;
  if (command !== undefined && attach) {
    throw new UsageError("--attach and a command after -- exclude each other: give one of them");
  }
  if (command?.length === 0) {
    throw new UsageError("no command follows --: as in -- python3 my_reader.py {host} {port}");
  }
  if (maxRate !== undefined && maxRate < minRate) {
    throw new UsageError("--max-rate must be at least --min-rate");
  }
  const given: LimitOptions = {
    message: chooseMessage(options.message, options.size),
    ...listen,
    readers: options.readers,
    precision: options.precision,
    minRate,
    ...(maxRate === undefined ? {} : { maxRate }),
    maxTrialSeconds: options.maxTrial / 1000,
    replies: options.replies,
    signal: interrupted(),
  };
  const subjects: Subject[] = attach
    ? [{ name: "attached" }]
    : command !== undefined
    ? [{ command }]
    : [ownReader("naive"), ownReader("drain")];

  const formatPage = html === undefined ? undefined : await preparePage();
  const results: LimitResult[] = [];
  for (const subject of subjects) {
    const progress = new ProgressLine();
    const result = await findLimit({
      ...given,
      ...subject,
      onEvent: (event) => tell(event, progress, attach),
    });
    if (html !== undefined && !attach && !result.interrupted && result.limit !== null) {
      progress.update("below the limit and above it, over time ...");
      const { readers: _all, ...one } = given;
      const series = await recordAround(result.limit, {
        ...{ ...one, ...subject, seconds: SERIES_SECONDS },
      });
      if (series === null) result.interrupted = true;
      else if (series !== undefined) result.series = series;
    }
    progress.end();
    results.push(result);
    if (result.interrupted) break;
  }
  const report = fromLimits(results, repeating(args, called));
  if (!json) {
    print(formatLimits(results));
    const drawn = report.readers.filter(({ curve }) => curve.line.length > 1);
    if (drawn.length > 0) print(`\n${formatTextCurve(drawn, terminal())}`);
  } else if (attach || command !== undefined) print(JSON.stringify(results[0]));
  else print(JSON.stringify({ schema: LIMITS_SCHEMA, results }));
  if (html !== undefined) writeText(html, formatPage!(report));
  if (results.some(({ interrupted }) => interrupted)) return 130;
  return results.every(({ outcome }) => outcome === "found" || outcome === "generator-limited")
    ? 0
    : 1;
}

/** The command line that makes a page's results again, without the page, for a POSIX shell. */
function repeating(args: readonly string[], called: string): string {
  const words = args.filter((word, i) => !/^--html(=|$)/.test(word) && args[i - 1] !== "--html");
  const quoted = words.map((word) =>
    /^[\w@%+=:,./{}-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
  );
  return [called === "limit.ts" ? "deno task limit" : called, ...quoted].join(" ");
}

/** This program as a reader, on this runtime. */
function ownReader(mode: "naive" | "drain"): Subject {
  const script = process.argv[1]!;
  // Inside an executable made by `bun build --compile` there is no script to name.
  const self = script.startsWith("/$bunfs/") ? [] : [...runtimeFlags(), script];
  return {
    command: [process.execPath, ...self, "client", "{host}:{port}", "--mode", mode],
    name: `client --mode ${mode}, ${environment().runtime}`,
  };
}

function runtimeFlags(): string[] {
  switch (runtime) {
    case "deno":
      return ["run", "--no-prompt", "--allow-net", "--allow-ffi", ...modulesFlag()];
    case "bun":
      return [];
    case "node":
      return ["--no-warnings", ...process.execArgv];
  }
}

/**
 * Without npm (`deno task`) packages come from Deno's own cache, whatever deno.json says, and so
 * must the reader's.
 */
function modulesFlag(): string[] {
  try {
    const found = import.meta.resolve("#std/cli");
    return found.includes("/node_modules/") ? [] : ["--node-modules-dir=none"];
  } catch {
    // A bundle has no packages to find.
    return [];
  }
}

const WORDS = {
  "keeps-up": "keeps up",
  "falls-behind": "falls behind",
  "inconclusive": "inconclusive",
};

function tell(event: LimitEvent, progress: ProgressLine, attach: boolean): void {
  switch (event.event) {
    case "listening":
      if (attach) progress.line(`waiting for readers on ${formatHostPort(event)}`);
      return;
    case "connected":
      return;
    case "fresh-reader":
      return progress.line(`a fresh reader: ${event.reason}`);
    case "trial-begins":
      return progress.update(`${event.purpose}: ${formatByteRate(event.rate)} ...`);
    case "trial": {
      const { purpose, offered, drained, seconds, verdict, ended } = event.trial;
      const figures = formatTrialFigures(event.trial);
      return progress.line(
        `${purpose.padEnd(8)} ${formatByteRate(offered).padStart(10)}  ${
          WORDS[verdict].padEnd(12)
        }` +
          `  drained ${formatByteRate(Math.max(0, drained))}, ` +
          (figures === "" ? "" : `${figures}, `) + formatSeconds(seconds) +
          (ended === undefined ? "" : `; ${ended}`),
      );
    }
  }
}
