/**
 * The server command: by default the article's server A, which floods its readers.
 *
 *     deno task serve                       # 13-byte messages at 1M/s on 127.0.0.1:8000
 *     bun run server.ts --rate 20MB/s --overflow drop
 */
import { type Address, isLoopback } from "../kernel/address.ts";
import type { Frame } from "../message/framer.ts";
import { infoLine, logLine, printLine, service, setLineFormat } from "./program.ts";
import type { Queue } from "../queue/queue.ts";
import { printEvent, type ServerDescription } from "./server_events.ts";
import { Log } from "./server_log.ts";
import { serve } from "../relay/serve.ts";
import type { ServeEvent } from "../relay/serve_event.ts";
import type { ServeOptions } from "../relay/serve_options.ts";
import {
  chooseServed,
  longestAccepted,
  parseServerCommandLine,
  type ServerCommand,
} from "./server_options.ts";
import { Systemd } from "./systemd.ts";
import { openDiskQueue } from "../queue/disk_queue.ts";
import { EMPTY_SOURCE } from "../source/empty_source.ts";
import type { Source } from "../source/source.ts";
import { formatBytes, formatHostPort, parseHostPort, type Rate } from "../text/units.ts";
import { ServerStatus } from "./server_status.ts";
import { listenForStatus, type StatusServer } from "./status_http.ts";

/** A rate in messages a second. */
function messagesPerSecond(rate: Rate, { size }: { readonly size: number }): number {
  if (rate === "max") return Infinity;
  return "messagesPerSecond" in rate ? rate.messagesPerSecond : rate.bytesPerSecond / size;
}

/** Messages a second, as far as that is known: a source has its own rate, and messages of any size. */
function loggedRate({ source, rate }: ServerCommand, ofFlood: number): number | undefined {
  if (source === undefined) return ofFlood;
  return typeof rate === "object" && "messagesPerSecond" in rate
    ? rate.messagesPerSecond
    : undefined;
}

const NO_FRAME: Frame = { kind: "none" };

function openSource(options: ServerCommand): Source | undefined {
  const { source, frame = NO_FRAME, rate, sourceAck: acknowledged } = options;
  if (source === undefined) return undefined;
  if (source === "none") return EMPTY_SOURCE;
  const { onBadFrame, sourceIdle: idleMs } = options;
  try {
    const maxMessage = longestAccepted(options);
    return source.open({ frame, maxMessage, onBadFrame, rate, acknowledged, idleMs });
  } catch (error) {
    throw withHint(error as Error, source.name);
  }
}

/** HOST:PORT is taken for the name of a file. */
function withHint(error: Error, name: string): Error {
  if ((error.cause as NodeJS.ErrnoException | undefined)?.code !== "ENOENT") return error;
  try {
    parseHostPort(name);
  } catch {
    return error;
  }
  return new Error(`${error.message}; did you mean --source tcp://${name}?`, { cause: error });
}

async function openQueue(
  { spill, sync, spillMax, retain }: ServerCommand,
): Promise<Queue | undefined> {
  if (spill === undefined) return undefined;
  return await openDiskQueue(spill, {
    sync: sync ?? { intervalMs: 100 },
    ...(spillMax === undefined ? {} : { maxBytes: spillMax }),
    ...(retain === undefined ? {} : { retainMs: retain }),
    onDamage: ({ key, offset, bytes, reason }) =>
      logLine(
        `${spill}: damaged${key === "" ? "" : `, reader ${key}`}: ${formatBytes(bytes)} from ` +
          `offset ${offset} on cannot be delivered: ${reason}`,
        "error",
      ),
  });
}

/**
 * Runs the command; `called` is its name in the usage line. Returns the exit status. Throws a
 * UsageError or a NetError.
 */
