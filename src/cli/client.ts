/**
 * The drain client: the article's reader, naive or fixed, as a command and as `drain()`.
 *
 *     bun run client.ts --mode naive          # until the server hangs up on it
 *     deno task client 127.0.0.1:8000 --handler my_code.ts --json
 */
import { statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { choice, flag, option, parseCommandLine, UsageError } from "./command_line.ts";
import { isReaderName } from "../message/protocol.ts";
import { type AckOptions, OtherStreamError } from "../read/acknowledger.ts";
import { drain, type DrainHandler, type DrainResult, type DrainVerified } from "../read/drain.ts";
import { describeLatency, formatPercentiles, LATENCY_HEAD } from "../read/latency.ts";
import { readOffset, writeOffset } from "../message/offset_file.ts";
import { interrupted, print, report } from "./program.ts";
import { DEFAULT_NUMBERED_SIZE, LEAST_NUMBERED_SIZE } from "../message/numbered.ts";
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

/** The largest read that every runtime can allocate a buffer for. */
const MOST_READ_SIZE = 2 ** 30;
/** SO_RCVBUF is an int, of which the kernel makes the double. */
const MOST_BUFFER = 2 ** 30 - 1;
/** As the server has it. */
const MOST_MESSAGE = 2 ** 28;

const spec = {
  name: "client",
  summary: "The drain client: reads from a TCP server, and tells how fast and how it ended.\n" +
    "Exits 1 when the server ended it by a reset or something is missing, 130 when interrupted.",
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
      help: "the article's reader, or its fix",
      choices: ["naive", "drain"],
      default: "drain",
    }),
    readSize: option({
      value: "SIZE",
      help: "the most that one read takes (default 10 when naive, else 64k)",
      parse: (text) => parseBytes(text, { most: MOST_READ_SIZE }),
    }),
    runtimeReads: flag("reads as the runtime itself does, never past it: its own speed"),
    reply: option({
      value: "TEXT|none",
      help: 'sent after each read (default "Hi i got the data" when naive, else none)',
      parse: (text) => text === "none" ? null : text,
    }),
    work: option({
      value: "TIME",
      help: "time spent computing after each read, such as 50us (default none)",
      parse: (text) => parseDuration(text, { least: 0 }),
    }),
    handler: option({
      value: "FILE.ts",
      help: "a module whose default export is called with each chunk, a Uint8Array",
      parse: (text) => text,
    }),
    forward: option({
      value: "HOST:PORT",
      help: "sends what the handler returns, or each chunk, on to this server",
      parse: parseHostPort,
    }),
    rcvbuf: option({
      value: "SIZE",
      help: "SO_RCVBUF, of which the kernel takes the double (default: tuned)",
      parse: (text) => parseBytes(text, { most: MOST_BUFFER }),
    }),
    duration: option({
      value: "TIME",
      help: "stops after this time, such as 10s",
      parse: parseDuration,
    }),
    count: option({ value: "SIZE", help: "stops after this many bytes", parse: parseBytes }),
    verify: flag("checks numbered messages: none missing, twice, out of order or damaged"),
    latency: flag(
      "tells how late they come: percentiles from the planned send to the read",
    ),
    settle: option({
      value: "TIME",
      help: "leaves out what was planned within so long of the first read; needs --latency",
      parse: parseDuration,
    }),
    size: option({
      value: "SIZE",
      help: `the size of those messages (default ${DEFAULT_NUMBERED_SIZE})`,
      parse: (text) => parseBytes(text, { least: LEAST_NUMBERED_SIZE, most: MOST_MESSAGE }),
    }),
    hello: option({
      value: "NAME",
      help: "says this name first, to a server with --reader-id hello",
      parse: parseName,
    }),
    ack: flag("acknowledges what it has handled, to a server with --ack reader"),
    offsetFile: option({
      value: "FILE",
      help: "keeps how far it has come, and goes on from there; needs --ack",
      parse: (text) => text,
    }),
    json: flag("prints the result as one JSON object"),
  },
};

/**
 * The command; its exit status. Throws a UsageError, a NetError, what the handler threw, or, once the
 * result is printed, an Error that says what is missing.
 */
export async function main(args: readonly string[], called = "client.ts"): Promise<number> {
  const usage = [`${called} [HOST:PORT] [OPTIONS]`];
  const { options, positionals: { server } } = parseCommandLine({ ...spec, usage }, args);
  check(options);
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
      if (!options.json) report(`connected to ${formatHostPort(remote)}`);
    },
  });
  const result = await draining.catch((error) => {
    if (!(error instanceof OtherStreamError) || offsetFile === undefined) throw error;
    const way = `${offsetFile} is left as it is: remove it to begin with what that stream has`;
    throw new Error(`${error.message}; ${way}`, { cause: error });
  });
  print(
    options.json ? JSON.stringify({ schema: "speedlimit/drain@2", ...result }) : format(result),
  );
  const wrong = complaint(result) ?? unmeasured(result, options);
  if (wrong !== undefined) throw new Error(wrong);
  if (result.ended === "interrupted") return 130;
  return result.ended === "reset" || result.ended === "error" ? 1 : 0;
}

