/**
 * The flood server: the article's server A, as a command and as `serve()`.
 *
 *     deno task serve                       # 13-byte messages at 1M/s on 127.0.0.1:8000
 *     bun run server.ts --rate 20MB/s --overflow drop
 */
import { accessSync, constants, statSync } from "node:fs";
import {
  choice,
  flag,
  option,
  parseCommandLine,
  UsageError,
  type Values,
} from "./src/command_line.ts";
import { FileSource } from "./src/file_source.ts";
import type { SequenceMessage } from "./src/flood_source.ts";
import { type Frame, LONGEST_MESSAGE, parseFrame } from "./src/frame.ts";
import { ARTICLE_MESSAGE, fillerMessage, type Message, textMessage } from "./src/message.ts";
import { interrupted, print, report, runMain } from "./src/program.ts";
import { readOffset, writeOffset } from "./src/offset_file.ts";
import type { Queue } from "./src/queue.ts";
import { DEFAULT_SEQUENCE_SIZE, LEAST_SEQUENCE_SIZE } from "./src/sequence.ts";
import { Log, type Purpose, tellPeople } from "./src/serve_text.ts";
import { serve, type ServeEvent, type ServeOptions } from "./src/serve.ts";
import { openSqliteQueue } from "./src/sqlite_queue.ts";
import { parseSource, type Source } from "./src/source.ts";
import { TcpSource } from "./src/tcp_source.ts";
import {
  formatBytes,
  formatSize,
  isHost,
  parseBytes,
  parseCount,
  parseDuration,
  parsePort,
  parseRate,
  type Rate,
  UnitError,
} from "./src/units.ts";

export {
  type ReaderTotals,
  serve,
  type ServeEvent,
  type ServeOptions,
  type Server,
  type ServeResult,
} from "./src/serve.ts";

/** A message is kept in memory, and is the unit of every policy. */
const MOST_MESSAGE = 2 ** 28;
/** SO_SNDBUF is an int, of which the kernel makes the double. */
const MOST_BUFFER = 2 ** 30 - 1;
/** What is sent: the two options that every command with a flood takes; see `chooseMessage`. */
export const MESSAGE_OPTIONS = {
  message: option({
    value: "TEXT",
    help: "what each message says; \\n, \\t, \\0 and \\\\ as in C (default Hello World!\\0)",
    parse: parseMessage,
  }),
  size: option({
    value: "SIZE",
    help: "messages of so many bytes instead",
    parse: (text) => parseBytes(text, { most: MOST_MESSAGE }),
  }),
};

