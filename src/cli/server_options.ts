/** The server's command line: its options, and which of them can be combined. */
import {
  choice,
  flag,
  listed,
  option,
  parseCommandLine,
  UsageError,
  type Values,
} from "./command_line.ts";
import type { NumberedMessage } from "../source/flood_source.ts";
import { LINE_FORMATS } from "./line_format.ts";
import { LONGEST_MESSAGE, parseFrame } from "../message/frame.ts";
import type { Message } from "../message/message.ts";
import { chooseMessage, MESSAGE_OPTIONS, MOST_MESSAGE, parseMessage } from "./message_options.ts";
import { DEFAULT_NUMBERED_SIZE, LEAST_NUMBERED_SIZE } from "../message/numbered.ts";
import { isFloodPolicy, type Policy, POLICY_NAMES, policyOf } from "../send/overflow.ts";
import { SPILL_BACKLOG } from "../relay/choose_feeder.ts";
import type { WhenFull } from "../relay/stream_event.ts";
import { AllowList } from "../net/allow_list.ts";
import { ON_BAD_FRAME } from "../source/bad_frames.ts";
import { parseSource, SOURCE_FORMS } from "../source/source_kinds.ts";
import {
  formatBytes,
  formatSize,
  type HostPort,
  isHost,
  parseBytes,
  parseCount,
  parseDuration,
  parseHostPort,
  parsePort,
  parseRate,
  parseSustained,
  UnitError,
} from "../text/units.ts";

/** SO_SNDBUF is an int, and the kernel doubles it. */
const MOST_BUFFER = 2 ** 30 - 1;
/** Less would not hold a block of messages for the disk and one for a reader. */
const LEAST_MEMORY = 4 << 20;
/** In less, not even one full batch of messages fits. */
const LEAST_SPILL_MAX = 100 << 10;