function parseName(text: string): string {
  if (isReaderName(text)) return text;
  throw new UnitError("must be a name of 1 to 64 letters, digits, dots, underscores and hyphens");
}

/** Throws a UsageError for options that need or exclude each other. */
function check(options: {
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
    throw new UsageError("--settle needs --latency: it is what that leaves out");
  }
  if (offsetFile !== undefined) {
    if (!ack) throw new UsageError("--offset-file needs --ack: it keeps what is acknowledged");
    const folder = dirname(resolve(offsetFile));
    const what = `--offset-file ${JSON.stringify(offsetFile)}`;
    const isFolder = (path: string) => statSync(path, { throwIfNoEntry: false })?.isDirectory();
    if (!isFolder(folder)) {
      throw new UsageError(`${what} must be in a folder that exists: ${folder} is none`);
    }
    if (isFolder(offsetFile)) throw new UsageError(`${what} must be a file: it is a folder`);
  }
  if (ack && (reply === undefined ? mode === "naive" : reply !== null)) {
    throw new UsageError(
      "--ack and replies exclude each other: the server takes what it reads for " +
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

/** One line on what is missing or worse; undefined: nothing is. */
function complaint({ verified, missed = 0 }: DrainResult): string | undefined {
  if (verified !== undefined) {
    if (isSound(verified)) return undefined;
    const { damaged, messages } = verified;
    return `not ${verdict(verified)}${damaged < messages ? "" : `; ${NUMBERED}`}`;
  }
  if (missed === 0) return undefined;
  return `${missed} bytes are missing: the server no longer had what follows the stored offset`;
}

/** One line on why there are no percentiles; undefined: there are, or too little has come for any. */
function unmeasured(
  { latency, bytes }: DrainResult,
  { latency: asked, size = DEFAULT_NUMBERED_SIZE, settle }: {
    latency: boolean;
    size: number | undefined;
    settle: number | undefined;
  },
): string | undefined {
  if (!asked || latency !== undefined || settle !== undefined || bytes < size) return undefined;
  return `nothing to measure: no message of ${
    formatSize(size)
  } bytes carries a time of these days; ${NUMBERED}`;
}

/** What to look at when not one message is as expected. */
const NUMBERED = "does the server send --message numbered, of that --size?";

const isSound = ({ missing, duplicates, outOfOrder, damaged }: DrainVerified): boolean =>
  missing + duplicates + outOfOrder + damaged === 0;

function verdict(verified: DrainVerified): string {
  const { messages, missing, duplicates, outOfOrder, damaged } = verified;
  if (isSound(verified)) return `whole and in order: ${messages} messages`;
  return `whole and in order: ${missing} missing, ${duplicates} twice, ${outOfOrder} out of order, ` +
    `${damaged} damaged, of ${messages} messages that came`;
}

/** The result for people: how it ended, and how fast it was. */
function format(result: DrainResult): string {
  const { ended, errno, seconds, readAhead, replies, forwarded } = result;
  const how = ended === "interrupted" ? ended : `ended by ${ended}`;
  const ahead = readAhead > result.readSize
    ? `, which reads up to ${formatSize(readAhead)} ahead`
    : "";
  const did = [
    `${formatCount(result.reads)} reads of up to ${formatSize(result.readSize)}`,
    ...(replies > 0 ? [`${formatCount(replies)} replies`] : []),
    ...(forwarded !== undefined ? [`${formatBytes(forwarded)} forwarded`] : []),
  ];
  return `${how}${errno === undefined ? "" : ` (${errno})`} after ${formatBytes(result.bytes)}\n` +
    `${formatByteRate(result.bytesPerSecond)} for ${formatSeconds(seconds)}: ${did.join(", ")}; ` +
    `${result.mode}, on ${result.runtime}${ahead}` +
    [...proofs(result)].map((line) => `\n${line}`).join("");
}

/** What became of the stream, where that was asked for. */
function* proofs({ verified, latency, stored, missed = 0 }: DrainResult): Generator<string> {
  if (verified !== undefined) {
    const { partial } = verified;
    yield (isSound(verified) ? verdict(verified) : `not ${verdict(verified)}`) +
      (partial === undefined ? "" : `, and ${partial} bytes of one that was cut off`);
  }
  if (latency !== undefined) {
    yield describeLatency(latency);
    yield formatTable([LATENCY_HEAD, formatPercentiles(latency)]);
  }
  if (stored !== undefined) {
    yield `stored up to ${stored.offset} of stream ${stored.stream}` +
      (missed === 0 ? "" : `, of which ${missed} bytes were gone`);
  }
}

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