const spec = {
  name: "server",
  summary:
    "The flood server: sends messages to every reader at a fixed rate, whether the reader\n" +
    "keeps up or not. The defaults are the server of the article. With --overflow spill what a\n" +
    "slow reader does not take waits on disk, also for one that is away; with --source it passes\n" +
    "on what comes from elsewhere.",
  options: {
    host: option({
      value: "HOST",
      help: "the address to listen on; any other than loopback must be asked for",
      default: "127.0.0.1",
      parse: parseHost,
    }),
    port: option({
      value: "PORT",
      help: "0: any free one",
      default: "8000",
      parse: (text) => parsePort(text, { least: 0 }),
    }),
    rate: option({
      value: "RATE",
      help: "messages (1M/s) or bytes (20MB/s) a second to each reader, or max (default 1M/s; " +
        "of a source, as it comes)",
      parse: parseRate,
    }),
    message: option({
      value: "TEXT|seq",
      help: "what each message says; \\n, \\t, \\0 and \\\\ as in C (default Hello World!\\0); " +
        "seq: numbered ones, the default with spill",
      parse: (text) => text === "seq" ? text : parseMessage(text),
    }),
    size: MESSAGE_OPTIONS.size,
    source: option({
      value: "tcp://HOST:PORT|FILE|-",
      help:
        "passes messages on from there (-: standard input) instead; none: only what waits on disk",
      parse: (text) => text === "none" ? text : parseSource(text),
    }),
    frame: option({
      value: "FRAME",
      help: "where the source's messages end: fixed:N, line, u32 (length in front) or none",
      parse: parseFrame,
    }),
    maxMessage: option({
      value: "SIZE",
      help: "the longest line, or announced length, that is taken from the source (default " +
        `${formatSize(LONGEST_MESSAGE)})`,
      parse: (text) => parseBytes(text, { most: MOST_MESSAGE }),
    }),
    sourceAck: flag("the tcp source keeps what we have not acknowledged (--ack reader there)"),
    overflow: choice({
      help: "what to do when the kernel takes no more and the backlog is over its bound",
      choices: ["close", "reset", "block", "drop", "spill"],
      default: "close",
    }),
    backlog: option({
      value: "SIZE",
      help: "what may wait in memory before that (default 0; 8M for spill)",
      parse: (text) => parseBytes(text, { least: 0 }),
    }),
    low: option({
      value: "SIZE",
      help: "what may still wait when spill goes back to memory (default half the backlog)",
      parse: (text) => parseBytes(text, { least: 0 }),
    }),
    deadAfter: option({
      value: "TIME",
      help:
        "resets a reader whose window was zero and that took nothing for so long (default never)",
      parse: parseDuration,
    }),
    spill: option({
      value: "FILE",
      help: "the queue on disk: made when it is not there, gone on with when it is",
      parse: (text) => text,
    }),
    sync: option({
      value: "always|interval:TIME|off",
      help: "what a power failure may cost: nothing, that much time, or the queue (default " +
        "interval:100ms)",
      parse: parseSync,
    }),
    spillMax: option({
      value: "SIZE",
      help: "what the queue may hold (default: what the disk can)",
      parse: parseBytes,
    }),
    spillFull: choice({
      help: "what to do with new messages when it holds that (default block)",
      choices: ["block", "drop"],
    }),
    readerId: choice({
      help:
        "who comes back: the one reader there is, the one with the same address, or who says the " +
        "same name in its first line (default single)",
      choices: ["single", "address", "hello"],
    }),
    ack: choice({
      help:
        "what counts as delivered: taken by our kernel, acknowledged by the reader's, or by the " +
        "reader itself (default tcp, where the kernel tells)",
      choices: ["none", "tcp", "reader"],
    }),
    replies: choice({
      help: "what becomes of what readers send (default ignore; drain with --overflow spill, " +
        "--source or --ack)",
      choices: ["ignore", "drain"],
    }),
    sndbuf: option({
      value: "SIZE",
      help: "SO_SNDBUF; the kernel takes the double (default: it tunes itself)",
      parse: (text) => parseBytes(text, { most: MOST_BUFFER }),
    }),
    log: option({
      value: "FILE",
      help: "writes the number of each message sent, and why a connection ended",
      parse: (text) => text,
    }),
    duration: option({
      value: "TIME",
      help: "generates for so long (a plain flood: from the first reader on), delivers what is " +
        "pending, ends",
      parse: parseDuration,
    }),
    maxReaders: option({
      value: "N",
      help: "readers at once; a further one is hung up on (default: no limit)",
      parse: parseCount,
    }),
    json: flag("prints one JSON object a line for all that happens"),
  },
};

type Options = Values<typeof spec.options>;

function parseSync(text: string): "always" | "off" | { intervalMs: number } {
  if (text.startsWith("interval:")) return { intervalMs: parseDuration(text.slice(9)) };
  if (text === "always" || text === "off") return text;
  throw new UnitError("must be always, off, or an interval such as interval:100ms");
}

function parseHost(text: string): string {
  const host = text.replace(/^\[(.*)\]$/, "$1");
  if (isHost(host)) return host;
  throw new UnitError("must be an address or a host name such as 127.0.0.1, 0.0.0.0 or ::1");
}

const ESCAPES: Record<string, string> = { n: "\n", t: "\t", r: "\r", "0": "\0", "\\": "\\" };

/** A message from the command line, with C's escapes. Throws a UnitError. */
export function parseMessage(text: string): Message {
  return textMessage(text.replace(/\\(.?)/gs, (_, letter: string) => {
    const escaped = ESCAPES[letter];
    if (escaped === undefined) {
      throw new UnitError("must use \\n, \\t, \\r, \\0 or \\\\ as escapes");
    }
    return escaped;
  }));
}

