/** The command `client`: the options of the drain client, and its result as text or JSON. */
import { statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { DEFAULT_NUMBERED_SIZE, LEAST_NUMBERED_SIZE } from "../message/numbered.ts";
import { readOffset, writeOffset } from "../message/offset_file.ts";
import { isReaderName } from "../message/protocol.ts";
import { type AckOptions, OtherStreamError } from "../read/acknowledger.ts";
import { drain, type DrainHandler, type DrainResult, type DrainVerified } from "../read/drain.ts";
import { describeLatency, formatPercentiles, LATENCY_HEAD } from "../read/latency.ts";
import { formatTable } from "../text/table.ts";
import {
  formatByteRate,
  formatBytes,
  formatCount,
  formatHostPort,
  formatSeconds,
  formatSize,
  parseBytes,
  parseDuration,
  parseHostPort,
  UnitError,
} from "../text/units.ts";
import { choice, flag, option, parseCommandLine, UsageError } from "./command_line.ts";
import { MOST_MESSAGE } from "./message_options.ts";
import { interrupted, logLine, printLine } from "./program.ts";

/** The largest buffer that every runtime can allocate. */
const MAX_READ_SIZE = 2 ** 30;
/** SO_RCVBUF is an int, and the kernel doubles the given value. */
const MAX_BUFFER = 2 ** 30 - 1;

const spec = {
  name: "client",
  summary: "The drain client: reads from a TCP server, and reports how fast it was and how\n" +
    "it ended. Exits with 1 if the server reset the connection or if messages are\n" +
    "missing or damaged, with 130 if it was interrupted.",
  positionals: {
    server: option({
      value: "HOST:PORT",
      help: "the server to read from",
      default: "127.0.0.1:8000",
      parse: parseHostPort,
    }),
  },
  options: {
    mode: choice({
      help: "naive: the article's reader; drain: the article's fix",
      choices: ["naive", "drain"],
      default: "drain",
    }),
    readSize: option({
      value: "SIZE",
      help: "the most that one read returns (default 10 when naive, else 64k)",
      parse: (text) => parseBytes(text, { most: MAX_READ_SIZE }),
    }),
    runtimeReads: flag(
      "always reads through the runtime, never directly from the socket: to measure the runtime itself",
    ),
    reply: option({
      value: "TEXT|none",
      help: 'reply to send after each read (default "Hi i got the data" when naive, else none)',
      parse: (text) => text === "none" ? null : text,
    }),
    work: option({
      value: "TIME",
      help: "time spent computing after each read, such as 50us (default none)",
      parse: (text) => parseDuration(text, { least: 0 }),
    }),
    handler: option({
      value: "FILE.ts",
      help: "a module; its default export is called with each chunk, a Uint8Array",
      parse: (text) => text,
    }),
    forward: option({
      value: "HOST:PORT",
      help: "sends each chunk on to this server; with --handler, what that returns",
      parse: parseHostPort,
    }),
    rcvbuf: option({
      value: "SIZE",
      help: "SO_RCVBUF, which the kernel doubles (default: the kernel tunes it)",
      parse: (text) => parseBytes(text, { most: MAX_BUFFER }),
    }),
    duration: option({
      value: "TIME",
      help: "stops after this time, such as 10s",
      parse: parseDuration,
    }),
    count: option({ value: "SIZE", help: "stops after this many bytes", parse: parseBytes }),
    verify: flag(
      "checks that no numbered messages are missing, duplicated, out of order or damaged",
    ),
    latency: flag(
      "measures the latency of numbered messages: percentiles from the planned send to the read",
    ),
    settle: option({
      value: "TIME",
      help: "does not measure messages planned within this time of the first read; needs --latency",
      parse: parseDuration,
    }),
    size: option({
      value: "SIZE",
      help: `size of the numbered messages (default ${DEFAULT_NUMBERED_SIZE})`,
      parse: (text) => parseBytes(text, { least: LEAST_NUMBERED_SIZE, most: MOST_MESSAGE }),
    }),
    hello: option({
      value: "NAME",
      help: "sends this name first; for a server with --reader-id hello",
      parse: parseName,
    }),
    ack: flag("acknowledges processed bytes; for a server with --ack reader"),
    offsetFile: option({
      value: "FILE",
      help: "stores the acknowledged offset here, and resumes from it; needs --ack",
      parse: (text) => text,
    }),
    json: flag("prints the result as one JSON object"),
  },
};

/**
 * Runs the command and returns its exit status. `called`: the command's name in its usage line. Throws
 * what `parseCommandLine` and `drain` throw, and, after printing the result, an Error when messages are
 * missing or damaged or no latency could be measured.
 */
export async function main(args: readonly string[], called = "client.ts"): Promise<number> {
  const usage = [`${called} [HOST:PORT] [OPTIONS]`];
  const { options, positionals: { server } } = parseCommandLine({ ...spec, usage }, args);
  checkOptions(options);
  const { offsetFile, settle: settleMs, size = DEFAULT_NUMBERED_SIZE } = options;
  const handler = options.handler === undefined ? undefined : await loadHandler(options.handler);
  const draining = drain({
    ...server,
    ...options,
    handler,
    workMs: options.work,
    receiveBuffer: options.rcvbuf,
    durationMs: options.duration,
    ack: options.ack ? ackOptions(offsetFile) : undefined,
    verify: options.verify ? { size } : undefined,
    latency: options.latency ? { size, settleMs } : undefined,
    signal: interrupted(),
    onConnected: (remote) => {
      if (!options.json) logLine(`connected to ${formatHostPort(remote)}`);
    },
  });
  const result = await draining.catch((error) => {
    if (!(error instanceof OtherStreamError) || offsetFile === undefined) throw error;
    const hint =
      `${offsetFile} was not changed: delete it to read all that the server's stream still has`;
    throw new Error(`${error.message}; ${hint}`, { cause: error });
  });
  printLine(
    options.json ? JSON.stringify({ schema: "speedlimit/drain@2", ...result }) : format(result),
  );
  const failure = deliveryFailure(result) ?? latencyFailure(result, options);
  if (failure !== undefined) throw new Error(failure);
  if (result.ended === "interrupted") return 130;
  return result.ended === "reset" || result.ended === "error" ? 1 : 0;
}

function parseName(text: string): string {
  if (isReaderName(text)) return text;
  throw new UnitError("must be a name of 1 to 64 letters, digits, dots, underscores and hyphens");
}

/** Throws a UsageError when options need or exclude each other. */
function checkOptions(options: {
  mode: DrainResult["mode"];
  reply: string | null | undefined;
  verify: boolean;
  latency: boolean;
  settle: number | undefined;
  size: number | undefined;
  ack: boolean;
  offsetFile: string | undefined;
}): void {
  const { mode, reply, verify, latency, settle, size, ack, offsetFile } = options;
  if (size !== undefined && !verify && !latency) {
    throw new UsageError("--size needs --verify or --latency: it is the size of their messages");
  }
  if (settle !== undefined && !latency) {
    throw new UsageError("--settle needs --latency: it leaves messages out of the percentiles");
  }
  if (offsetFile !== undefined) {
    if (!ack) throw new UsageError("--offset-file needs --ack: it stores the acknowledged offset");
    const folder = dirname(resolve(offsetFile));
    const what = `--offset-file ${JSON.stringify(offsetFile)}`;
    const isFolder = (path: string) => statSync(path, { throwIfNoEntry: false })?.isDirectory();
    if (!isFolder(folder)) {
      throw new UsageError(`${what} must be in a folder that exists: ${folder} is not a folder`);
    }
    if (isFolder(offsetFile)) throw new UsageError(`${what} must be a file: it is a folder`);
  }
  if (ack && (reply === undefined ? mode === "naive" : reply !== null)) {
    throw new UsageError(
      "--ack and replies exclude each other: the server would read replies as " +
        "acknowledgements; add --reply none",
    );
  }
}

function ackOptions(file: string | undefined): AckOptions {
  if (file === undefined) return {};
  return {
    ...readOffset(file),
    onStore: (offset, stream) => writeOffset(file, { offset, stream }),
  };
}

/** One line that says what is missing or damaged; undefined if nothing is. */
function deliveryFailure({ verified, missed = 0 }: DrainResult): string | undefined {
  if (verified !== undefined) {
    if (isFaultless(verified)) return undefined;
    const { damaged, messages } = verified;
    return `${describeVerified(verified)}${damaged < messages ? "" : `; ${NUMBERED_HINT}`}`;
  }
  if (missed === 0) return undefined;
  return `${missed} bytes are missing: the server no longer had the bytes after the stored offset`;
}

/**
 * One line that says why there are no percentiles; undefined if there are, if they were not requested,
 * and if there may be none: with `--settle`, or when less than one message arrived.
 */
function latencyFailure(
  { latency, bytes }: DrainResult,
  { latency: requested, size = DEFAULT_NUMBERED_SIZE, settle }: {
    latency: boolean;
    size: number | undefined;
    settle: number | undefined;
  },
): string | undefined {
  if (!requested || latency !== undefined || settle !== undefined || bytes < size) return undefined;
  return `nothing to measure: no message of ${
    formatSize(size)
  } bytes carries a time within a day of now; ${NUMBERED_HINT}`;
}

const NUMBERED_HINT = "does the server run with --message numbered and the same --size?";

const isFaultless = ({ missing, duplicates, outOfOrder, damaged }: DrainVerified): boolean =>
  missing + duplicates + outOfOrder + damaged === 0;

function describeVerified(verified: DrainVerified): string {
  const { messages, missing, duplicates, outOfOrder, damaged } = verified;
  if (messages === 0 && missing === 0) return "no messages received";
  if (isFaultless(verified)) return `all ${messages} messages arrived in order`;
  const duplicated = duplicates === 1 ? "1 duplicate" : `${duplicates} duplicates`;
  return `${messages} messages received: ${missing} missing, ${duplicated}, ` +
    `${outOfOrder} out of order, ${damaged} damaged`;
}

/** The result as text: how it ended, and how fast it was. */
function format(result: DrainResult): string {
  const { ended, errno, seconds, readAhead, replies, forwarded } = result;
  const how = ended === "interrupted" ? ended : `ended by ${ended}`;
  const ahead = readAhead > result.readSize
    ? `, which reads up to ${formatSize(readAhead)} ahead`
    : "";
  const activity = [
    `${formatCount(result.reads)} reads of up to ${formatSize(result.readSize)}`,
    ...(replies > 0 ? [`${formatCount(replies)} replies`] : []),
    ...(forwarded !== undefined ? [`${formatBytes(forwarded)} forwarded`] : []),
  ];
  return `${how}${errno === undefined ? "" : ` (${errno})`} after ${formatBytes(result.bytes)}\n` +
    `${formatByteRate(result.bytesPerSecond)} for ${formatSeconds(seconds)}: ${
      activity.join(", ")
    }; ` +
    `${result.mode}, on ${result.runtime}${ahead}` +
    [...detailLines(result)].map((line) => `\n${line}`).join("");
}

/** Further lines on what was requested: verification, latency, acknowledgement. */
function* detailLines({ verified, latency, stored, missed = 0 }: DrainResult): Generator<string> {
  if (verified !== undefined) {
    const { partial } = verified;
    yield describeVerified(verified) +
      (partial === undefined ? "" : `; the last message is incomplete: ${partial} bytes`);
  }
  if (latency !== undefined) {
    yield describeLatency(latency);
    yield formatTable([LATENCY_HEAD, formatPercentiles(latency)]);
  }
  if (stored !== undefined) {
    yield `stored up to offset ${stored.offset} of stream ${stored.stream}` +
      (missed === 0 ? "" : `; ${missed} bytes before it are missing`);
  }
}

/** The default export of a module. Throws a UsageError when the file or its default export is missing. */
async function loadHandler(file: string): Promise<DrainHandler> {
  const path = resolve(file);
  const what = `--handler ${JSON.stringify(file)}`;
  try {
    if (!statSync(path).isFile()) throw new UsageError(`${what} is not a file`);
  } catch (error) {
    if ((error as { code?: string }).code !== "ENOENT") throw error;
    throw new UsageError(`${what} does not exist: must be a TypeScript or JavaScript module`);
  }
  let module: { default?: unknown };
  try {
    module = await import(pathToFileURL(path).href);
  } catch (error) {
    throw new Error(`${what} cannot be loaded: ${(error as Error).message}`, { cause: error });
  }
  if (typeof module.default === "function") return module.default as DrainHandler;
  throw new UsageError(
    `${what} must export a function as its default, as in export default (chunk) => {}`,
  );
}