const spec = {
  name: "server",
  summary: "Sends messages to every reader at a fixed rate, whether or not the reader keeps\n" +
    "up. The defaults are those of the server in the article. With --overflow spill\n" +
    "the backlog of a slow or disconnected reader is stored on disk and delivered\n" +
    "later. With --source the messages come from a TCP server, a file or standard\n" +
    "input.",
  options: {
    host: option({
      value: "HOST",
      help: "the address to listen on; the default accepts only readers on this machine",
      default: "127.0.0.1",
      parse: parseHost,
    }),
    port: option({
      value: "PORT",
      help: "the port to listen on; 0: any free port",
      default: "8000",
      parse: (text) => parsePort(text, { least: 0 }),
    }),
    connect: option({
      value: "HOST:PORT",
      help: "connects to a reader that listens there, and again when the connection has ended, " +
        "instead of listening",
      parse: (text) => parseHostPort(text),
    }),
    allow: option({
      value: "CIDR[,CIDR...]",
      help: "accepts only readers with these addresses, such as 10.0.0.0/8,fd00::/8 (default: all)",
      parse: parseAllow,
    }),
    rate: option({
      value: "RATE",
      help: "messages (1M/s) or bytes (20MB/s) a second to each reader, or max (default 1M/s; " +
        "for a file or standard input max)",
      parse: parseRate,
    }),
    message: option({
      value: `${MESSAGE_OPTIONS.message.value}|numbered`,
      help: `${MESSAGE_OPTIONS.message.help}; numbered: messages with a number and a checksum, ` +
        "the default with --overflow spill",
      // seq: the old name of numbered.
      parse: (text) =>
        text === "numbered" || text === "seq" ? "numbered" as const : parseMessage(text),
    }),
    size: MESSAGE_OPTIONS.size,
    replay: MESSAGE_OPTIONS.replay,
    template: MESSAGE_OPTIONS.template,
    source: option({
      value: SOURCE_FORMS,
      help:
        "where the messages come from (-: standard input); none: only those stored in the queue " +
        "(default: the server generates them)",
      parse: (text) => text === "none" ? text : parseSource(text),
    }),
    frame: option({
      value: "FRAME",
      help: "how the messages of --source, --replay or --template are delimited: fixed:N bytes, " +
        "line, u32 or octet (a length before each message) or none (default none; for --replay " +
        "and --template line)",
      parse: parseFrame,
    }),
    maxMessage: option({
      value: "SIZE",
      help:
        "the longest message accepted from the source, with --frame line, u32 or octet (default " +
        `${formatSize(LONGEST_MESSAGE)})`,
      parse: (text) => parseBytes(text, { most: MOST_MESSAGE }),
    }),
    onBadFrame: choice({
      help: "what to do with a message that is longer: end the server with an error (stop), pass " +
        "over it (skip), or disconnect a tcp source and connect again (reconnect) (default " +
        "reconnect for a tcp source, else stop)",
      choices: ON_BAD_FRAME,
    }),
    sourceAck: flag(
      "acknowledges messages to the tcp source, which keeps them until then: a server with " +
        "--ack reader",
    ),
    sourceIdle: option({
      value: "TIME",
      help: "connects anew to a tcp source that has sent nothing for this time (default never)",
      parse: parseDuration,
    }),
    overflow: choice({
      help: `what to do when the backlog is above --backlog: ${describePolicies()}`,
      choices: POLICY_NAMES,
      default: "close",
    }),
    backlog: option({
      value: "SIZE",
      help: "the backlog in memory above which --overflow acts (default 0; with spill 8M)",
      parse: (text) => parseBytes(text, { least: 0 }),
    }),
    after: option({
      value: "SIZE:TIME",
      help:
        "with close or reset: also act when the backlog has been above SIZE for TIME, such as " +
        "8M:60s; then --backlog has no limit unless it is given",
      parse: parseSustained,
    }),
    writeDeadline: option({
      value: "TIME",
      help:
        "with close or reset: also act when the kernel has not taken within TIME what was due; " +
        "then --backlog has no limit unless it is given",
      parse: parseDuration,
    }),
    unread: option({
      value: "SIZE|auto",
      help:
        "how much may lie unread at a reader; the rest stays with the server until the reader " +
        "has read all of that. auto: as much as it takes without getting slower (default: as much " +
        "as the kernel takes)",
      parse: (text) => text === "auto" ? text : parseUnread(text),
    }),
    resumeBelow: option({
      value: "SIZE",
      oldNames: ["low"],
      help:
        "with spill: deliver from memory again once the backlog is below this (default half of " +
        "--backlog)",
      parse: (text) => parseBytes(text, { least: 0 }),
    }),
    zeroWindowTimeout: option({
      value: "TIME",
      oldNames: ["dead-after"],
      help:
        "resets a reader whose window was zero, without progress, for this time (default never)",
      parse: parseDuration,
    }),
    deadPeerTimeout: option({
      value: "TIME|never",
      help: "resets a reader whose host has answered nothing for this time though bytes wait for " +
        "it; a reader that only does not read is kept (default 2m)",
      parse: parseDeadPeerTimeout,
    }),
    spill: option({
      value: "FOLDER",
      help: "the folder of the queue on disk: created, or reused if it exists",
      parse: (text) => text,
    }),
    sync: option({
      value: "always|interval:TIME|off",
      help: "what a power failure can destroy: nothing, the last TIME, or all that is stored " +
        "(default interval:100ms)",
      parse: parseSync,
    }),
    spillMax: option({
      value: "SIZE",
      help: "limit for what the queue takes on disk (default: the free space on disk)",
      parse: (text) => parseBytes(text, { least: LEAST_SPILL_MAX }),
    }),
    spillFull: option({
      value: "block|drop-newest|drop-oldest",
      help:
        "when the queue is full: make the source wait, drop new messages for readers that are " +
        "behind, or drop the oldest ones (default block)",
      parse: parseWhenFull,
    }),
    durable: flag("stores every message on disk before it is delivered"),
    retain: option({
      value: "TIME",
      help: "deletes messages from the disk after this time, delivered or not (default never)",
      parse: parseDuration,
    }),
    memory: option({
      value: "SIZE",
      help:
        "limit for the messages in memory, of all readers together (default 64M, or four times " +
        "--backlog)",
      parse: (text) => parseBytes(text, { least: LEAST_MEMORY }),
    }),
    start: choice({
      help: "where a reader begins that comes for the first time: at the next message, or at the " +
        "oldest one that the server still has (default now)",
      choices: ["now", "oldest"],
    }),
    maxReaderNames: option({
      value: "N",
      help: "most names of readers that the server keeps; readers with other names are refused " +
        "(default 1000)",
      parse: parseCount,
    }),
    readerId: choice({
      help: "how a reader that reconnects is recognized: there is only one (single), by its IP " +
        "address, or by the name in its first line (hello) (default single)",
      choices: ["single", "address", "hello"],
    }),
    ack: choice({
      help:
        "what counts as delivered: accepted by the server's kernel (none), acknowledged by the " +
        "reader's kernel (tcp), or by the reader itself (reader) (default: reader if it sends a " +
        "resume line, else tcp where the kernel reports it, else none)",
      choices: ["none", "tcp", "reader"],
    }),
    replies: choice({
      help: "whether bytes that readers send are left unread, or read and discarded (default " +
        "ignore; drain with --overflow spill, --source or --ack)",
      choices: ["ignore", "drain"],
    }),
    sndbuf: option({
      value: "SIZE",
      help: "SO_SNDBUF, which the kernel doubles (default: tuned by the kernel)",
      parse: (text) => parseBytes(text, { most: MOST_BUFFER }),
    }),
    log: option({
      value: "FILE",
      help: "a file to append the number of each message sent to, and how connections ended",
      parse: (text) => text,
    }),
    duration: option({
      value: "TIME",
      help: "generates messages for this time (a plain flood: from the first reader on), then " +
        "delivers the backlog and ends (default: no end)",
      parse: parseDuration,
    }),
    maxReaders: option({
      value: "N",
      help: "most concurrent readers; further connections are closed (default: no limit)",
      parse: parseCount,
    }),
    metrics: option({
      value: "[HOST:]PORT",
      help: "an HTTP server with /metrics (for Prometheus), /healthz and /readyz; without HOST " +
        "only for this machine",
      parse: parseMetrics,
    }),
    lineFormat: choice({
      help: "how the lines for people begin: as they are (plain), with time and level (time), or " +
        "with a priority for systemd's journal (journal)",
      choices: LINE_FORMATS,
      default: "plain",
    }),
    json: flag("prints each event as a JSON object on a line"),
  },
};

