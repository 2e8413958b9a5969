/**
 * The drain client: the article's reader, naive or fixed, as a command and as `drain()`.
 *
 *     bun run client.ts --mode naive          # until the server hangs up on it
 *     deno task client 127.0.0.1:8000 --handler my_code.ts --json
 */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { choice, flag, option, parseCommandLine, UsageError } from "./src/command_line.ts";
import { drain, type DrainHandler, type DrainResult } from "./src/drain.ts";
import { interrupted, print, report, runMain } from "./src/program.ts";
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
} from "./src/units.ts";

export {
  drain,
  type DrainEnd,
  type DrainHandler,
  type DrainMode,
  type DrainOptions,
  type DrainResult,
} from "./src/drain.ts";

/** The largest read that every runtime can allocate a buffer for. */
const MOST_READ_SIZE = 2 ** 30;
/** SO_RCVBUF is an int, of which the kernel makes the double. */
const MOST_BUFFER = 2 ** 30 - 1;

const spec = {
  name: "client",
  summary: "The drain client: reads from a TCP server, and tells how fast and how it ended.\n" +
    "Exits 1 when the server ended it by a reset, 130 when interrupted.",
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
    json: flag("prints the result as one JSON object"),
  },
};

/** The command; its exit status. Throws a UsageError, a NetError, or what the handler threw. */
export async function main(args: readonly string[], called = "client.ts"): Promise<number> {
  const usage = [`${called} [HOST:PORT] [OPTIONS]`];
  const { options, positionals: { server } } = parseCommandLine({ ...spec, usage }, args);
  const handler = options.handler === undefined ? undefined : await loadHandler(options.handler);
  const result = await drain({
    ...server,
    ...options,
    handler,
    workMs: options.work,
    receiveBuffer: options.rcvbuf,
    durationMs: options.duration,
    signal: interrupted(),
    onConnected: (remote) => {
      if (!options.json) report(`connected to ${formatHostPort(remote)}`);
    },
  });
  print(
    options.json ? JSON.stringify({ schema: "speedlimit/drain@1", ...result }) : format(result),
  );
  if (result.ended === "interrupted") return 130;
  return result.ended === "reset" || result.ended === "error" ? 1 : 0;
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
    `${result.mode}, on ${result.runtime}${ahead}`;
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

if (import.meta.main) await runMain("client", main);
