/**
 * The flood server: the article's server A, as a command and as `serve()`.
 *
 *     deno task serve                       # 13-byte messages at 1M/s on 127.0.0.1:8000
 *     bun run server.ts --rate 20MB/s --overflow drop
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { choice, flag, option, parseCommandLine, UsageError } from "./src/command_line.ts";
import { ARTICLE_MESSAGE, fillerMessage, type Message, textMessage } from "./src/message.ts";
import { runtime } from "./src/net.ts";
import { interrupted, print, report, runMain } from "./src/program.ts";
import { serve, type ServeEvent } from "./src/serve.ts";
import {
  formatByteRate,
  formatBytes,
  formatCount,
  formatHostPort,
  formatSeconds,
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
/** Up to this many messages a second the log names each, beyond it one every `SAMPLE_MS`. */
const LOG_EACH_UP_TO = 1000;
const SAMPLE_MS = 100;

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
    parse: (text) => fillerMessage(parseBytes(text, { most: MOST_MESSAGE })),
  }),
};

const spec = {
  name: "server",
  summary:
    "The flood server: sends messages to every reader at a fixed rate, whether the reader\n" +
    "keeps up or not. The defaults are the server of the article.",
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
      help: "messages (1M/s) or bytes (20MB/s) a second to each reader, or max",
      default: "1M/s",
      parse: parseRate,
    }),
    ...MESSAGE_OPTIONS,
    overflow: choice({
      help: "what to do when the kernel takes no more and the backlog is over its bound",
      choices: ["close", "reset", "block", "drop"],
      default: "close",
    }),
    backlog: option({
      value: "SIZE",
      help: "what may wait for the kernel before that",
      default: "0",
      parse: (text) => parseBytes(text, { least: 0 }),
    }),
    replies: choice({
      help: "what becomes of what readers send",
      choices: ["ignore", "drain"],
      default: "ignore",
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
      help: "generates for so long from the first reader on, delivers what is pending, ends",
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

function parseHost(text: string): string {
  const host = text.replace(/^\[(.*)\]$/, "$1");
  if (/^[\w.:%-]+$/.test(host)) return host;
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
export function chooseMessage(message: Message | undefined, size: Message | undefined): Message {
  if (message !== undefined && size !== undefined) {
    throw new UsageError("--message and --size exclude each other: give one of them");
  }
  return message ?? size ?? textMessage(ARTICLE_MESSAGE);
}

/** A rate in messages a second. */
function messagesPerSecond(rate: Rate, { size }: Message): number {
  if (rate === "max") return Infinity;
  return "messagesPerSecond" in rate ? rate.messagesPerSecond : rate.bytesPerSecond / size;
}

/** The command, by the name that it was called by; its exit status. Throws a UsageError or a NetError. */
export async function main(args: readonly string[], called = "server.ts"): Promise<number> {
  const { options } = parseCommandLine({ ...spec, usage: [`${called} [OPTIONS]`] }, args);
  const { log: logFile, json } = options;
  const message = chooseMessage(options.message, options.size);
  const rate = messagesPerSecond(options.rate, message);
  const each = rate <= LOG_EACH_UP_TO;
  const log = logFile === undefined ? undefined : new Log(logFile, rate, each);
  const signal = interrupted();
  const tell = json
    ? (event: ServeEvent) => print(JSON.stringify(event))
    : (event: ServeEvent) => tellPeople(event, message, rate, options.overflow);
  try {
    const server = await serve({
      host: options.host,
      port: options.port,
      message,
      rate,
      overflow: options.overflow,
      backlog: options.backlog,
      replies: options.replies,
      ...(options.sndbuf === undefined ? {} : { sendBuffer: options.sndbuf }),
      ...(options.duration === undefined ? {} : { durationMs: options.duration }),
      ...(options.maxReaders === undefined ? {} : { maxReaders: options.maxReaders }),
      ...(log === undefined ? {} : { sentEveryMs: each ? 1 : SAMPLE_MS }),
      signal,
      onEvent(event) {
        log?.write(event);
        if (event.event !== "sent") tell(event);
      },
    });
    await server.done;
  } finally {
    log?.close();
  }
  return signal.aborted ? 130 : 0;
}

function tellPeople(event: ServeEvent, message: Message, rate: number, policy: string): void {
  switch (event.event) {
    case "listening": {
      const pace = rate === Infinity
        ? "as fast as it goes"
        : `${formatCount(rate)}/s (${formatByteRate(rate * message.size)})`;
      return print(
        `listening on ${formatHostPort(event)} (${runtime}): ${
          formatBytes(message.size)
        } messages ` +
          `at ${pace} to each reader, on overflow ${policy}`,
      );
    }
    case "reader":
      return print(`reader ${event.reader} connected from ${formatHostPort(event)}`);
    case "refused":
      return report(`refused ${formatHostPort(event)}: ${event.readers} readers are here already`);
    case "overflow":
      return print(`reader ${event.reader}: ${overflowLine(event)}`);
    case "closed":
      return print(
        `reader ${event.reader}: ${closedLine(event)} after ${formatSeconds(event.seconds)}: ` +
          `${event.messages} messages, ${formatBytes(event.bytes)}` +
          (event.dropped > 0 ? `, ${event.dropped} dropped` : ""),
      );
    case "done":
      return print(`done: ${event.readers} readers, ${event.messages} messages`);
  }
}

const ACTIONS = { close: "closing", reset: "resetting", block: "waiting", drop: "dropping" };

function overflowLine(event: ServeEvent & { event: "overflow" }): string {
  const { policy, messages, backlog } = event;
  return `send buffer full, ${ACTIONS[policy]} after ${messages} messages` +
    (backlog > 0 && backlog < Infinity ? `, ${formatBytes(backlog)} waiting` : "");
}

function closedLine({ reason, errno }: ServeEvent & { event: "closed" }): string {
  if (reason === "local") return "closed by us";
  return reason === "eof" ? "closed by it" : `ended by ${reason} (${errno})`;
}

/** The article's server.log, in meaning: each message by its number, and the end that came. */
class Log {
  readonly #fd: number;
  readonly #each: boolean;
  readonly #sent = new Map<number, number>();

  /** Throws an Error with one line when the file cannot be written. */
  constructor(file: string, rate: number, each: boolean) {
    this.#each = each;
    try {
      this.#fd = openSync(file, "a");
    } catch (error) {
      throw new Error(`cannot write the log ${file}: ${(error as Error).message}`, {
        cause: error,
      });
    }
    const pace = rate === Infinity ? "as fast as it goes" : `${formatCount(rate)}/s`;
    this.#line(
      each
        ? `messages at ${pace}, each is logged`
        : `messages at ${pace}, sampled: one in ${SAMPLE_MS} ms is logged`,
    );
  }

  write(event: ServeEvent): void {
    switch (event.event) {
      case "sent": {
        const last = this.#sent.get(event.reader) ?? 0;
        this.#sent.set(event.reader, event.messages);
        for (let n = this.#each ? last + 1 : event.messages; n <= event.messages; n++) {
          this.#line(`reader ${event.reader}: sent message ${n}`);
        }
        return;
      }
      case "overflow":
        return this.#line(`reader ${event.reader}: ${overflowLine(event)}`);
      case "closed":
        return this.#line(
          `reader ${event.reader}: ${closedLine(event)} after ${event.messages} messages`,
        );
    }
  }

  #line(text: string): void {
    writeSync(this.#fd, `${new Date().toISOString()} ${text}\n`);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

if (import.meta.main) await runMain("server", main);