/** Options that only make sense with a queue. */
const QUEUE_OPTIONS = [
  "spill",
  "sync",
  "spillMax",
  "spillFull",
  "resumeBelow",
  "durable",
  "retain",
] as const;

/** The options as `parseServerCommandLine` returns them. */
export type ServerCommand = Values<typeof spec.options>;

/** What the server does with each policy: `close the connection (close), ... or ... (spill)`. */
function describePolicies(): string {
  const clauses = POLICY_NAMES.map((name) => `${policyOf(name).help} (${name})`);
  return `${clauses.slice(0, -1).join(", ")} or ${clauses.at(-1)}`;
}

function parseUnread(text: string): number {
  try {
    return parseBytes(text);
  } catch (error) {
    if (!(error instanceof UnitError)) throw error;
    throw new UnitError("must be auto, or a size such as 256k");
  }
}

/** As accepted by --spill-full; `drop` is the old name of `drop-newest`. */
function parseWhenFull(text: string): WhenFull {
  if (text === "drop") return "drop-newest";
  if (text === "block" || text === "drop-newest" || text === "drop-oldest") return text;
  throw new UnitError("must be block, drop-newest or drop-oldest");
}

const needsQueue = (policy: Policy) => !isFloodPolicy(policy);

function parseSync(text: string): "always" | "off" | { intervalMs: number } {
  if (text === "always" || text === "off") return text;
  const expected = "must be always, off, or an interval such as interval:100ms";
  const [, time] = /^interval:(.*)$/s.exec(text) ?? [];
  // Without a unit it would be seconds, and who writes 100 means ms.
  if (time === undefined || /\d\s*$/.test(time)) throw new UnitError(expected);
  try {
    return { intervalMs: parseDuration(time, { least: 1 }) };
  } catch (error) {
    if (!(error instanceof UnitError)) throw error;
    throw new UnitError(`${expected}, and from interval:1ms to interval:596h`);
  }
}

