/** The server's command line: its options, and which of them go together. */
import { choice, flag, option, parseCommandLine, UsageError, type Values } from "./command_line.ts";
import type { NumberedMessage } from "../source/flood_source.ts";
import { LONGEST_MESSAGE, parseFrame } from "../message/frame.ts";
import type { Message } from "../message/message.ts";
import { chooseMessage, MESSAGE_OPTIONS, MOST_MESSAGE, parseMessage } from "./message_options.ts";
import { DEFAULT_NUMBERED_SIZE, LEAST_NUMBERED_SIZE } from "../message/numbered.ts";
import { type Policy, POLICY_NAMES, policyOf } from "../send/overflow.ts";
import { parseSource } from "../source/source.ts";
import {
  formatBytes,
  formatSize,
  isHost,
  parseBytes,
  parseCount,
  parseDuration,
  parsePort,
  parseRate,
  UnitError,
} from "../text/units.ts";

/** SO_SNDBUF is an int, of which the kernel makes the double. */
const MOST_BUFFER = 2 ** 30 - 1;
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
      value: "TEXT|numbered",
      help: "what each message says; \\n, \\t, \\0 and \\\\ as in C (default Hello World!\\0); " +
        "numbered: numbered messages with a checksum, the default with spill",
      // seq: its name in earlier versions.
      parse: (text) =>
        text === "numbered" || text === "seq" ? "numbered" as const : parseMessage(text),
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
      help: `what to do when the backlog is above --backlog: ${describePolicies()}`,
      choices: POLICY_NAMES,
      default: "close",
    }),
    backlog: option({
      value: "SIZE",
      help: "what may wait in memory before that (default 0; 8M for spill)",
      parse: (text) => parseBytes(text, { least: 0 }),
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

/** As `parseServerCommandLine` gives them. */
export type ServerCommand = Values<typeof spec.options>;

/** What the server does with each policy: `close the connection (close), ... or ... (spill)`. */
function describePolicies(): string {
  const clauses = POLICY_NAMES.map((name) => `${policyOf(name).help} (${name})`);
  return `${clauses.slice(0, -1).join(", ")} or ${clauses.at(-1)}`;
}

const needsQueue = (policy: Policy) => policyOf(policy).needsQueue === true;

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

/** What is sent, unless a source gives it. Throws a UsageError. */
export function chooseServed(
  { message, size, overflow }: ServerCommand,
): Message | NumberedMessage {
  const numbered = message === "numbered" ||
    (needsQueue(overflow) && message === undefined && size === undefined);
  if (!numbered) return chooseMessage(message as Message | undefined, size);
  const length = size ?? DEFAULT_NUMBERED_SIZE;
  if (length >= LEAST_NUMBERED_SIZE) return { numbered: true, size: length };
  throw new UsageError(
    `--size ${length}: a numbered message has at least ${formatBytes(LEAST_NUMBERED_SIZE)}`,
  );
}

/** What goes only with something else. Throws a UsageError. */
function checkTogether(options: ServerCommand): void {
  const { source, spill, overflow } = options;
  const needs = (name: keyof ServerCommand, what: string, there: boolean) => {
    if (options[name] === undefined || options[name] === false || there) return;
    const option = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    throw new UsageError(`--${option} needs ${what}`);
  };
  const spills = needsQueue(overflow);
  if (spills && spill === undefined) {
    throw new UsageError("--overflow spill needs --spill FILE: where what is over the bound waits");
  }
  for (const name of ["spill", "sync", "spillMax", "spillFull", "resumeBelow"] as const) {
    needs(name, "--overflow spill", spills);
  }
  if (source === "none" && !spills) {
    throw new UsageError("--source none needs --overflow spill: nothing else is there to be sent");
  }
  const { resumeBelow, backlog, ack, replies } = options;
  if (resumeBelow !== undefined && backlog !== undefined && resumeBelow > backlog) {
    throw new UsageError(
      "--resume-below must not be above --backlog: messages would go to disk and back all the time",
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

/** The options, by the name that the command was called by. Throws a UsageError or a HelpRequest. */
export function parseServerCommandLine(args: readonly string[], called: string): ServerCommand {
  const { options } = parseCommandLine({ ...spec, usage: [`${called} [OPTIONS]`] }, args);
  checkTogether(options);
  return options;
}
