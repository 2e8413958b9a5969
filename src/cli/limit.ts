/**
 * Measures the speed limit of a reader, its behaviour under overload, and its recovery.
 *
 *     deno task limit -- python3 my_reader.py {host} {port}
 *     npm run limit                        # the article's two readers on this runtime
 */
import { printable } from "../text/printable.ts";
import { ProgressLine } from "../text/progress.ts";
import {
  formatByteRate,
  formatHostPort,
  formatSeconds,
  parseByteRate,
  parseCount,
  parseDuration,
  parseFraction,
  UnitError,
} from "../text/units.ts";
import { environment } from "../kernel/environment.ts";
import { ownCommand } from "../kernel/own_command.ts";
import { findLimit } from "../measure/limit.ts";
import { parseFrame } from "../message/frame.ts";
import type { Frame } from "../message/framer.ts";
import {
  formatOutputPlace,
  type OutputOptions,
  type OutputPlace,
  parseOutputPlace,
} from "../output/output.ts";
import type { Replies } from "../send/flood.ts";
import type { Script } from "../send/script.ts";
import type { LimitEvent, LimitOptions } from "../measure/limit_options.ts";
import { type LimitResult, LIMITS_SCHEMA } from "../measure/limit_result.ts";
import { recordAround } from "../measure/series.ts";
import { formatTrialFigures } from "../measure/trial_figures.ts";
import { formatInterval, formatLimits } from "../report/limit_table.ts";
import { preparePage } from "../report/page.ts";
import { fromLimits } from "../report/report.ts";
import { formatTextCurve } from "../report/text_curve.ts";
import { main as client } from "./client.ts";
import { choice, flag, option, parseCommandLine, UsageError } from "./command_line.ts";
import { chooseMessage, FRAME_OPTION, MESSAGE_OPTIONS } from "./message_options.ts";
import { parseOutFile } from "./out_file.ts";
import { terminal, writeText } from "./output.ts";
import { interrupted, logLine, printLine } from "./program.ts";
import {
  callersFolder,
  chooseConnection,
  CONNECTION_OPTIONS,
  excludes,
  STOP_TIMEOUT_OPTION,
} from "./reader_options.ts";

const MOST_READERS = 1000;
/** Duration of each of the two trials that a page shows over time. */
const SERIES_SECONDS = 1.5;

const spec = {
  name: "limit",
  summary: "Finds the speed limit of a TCP reader: the highest rate at which it keeps up.\n" +
    "The reader is any program that connects and reads; {host} and {port} in its\n" +
    "command are replaced. Without a command, the limits of the drain client are\n" +
    "measured, in each of its two modes.",
  command: "starts the reader: -- python3 my_reader.py {host} {port}",
  options: {
    attach: flag("waits for readers that are started separately"),
    ...CONNECTION_OPTIONS,
    ...MESSAGE_OPTIONS,
    frame: FRAME_OPTION,
    precision: option({
      value: "SHARE",
      help: "width of the result's interval, as a share of the limit",
      default: "1%",
      parse: (text) => parseFraction(text, { least: 0.002, most: 0.5 }),
    }),
    minRate: option({
      value: "RATE",
      help: "lowest rate to offer; bytes a second",
      default: "1kB/s",
      parse: parseByteRate,
    }),
    maxRate: option({
      value: "RATE",
      help: "highest rate to offer (default: as fast as the sender can)",
      parse: parseByteRate,
    }),
    time: option({
      value: "TIME",
      help: "how long it may take for each reader, at least 20s: a reader whose speed varies " +
        "needs more time for the same precision",
      default: "60s",
      parse: (text) => parseDuration(text, { least: 20_000 }),
    }),
    maxTrial: option({
      value: "TIME",
      help: "of earlier versions: the longest duration of one trial",
      hidden: true,
      parse: (text) => parseDuration(text, { least: 1000 }),
    }),
    until: choice({
      help: "taken: the reader keeps up if it takes all from its socket; worked: if it also " +
        "finishes its work (default: worked where that can be seen)",
      choices: ["worked", "taken"],
    }),
    confidence: option({
      value: "SHARE",
      help: "confidence of the interval",
      default: "95%",
      parse: (text) => parseFraction(text, { least: 0.5, most: 0.999 }),
    }),
    readers: option({
      value: "N",
      help: "number of readers at the same time, each fed separately",
      default: "1",
      parse: (text) => parseCount(text, { most: MOST_READERS }),
    }),
    replies: choice({
      help: "whether to read what the reader sends",
      choices: ["drain", "ignore"],
      default: "drain",
    }),
    out: option({
      value: "PLACE",
      help: "measures the reader by what it puts out: replies, stdout, file:PATH, connect:{out} " +
        "(it connects to us) or listen:HOST:PORT (we connect to it)",
      parse: parseOutputPlace,
    }),
    outFrame: option({
      value: "FRAME",
      help: "how messages of --out are delimited, as for --frame; none: its bytes count (default " +
        "line)",
      parse: parseFrame,
    }),
    outMatch: option({
      value: "REGEX",
      help: "only messages of --out that match count; a group in it is the number of {seq}",
      parse: parseRegex,
    }),
    stopTimeout: STOP_TIMEOUT_OPTION,
    json: flag("prints the result as one JSON object"),
    html: option({
      value: "FILE",
      help: "writes an HTML page with curves; also records two trials over time for it",
      parse: parseOutFile,
    }),
  },
};