function parseMetrics(text: string): HostPort {
  if (!/^\d+$/.test(text)) return parseHostPort(text, { least: 0 });
  return { host: "127.0.0.1", port: parsePort(text, { least: 0 }) };
}

function parseAllow(text: string): string[] {
  const ranges = text.split(",");
  // Only for its errors: the server makes its own.
  new AllowList(ranges);
  return ranges;
}

/** A shorter time would end connections that have lost a few packets in a row. */
const LEAST_DEAD_PEER_TIMEOUT_MS = 1000;

function parseDeadPeerTimeout(text: string): number {
  if (text === "never") return Infinity;
  try {
    return parseDuration(text, { least: LEAST_DEAD_PEER_TIMEOUT_MS });
  } catch (error) {
    if (!(error instanceof UnitError)) throw error;
    throw new UnitError("must be never, or a duration such as 30s or 2m, and at least 1.00 s");
  }
}

function parseHost(text: string): string {
  const host = text.replace(/^\[(.*)\]$/, "$1");
  if (isHost(host)) return host;
  throw new UnitError("must be an address or a host name such as 127.0.0.1, 0.0.0.0 or ::1");
}

/** The message of a flood. Throws a UsageError. */
export function chooseServed(
  { message, size, overflow, replay, template, ...rest }: ServerCommand,
  say: (line: string) => void,
): Message | NumberedMessage {
  const numbered = message === "numbered" ||
    (needsQueue(overflow) && [message, size, replay, template].every((each) => each === undefined));
  if (!numbered) {
    // With a source, the frame is the source's.
    const frame = rest.source === undefined ? rest.frame : undefined;
    return chooseMessage(
      { message: message as Message | undefined, size, replay, template, frame },
      say,
    );
  }
  if (replay !== undefined || template !== undefined) {
    throw new UsageError("--message numbered excludes --replay and --template: give one of them");
  }
  const length = size ?? DEFAULT_NUMBERED_SIZE;
  if (length >= LEAST_NUMBERED_SIZE) return { numbered: true, size: length };
  throw new UsageError(
    `--size ${length}: a numbered message needs at least ${formatBytes(LEAST_NUMBERED_SIZE)}`,
  );
}

/** The queue's own bytes beside a single message. */
const QUEUE_OVERHEAD = 1024;

/** The longest message that a queue with this limit can store; Infinity: no limit. */
function longestStored({ spillMax }: ServerCommand): number {
  return spillMax === undefined ? Infinity : spillMax - QUEUE_OVERHEAD;
}

/** The longest message that is accepted from a source: what the queue could never store is a bad frame. */
export function longestAccepted(command: ServerCommand): number {
  return Math.min(command.maxMessage ?? LONGEST_MESSAGE, longestStored(command));
}

/** Throws a UsageError for messages that the queue could never store. */
function checkLength(command: ServerCommand): void {
  const { frame, size, maxMessage } = command;
  const longest = longestStored(command);
  const lengths: [string, number | undefined][] = [
    ["--max-message", maxMessage],
    ["--size", size],
    ["--frame fixed", frame?.kind === "fixed" ? frame.size : undefined],
  ];
  for (const [option, length] of lengths) {
    if (length === undefined || length <= longest) continue;
    throw new UsageError(
      `${option} ${length}: with this --spill-max the queue stores messages of up to ${longest} bytes`,
    );
  }
}