export async function main(args: readonly string[], called = "server.ts"): Promise<number> {
  const options = parseServerCommandLine(args, called);
  setLineFormat(options.lineFormat);
  const message = chooseServed(options, infoLine);
  const rate = messagesPerSecond(options.rate ?? { messagesPerSecond: 1e6 }, message);
  const log = options.log === undefined
    ? undefined
    : new Log(options.log, loggedRate(options, rate));
  const { signal, status } = service();
  const source = openSource(options);
  const description = describeServer(options, message, rate);
  const show = options.json
    ? (event: ServeEvent) => printLine(JSON.stringify(event))
    : (event: ServeEvent) => printEvent(event, description);
  let queue: Queue | undefined;
  const about = new ServerStatus();
  let http: StatusServer | undefined;
  const systemd = Systemd.fromEnvironment(logLine);
  const beginEnd = () => {
    about.ending = true;
    systemd?.stopping();
  };
  signal.addEventListener("abort", beginEnd, { once: true });
  try {
    http = await openStatus(options, about);
    queue = await openQueue(options);
    const server = await serve({
      ...defined({
        host: options.host,
        port: options.port,
        connect: options.connect,
        allow: options.allow,
        message,
        rate,
        overflow: options.overflow,
        backlog: options.backlog,
        unread: options.unread,
        after: options.after,
        writeDeadlineMs: options.writeDeadline,
        resumeBelow: options.resumeBelow,
        replies: options.replies,
        sendBuffer: options.sndbuf,
        durationMs: options.duration,
        maxReaders: options.maxReaders,
        sentEveryMs: log?.everyMs,
        source,
        frame: options.frame,
        queue,
        whenFull: options.spillFull,
        durable: options.durable,
        retainMs: options.retain,
        memory: options.memory,
        start: options.start,
        maxReaderNames: options.maxReaderNames,
        ack: options.ack,
        readerId: options.readerId,
        zeroWindowTimeoutMs: options.zeroWindowTimeout,
        deadPeerTimeoutMs: options.deadPeerTimeout,
      }),
      signal,
      onEvent(event) {
        log?.write(event);
        about.count(event);
        if (event.event === "listening") warnOfStrangers(event, options);
        if (event.event !== "sent") show(event);
      },
    });
    about.server = server;
    const doing = options.connect === undefined ? "listening on" : "connecting to";
    systemd?.ready(`${doing} ${formatHostPort(server.address)}`);
    await server.done;
  } finally {
    beginEnd();
    await queue?.close();
    log?.close();
    await http?.close();
    await systemd?.close();
  }
  return status();
}

/** Listens for --metrics, if that is given, and prints where. */
async function openStatus(
  { metrics, json }: ServerCommand,
  about: ServerStatus,
): Promise<StatusServer | undefined> {
  if (metrics === undefined) return undefined;
  const server = await listenForStatus(metrics, about);
  const { address } = server;
  if (json) printLine(JSON.stringify({ event: "metrics", time: 0, ...address }));
  else infoLine(`metrics on http://${formatHostPort(address)}/metrics`);
  warnOfWatchers(address);
  return server;
}

/** One line where others than this machine can ask how the server does: --allow is only for readers. */
function warnOfWatchers(address: Address): void {
  if (isLoopback(address.host)) return;
  const where = formatHostPort(address);
  logLine(
    `warning: whoever can reach ${where} can read the metrics, with the names of all readers`,
  );
}

/** One line where others than this machine can connect, and nobody has said which may. */
function warnOfStrangers(address: Address, { allow }: ServerCommand): void {
  if (allow !== undefined || isLoopback(address.host)) return;
  const where = formatHostPort(address);
  logLine(
    `warning: whoever can reach ${where} receives the messages; --allow CIDR says who may connect`,
  );
}

/** The options without those that are undefined. */
function defined(
  options: { [K in keyof ServeOptions]: ServeOptions[K] | undefined },
): ServeOptions {
  return Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined),
  ) as ServeOptions;
}

function describeServer(
  { source, frame = NO_FRAME, overflow: policy, readerId = "single" }: ServerCommand,
  { size }: { readonly size: number },
  rate: number,
): ServerDescription {
  const named = readerId !== "single";
  if (source === undefined) return { flood: { size, rate }, policy, named };
  if (source === "none") return { source: { name: "the queue", frame }, policy, named };
  return { source: { name: source.name, frame }, policy, named };
}