/** The message that two options choose. Throws a UsageError when both do. */
export function chooseMessage(message: Message | undefined, size: number | undefined): Message {
  if (message !== undefined && size !== undefined) {
    throw new UsageError("--message and --size exclude each other: give one of them");
  }
  return message ?? (size === undefined ? textMessage(ARTICLE_MESSAGE) : fillerMessage(size));
}

function chooseServed({ message, size, overflow }: Options): Message | SequenceMessage {
  const numbered = message === "seq" ||
    (overflow === "spill" && message === undefined && size === undefined);
  if (!numbered) return chooseMessage(message as Message | undefined, size);
  const length = size ?? DEFAULT_SEQUENCE_SIZE;
  if (length >= LEAST_SEQUENCE_SIZE) return { sequence: true, size: length };
  throw new UsageError(
    `--size ${length}: a numbered message has at least ${formatBytes(LEAST_SEQUENCE_SIZE)}`,
  );
}

/** A rate in messages a second. */
function messagesPerSecond(rate: Rate, { size }: { readonly size: number }): number {
  if (rate === "max") return Infinity;
  return "messagesPerSecond" in rate ? rate.messagesPerSecond : rate.bytesPerSecond / size;
}

/** What goes only with something else. Throws a UsageError. */
function checkTogether(options: Options): void {
  const { source, spill, overflow } = options;
  const needs = (name: keyof Options, what: string, there: boolean) => {
    if (options[name] === undefined || options[name] === false || there) return;
    const option = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    throw new UsageError(`--${option} needs ${what}`);
  };
  const spills = overflow === "spill";
  if (spills && spill === undefined) {
    throw new UsageError("--overflow spill needs --spill FILE: where what is over the bound waits");
  }
  for (const name of ["spill", "sync", "spillMax", "spillFull", "low"] as const) {
    needs(name, "--overflow spill", spills);
  }
  if (source === "none" && !spills) {
    throw new UsageError("--source none needs --overflow spill: nothing else is there to be sent");
  }
  const { low, backlog, ack, replies } = options;
  if (low !== undefined && backlog !== undefined && low > backlog) {
    throw new UsageError(
      "--low must not be above --backlog: it would go to disk and back all the time",
    );
  }
  if (ack === "reader" && replies === "ignore") {
    throw new UsageError(
      "--ack reader and --replies ignore exclude each other: it has to be heard",
    );
  }
  needs(
    "frame",
    "--source tcp://HOST:PORT, a file or -",
    source !== undefined && source !== "none",
  );
  const framed = options.frame?.kind === "line" || options.frame?.kind === "u32";
  needs("maxMessage", "--frame line or u32: only those tell where a message ends", framed);
  const tcp = typeof source === "object" && source.kind === "tcp";
  needs("sourceAck", "--source tcp://HOST:PORT", tcp);
  if (source !== undefined) {
    for (const name of ["message", "size"] as const) {
      if (options[name] !== undefined) {
        throw new UsageError(
          `--${name} and --source exclude each other: what is sent comes from there`,
        );
      }
    }
    if (options.rate !== undefined && (tcp || source === "none")) {
      throw new UsageError("--rate paces a flood, a file or standard input: tcp comes as it comes");
    }
  }
}

/** It ends at once: what waits on disk is all there is. */
const NOTHING: Source = { replayable: true, run: () => Promise.resolve(), stop() {} };

const NO_FRAME: Frame = { kind: "none" };

function openSource(options: Options): Source | undefined {
  const { source, frame = NO_FRAME, rate, maxMessage, sourceAck: acknowledged, spill } = options;
  if (source === undefined) return undefined;
  if (source === "none") return NOTHING;
  if (source.kind === "file") {
    const { path } = source;
    if (path !== "-") checkReadable(path);
    return new FileSource({ path, frame, maxMessage, rate });
  }
  const { host, port } = source;
  const stream = spill === undefined ? undefined : readOffset(upstreamFile(spill))?.stream;
  return new TcpSource({ host, port, frame, maxMessage, acknowledged, stream });
}