/** Throws a UsageError for options that need or exclude others. */
function checkCombination(options: ServerCommand): void {
  const { source, spill, overflow } = options;
  const needs = (name: keyof ServerCommand, what: string, given: boolean) => {
    if (options[name] === undefined || options[name] === false || given) return;
    const option = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    throw new UsageError(`--${option} needs ${what}`);
  };
  const spills = needsQueue(overflow);
  if (spills && spill === undefined) {
    throw new UsageError("--overflow spill needs --spill FOLDER, the folder of the queue");
  }
  for (const name of QUEUE_OPTIONS) needs(name, "--overflow spill", spills);
  const ends = overflow === "close" || overflow === "reset";
  for (const name of ["after", "writeDeadline"] as const) {
    needs(name, "--overflow close or reset", ends);
  }
  checkLength(options);
  if (source === "none" && !spills) {
    throw new UsageError("--source none needs --overflow spill: only a queue has messages then");
  }
  const { resumeBelow, memory, ack, replies, metrics, port } = options;
  const backlog = options.backlog ?? (spills ? SPILL_BACKLOG : 0);
  const shown = formatSize(backlog) + (options.backlog === undefined ? " (the default)" : "");
  if (metrics !== undefined && metrics.port !== 0 && metrics.port === port) {
    throw new UsageError(
      `--metrics and --port are both ${port}: the readers and HTTP need a port each`,
    );
  }
  if (resumeBelow !== undefined && resumeBelow > backlog) {
    throw new UsageError(
      `--resume-below ${formatSize(resumeBelow)} must not be above --backlog, which is ${shown}: ` +
        "the server would switch to disk and back constantly",
    );
  }
  if (memory !== undefined && options.backlog !== undefined && backlog > memory) {
    throw new UsageError(
      `--backlog ${shown} must not be above --memory, which is ${
        formatSize(memory)
      }: so much could ` +
        "never wait in memory; the default of --memory is four times --backlog",
    );
  }
  if (ack === "reader" && replies === "ignore") {
    throw new UsageError(
      "--ack reader and --replies ignore exclude each other: acknowledgements have to be read",
    );
  }
  if (options.connect !== undefined) {
    for (const name of ["allow", "maxReaders"] as const) {
      if (options[name] === undefined) continue;
      const option = name === "allow" ? "--allow" : "--max-readers";
      throw new UsageError(`--connect and ${option} exclude each other: there is one reader`);
    }
  }
  needs("start", "--source", source !== undefined);
  needs(
    "frame",
    "--source tcp://HOST:PORT, a file or -, --replay or --template",
    (source !== undefined && source !== "none") || options.replay !== undefined ||
      options.template !== undefined,
  );
  const kind = options.frame?.kind;
  const framed = source !== undefined && (kind === "line" || kind === "u32" || kind === "octet");
  for (const name of ["maxMessage", "onBadFrame"] as const) {
    needs(name, "a source with --frame line, u32 or octet", framed);
  }
  const given = source === "none" ? undefined : source;
  needs("sourceAck", "--source tcp://HOST:PORT", given?.acknowledges === true);
  const { onBadFrame } = options;
  if (onBadFrame !== undefined && given?.onBadFrame.includes(onBadFrame) === false) {
    throw new UsageError(
      `--on-bad-frame ${onBadFrame} needs --source tcp://HOST:PORT; for a file or standard input use ` +
        listed(given.onBadFrame),
    );
  }
  needs("sourceIdle", "--source tcp://HOST:PORT", given?.reconnects === true);
  if (source !== undefined) {
    for (const name of ["message", "size", "replay", "template"] as const) {
      if (options[name] !== undefined) {
        throw new UsageError(
          `--${name} and --source exclude each other: the messages come from the source`,
        );
      }
    }
    if (options.rate !== undefined && given?.takesRate !== true) {
      const why = source === "none"
        ? "with --source none, messages are sent as fast as readers take them"
        : "a tcp source is read at its own rate";
      throw new UsageError(`--rate is only for a flood, a file or standard input: ${why}`);
    }
  }
}

/**
 * Parses the options; `called` is the command's name in the usage line. Throws a UsageError or a
 * HelpRequest.
 */
export function parseServerCommandLine(args: readonly string[], called: string): ServerCommand {
  const { options } = parseCommandLine({ ...spec, usage: [`${called} [OPTIONS]`] }, args);
  checkCombination(options);
  return options;
}