/** One reader to measure: its command, unless it attaches, and its name. */
type Subject = Pick<LimitOptions, "command" | "name">;

/**
 * Runs the command and returns its exit status. Throws a UsageError, a NetError, or an Error where
 * nothing can be measured.
 */
export async function main(args: readonly string[], called = "limit.ts"): Promise<number> {
  // Without a command we measure our own client, which is started as a subcommand of this program.
  if (args[0] === "client") return await client(args.slice(1));
  const usage = ["-- COMMAND", "--attach", "--connect HOST:PORT [-- COMMAND]", ""].map((how) =>
    `${called} [OPTIONS] ${how}`.trimEnd()
  );
  const { options, command } = parseCommandLine({ ...spec, usage }, args);
  const { attach, listen, connect, json, html, minRate, maxRate } = options;
  if (command !== undefined && attach) {
    throw new UsageError("--attach and a command after -- exclude each other: give one of them");
  }
  if (connect !== undefined && attach) throw new UsageError(excludes("--attach"));
  const connection = chooseConnection(options);
  if (options.script !== undefined && options.replies === "ignore") {
    throw new UsageError(
      "--script and --replies ignore exclude each other: a script is about what the reader says",
    );
  }
  if (connect?.port === 0 && command === undefined) {
    throw new UsageError("--connect with port 0 needs a command after --, which is told the port");
  }
  if (command?.length === 0) {
    throw new UsageError(
      "no command follows --; an example is -- python3 my_reader.py {host} {port}",
    );
  }
  const program = command?.[0] ?? "";
  if (program.startsWith("-")) {
    throw new UsageError(
      `the command after -- begins with ${printable(program)}: options come before --`,
    );
  }
  if (maxRate !== undefined && maxRate < minRate) {
    throw new UsageError("--max-rate must be at least --min-rate");
  }
  if (options.maxTrial !== undefined) {
    logLine("limit: --max-trial has no effect any more; --time says how long it may take");
  }
  const known = (connect ?? listen)?.port;
  if (command !== undefined && !known && !command.some((word) => word.includes("{port}"))) {
    const what = connect === undefined ? "connect" : "listen";
    logLine(`limit: the command has no {port}: how does the reader know where to ${what}?`);
  }
  const output = chooseOutput(options, command);
  const given: LimitOptions = {
    ...(output === undefined ? {} : { output }),
    message: chooseMessage(options, (line) => logLine(`limit: ${line}`)),
    ...connection,
    readers: options.readers,
    precision: options.precision,
    minRate,
    ...(maxRate === undefined ? {} : { maxRate }),
    timeSeconds: options.time / 1000,
    replies: options.replies,
    confidence: options.confidence,
    ...(options.until === undefined ? {} : { until: options.until }),
    stopTimeoutSeconds: options.stopTimeout / 1000,
    signal: interrupted(),
    ...callersFolder(),
  };
  const subjects: Subject[] = attach
    ? [{ name: "attached" }]
    : command !== undefined
    ? [{ command }]
    : connect !== undefined
    ? [{ name: formatHostPort(connect) }]
    : [ownReader("naive"), ownReader("drain")];

  const formatPage = html === undefined ? undefined : await preparePage();
  const results: LimitResult[] = [];
  for (const subject of subjects) {
    const progress = new ProgressLine();
    let begun = false;
    const result = await findLimit({
      ...given,
      ...subject,
      onEvent(event) {
        if (event.event === "connected" && !begun) {
          begun = true;
          const most = formatSeconds(options.time / 1000);
          const varies = options.time > 20_000 ? `, or ${most} if the reader's speed varies` : "";
          progress.line(`connected: this takes about 20 s${varies}`);
        }
        showProgress(event, progress, attach);
      },
    });
    const again = command !== undefined || connect === undefined;
    if (html !== undefined && !attach && again && !result.interrupted && result.limit !== null) {
      progress.update("recording a trial below the limit and one above it ...");
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
  const report = fromLimits(results, repeatCommand(args, called));
  if (!json) {
    printLine(formatLimits(results));
    const drawn = report.readers.filter(({ curve }) => curve.line.length > 1);
    if (drawn.length > 0) printLine(`\n${formatTextCurve(drawn, terminal())}`);
  } else if (attach || connect !== undefined || command !== undefined) {
    printLine(JSON.stringify(results[0]));
  } else printLine(JSON.stringify({ schema: LIMITS_SCHEMA, results }));
  if (html !== undefined) writeText(html, formatPage!(report));
  if (results.some(({ interrupted }) => interrupted)) return 130;
  return results.every(({ outcome }) => outcome === "found" || outcome === "generator-limited")
    ? 0
    : 1;
}

function parseRegex(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new UnitError(`must be a regular expression: ${(error as Error).message}`);
  }
}

interface OutputChoice {
  out?: OutputPlace | undefined;
  outFrame?: Frame | undefined;
  outMatch?: RegExp | undefined;
  template?: string | undefined;
  replies: Replies;
  script?: Script | undefined;
  until?: LimitOptions["until"];
  readers: number;
}

/** Throws a UsageError. */
function chooseOutput(
  { out, outFrame, outMatch, template, replies, script, until, readers }: OutputChoice,
  command: readonly string[] | undefined,
): OutputOptions | undefined {
  if (out === undefined) {
    if (outFrame === undefined && outMatch === undefined) return undefined;
    throw new UsageError("--out-frame and --out-match need --out");
  }
  const wrong = readers > 1
    ? "--out is for one reader: it excludes --readers"
    : until !== undefined
    ? "--out and --until exclude each other: the output tells what the reader has done"
    : out.kind === "replies" && (replies === "ignore" || script !== undefined)
    ? `--out replies and ${
      script === undefined ? "--replies ignore" : "--script"
    } exclude each other`
    : (out.kind === "stdout" || out.kind === "connect") && command === undefined
    ? `--out ${formatOutputPlace(out)} needs a command after --`
    : out.kind === "connect" && !command!.some((word) => word.includes("{out}"))
    ? "--out connect:{out} needs {out} in the command: the address that the reader connects to"
    : undefined;
  if (wrong !== undefined) throw new UsageError(wrong);
  return {
    place: out,
    frame: outFrame ?? { kind: "line" },
    match: outMatch,
    numbered: template?.includes("{seq}") ?? false,
  };
}

/** The command line that repeats the measurement without writing a page, for a POSIX shell. */
function repeatCommand(args: readonly string[], called: string): string {
  const words = args.filter((word, i) => !/^--html(=|$)/.test(word) && args[i - 1] !== "--html");
  const quoted = words.map((word) =>
    /^[\w@%+=:,./{}-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
  );
  return printable([called === "limit.ts" ? "deno task limit" : called, ...quoted].join(" "));
}

/** Our own client as the reader, on this runtime. */
function ownReader(mode: "naive" | "drain"): Subject {
  return {
    command: ownCommand("client", "{host}:{port}", "--mode", mode),
    name: `client --mode ${mode}, ${environment().runtime}`,
  };
}

const VERDICTS = {
  "keeps-up": "keeps up",
  "falls-behind": "falls behind",
  "inconclusive": "inconclusive",
};

function showProgress(event: LimitEvent, progress: ProgressLine, attach: boolean): void {
  switch (event.event) {
    case "listening":
      if (attach) progress.line(`waiting for readers on ${formatHostPort(event)}`);
      return;
    case "connected":
      return;
    case "fresh-reader":
      return progress.line(`replacing the reader: ${event.reason}`);
    case "trial-begins":
      if (event.purpose === "saturate") {
        return progress.line(`saturate ${formatByteRate(event.rate).padStart(10)}  ...`);
      }
      return progress.update(`${event.purpose}: ${formatByteRate(event.rate)} ...`);
    case "interval": {
      const { lower, upper, secondsLeft } = event;
      return progress.line(
        `so far  ${formatInterval(lower, upper).padStart(18)}, about ${
          formatSeconds(Math.ceil(secondsLeft))
        } left`,
      );
    }
    case "trial": {
      const { purpose, offered, drained, seconds, verdict, ended } = event.trial;
      const figures = formatTrialFigures(event.trial);
      return progress.line(
        `${purpose.padEnd(8)} ${formatByteRate(offered).padStart(10)}  ${
          VERDICTS[verdict].padEnd(12)
        }` +
          `  drained ${formatByteRate(Math.max(0, drained))}, ` +
          (figures === "" ? "" : `${figures}, `) + formatSeconds(seconds) +
          (ended === undefined ? "" : `; ${ended}`),
      );
    }
  }
}
