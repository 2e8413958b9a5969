/**
 * Measures which bursts a reader survives, at which base rates.
 *
 *     deno task map -- python3 my_reader.py {host} {port}
 *     deno task map --limit 55MB/s --json -- python3 my_reader.py {host} {port}
 */
import { type MapEvent, type MapOptions, measureMap, SHARES } from "../burst/map.ts";
import { findLimit } from "../measure/limit.ts";
import { formatLimits } from "../report/limit_table.ts";
import { formatMapSvg } from "../report/map_svg.ts";
import { formatMap } from "../report/map_table.ts";
import { preparePage } from "../report/page.ts";
import { captionOf, fromMap } from "../report/report.ts";
import { ProgressLine } from "../text/progress.ts";
import {
  formatByteRate,
  formatBytes,
  formatSeconds,
  parseBytes,
  parseCount,
  parseFraction,
  UnitError,
} from "../text/units.ts";
import { flag, option, parseCommandLine, UsageError } from "./command_line.ts";
import { chooseLimit, LIMIT_OPTION } from "./limit_option.ts";
import { chooseMessage, FRAME_OPTION, MESSAGE_OPTIONS } from "./message_options.ts";
import { parseOutFile } from "./out_file.ts";
import { writeText } from "./output.ts";
import { interrupted, logLine, printLine } from "./program.ts";
import {
  callersFolder,
  chooseConnection,
  CONNECTION_OPTIONS,
  STOP_TIMEOUT_OPTION,
} from "./reader_options.ts";

const spec = {
  name: "map",
  summary: "Measures which bursts a TCP reader survives, on top of which base rates. The\n" +
    "reader is any program that connects and reads; {host} and {port} in its command\n" +
    "are replaced. A reader that does not come back after a burst is replaced by a\n" +
    "fresh one.",
  command: "starts the reader: -- python3 my_reader.py {host} {port}",
  options: {
    limit: { ...LIMIT_OPTION, help: `${LIMIT_OPTION.help} (default: it is measured first)` },
    ...MESSAGE_OPTIONS,
    frame: FRAME_OPTION,
    rates: option({
      value: "SHARES",
      help: "base rates, as shares of the limit",
      default: SHARES.map((share) => `${100 * share}%`).join(","),
      parse: parseShares,
    }),
    burst: option({
      value: "SIZE",
      help: "tries only this burst, --repeats times at each rate: the chance to survive it",
      parse: (text) => parseBytes(text),
    }),
    largestBurst: option({
      value: "SIZE",
      help: "the largest burst to try",
      default: "64M",
      parse: (text) => parseBytes(text),
    }),
    precision: option({
      value: "SHARE",
      help: "how far apart the burst that it survives and the one that it does not may be",
      default: "10%",
      parse: (text) => parseFraction(text, { least: 0.02, most: 1 }),
    }),
    repeats: option({
      value: "N",
      help: "each of those two bursts is tried so often",
      default: "2",
      parse: (text) => parseCount(text, { most: 100 }),
    }),
    ...CONNECTION_OPTIONS,
    stopTimeout: STOP_TIMEOUT_OPTION,
    json: flag("prints the result as one JSON object"),
    html: option({
      value: "FILE",
      help: "also writes an HTML page with the map",
      parse: parseOutFile,
    }),
    svg: option({
      value: "FILE",
      help: "also writes the map as an SVG picture",
      parse: parseOutFile,
    }),
  },
};

/** Runs the command and returns its exit status. Throws a UsageError, a NetError, or an Error. */
export async function main(args: readonly string[], called = "map.ts"): Promise<number> {
  const usage = [`${called} [OPTIONS] -- COMMAND`];
  const { options, command } = parseCommandLine({ ...spec, usage }, args);
  if (command === undefined || command.length === 0) {
    throw new UsageError(
      "no command after --; an example is -- python3 my_reader.py {host} {port}",
    );
  }
  const connection = chooseConnection(options);
  const message = chooseMessage(options, (line) => logLine(`map: ${line}`));
  const shared = {
    ...{ command, message, stopTimeoutSeconds: options.stopTimeout / 1000, signal: interrupted() },
    ...connection,
    ...callersFolder(),
  };
  const progress = new ProgressLine();
  let limit: number;
  if (options.limit !== undefined) limit = chooseLimit(options.limit, message.size);
  else {
    progress.update("measuring the limit first: about 20 s ...");
    const result = await findLimit(shared);
    progress.end();
    if (result.interrupted) return 130;
    if (result.limit === null) {
      logLine(`map: the reader's limit was not found, and --limit is not given`);
      printLine(formatLimits([result]));
      return 1;
    }
    limit = result.limit.lower;
    logLine(`limit: ${formatByteRate(limit)}`);
  }
  const given: MapOptions = {
    ...{ ...shared, limit, shares: options.rates, largestBurst: options.largestBurst },
    ...{ precision: options.precision, repeats: options.repeats },
    ...(options.burst === undefined ? {} : { burst: options.burst }),
    onEvent: (event) => showProgress(event, progress),
  };
  const formatPage = options.html === undefined ? undefined : await preparePage();
  const map = await measureMap(given);
  progress.end();
  printLine(options.json ? JSON.stringify(map) : formatMap(map));
  if (map.rates.length > 0) {
    const results = fromMap(map);
    if (options.html !== undefined) writeText(options.html, formatPage!(results));
    if (options.svg !== undefined) writeText(options.svg, formatMapSvg(map, captionOf(results)));
  }
  if (map.interrupted) return 130;
  return map.outcome === "reader-failed" ? 1 : 0;
}

/** `5%,10%,50%`. */
function parseShares(text: string): number[] {
  const shares = text.split(",").map((share) => {
    try {
      return parseFraction(share, { least: 0.001, most: 0.99 });
    } catch (error) {
      if (!(error instanceof UnitError)) throw error;
      throw new UnitError("must be shares from 0.1% to 99%, such as 5%,10%,50%");
    }
  });
  return [...new Set(shares)];
}

const OUTCOMES = { survives: "comes back", collapses: "does not come back", dies: "ends" };

function showProgress(event: MapEvent, progress: ProgressLine): void {
  switch (event.event) {
    case "rate":
      return progress.line(
        `base rate ${formatByteRate(event.rate)} (${event.number} of ${event.of})`,
      );
    case "cell": {
      const { burst, outcome, seconds, drained, ended } = event.cell;
      return progress.line(
        `  burst ${formatBytes(burst).padStart(8)}  ${OUTCOMES[outcome].padEnd(18)}  ` +
          (outcome === "survives"
            ? `after ${formatSeconds(seconds)}`
            : ended ?? `drains ${formatByteRate(Math.max(0, drained))}`),
      );
    }
    default:
      return;
  }
}