/** Now, and not when the first reader comes. Throws an Error with one line. */
function checkReadable(path: string): void {
  try {
    accessSync(path, constants.R_OK);
  } catch (cause) {
    throw new Error(`cannot read the source ${path}: ${(cause as Error).message}`, { cause });
  }
  if (statSync(path).isDirectory()) {
    throw new Error(`cannot read the source ${path}: it is a directory, and must be a file`);
  }
}

/** Beside the queue: whose offsets the positions in it are, for a source that acknowledges. */
const upstreamFile = (spill: string): string => `${spill}.upstream`;

/** A server that starts again has to know which stream of the upstream's it goes on with. */
async function keepUpstream(spill: string, event: ServeEvent): Promise<void> {
  if (event.event !== "source" || event.what.event !== "connected") return;
  const { stream, position = 0 } = event.what;
  const file = upstreamFile(spill);
  if (stream === undefined || readOffset(file)?.stream === stream) return;
  await writeOffset(file, { offset: position, stream });
}

async function openQueue({ spill, sync, spillMax }: Options): Promise<Queue | undefined> {
  if (spill === undefined) return undefined;
  return await openSqliteQueue(spill, {
    sync: sync ?? { intervalMs: 100 },
    ...(spillMax === undefined ? {} : { maxBytes: spillMax }),
    onDamage: ({ reader, offset, bytes, reason }) =>
      report(
        `${spill}: ${
          formatBytes(bytes)
        } for ${reader} at offset ${offset} are set aside: ${reason}`,
      ),
  });
}

/** The command, by the name that it was called by; its exit status. Throws a UsageError or a NetError. */
export async function main(args: readonly string[], called = "server.ts"): Promise<number> {
  const { options } = parseCommandLine({ ...spec, usage: [`${called} [OPTIONS]`] }, args);
  checkTogether(options);
  const message = chooseServed(options);
  const rate = messagesPerSecond(options.rate ?? { messagesPerSecond: 1e6 }, message);
  const log = options.log === undefined ? undefined : new Log(options.log, rate);
  const signal = interrupted();
  const source = openSource(options);
  const purpose = purposeOf(options, message, rate);
  const tell = options.json
    ? (event: ServeEvent) => print(JSON.stringify(event))
    : (event: ServeEvent) => tellPeople(event, purpose);
  let queue: Queue | undefined;
  try {
    queue = await openQueue(options);
    const server = await serve({
      ...defined({
        host: options.host,
        port: options.port,
        message,
        rate,
        overflow: options.overflow,
        backlog: options.backlog,
        low: options.low,
        replies: options.replies,
        sendBuffer: options.sndbuf,
        durationMs: options.duration,
        maxReaders: options.maxReaders,
        sentEveryMs: log?.everyMs,
        source,
        frame: options.frame,
        queue,
        whenFull: options.spillFull,
        ack: options.ack,
        readerId: options.readerId,
        deadAfterMs: options.deadAfter,
      }),
      signal,
      onEvent(event) {
        log?.write(event);
        if (options.spill !== undefined) {
          keepUpstream(options.spill, event).catch((error) => report(error.message));
        }
        if (event.event !== "sent") tell(event);
      },
    });
    await server.done;
  } finally {
    await queue?.close();
    log?.close();
  }
  return signal.aborted ? 130 : 0;
}

/** Without the properties that are undefined. */
function defined(
  options: { [K in keyof ServeOptions]: ServeOptions[K] | undefined },
): ServeOptions {
  return Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined),
  ) as ServeOptions;
}

function purposeOf(
  { source, frame = NO_FRAME, overflow: policy }: Options,
  { size }: { readonly size: number },
  rate: number,
): Purpose {
  if (source === undefined) return { flood: { size, rate }, policy };
  if (source === "none") return { source: { name: "nothing new", frame }, policy };
  const name = source.kind === "tcp" ? `tcp://${source.host}:${source.port}` : source.path;
  return { source: { name, frame }, policy };
}

if (import.meta.main) await runMain("server", main);
