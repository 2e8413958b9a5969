/** The readers under test: starts them, waits for them or connects to them, and feeds each from its own flood. */
import { setTimeout as sleep } from "node:timers/promises";
import { loadAdapter } from "../net/load.ts";
import { readReplies } from "../net/linger.ts";
import { type Adapter, type Closed, type Connection, NetError } from "../net/net.ts";
import { formatOutputPlace, Output, type OutputOptions } from "../output/output.ts";
import type { OutputTotals } from "../output/output_counter.ts";
import type { Address } from "../kernel/address.ts";
import type { Message } from "../message/message.ts";
import { Conversation, UnexpectedReply } from "../send/conversation.ts";
import { Flood, type Replies } from "../send/flood.ts";
import { Ticker } from "../send/pacer.ts";
import type { Script } from "../send/script.ts";
import { printable } from "../text/printable.ts";
import { formatHostPort } from "../text/units.ts";
import { waitForClear } from "./clearing.ts";
import { Meter, SAMPLE_EVERY_MS } from "./meter.ts";
import { Accepted, Dialed, type ReaderConnections } from "./reader_connections.ts";
import { OutputMeter } from "./output_meter.ts";
import { ReaderWork } from "./reader_work.ts";
import { describeExit, fillCommand, ReaderFailed, ReaderProcess } from "./reader_process.ts";
import type { MeasuredReader } from "./trial_watch.ts";

export interface ReaderPoolOptions {
  /**
   * The reader's program and arguments; `{host}` and `{port}` in them are replaced. Without it, the
   * pool waits for readers to connect (they "attach").
   */
  command?: readonly string[];
  /** The folder in which the command is started; default: the folder of this process. */
  folder?: string;
  message: Message;
  /** Where to listen; default 127.0.0.1 and any free port. */
  host?: string;
  port?: number;
  /**
   * Instead of listening: where the readers listen. One command is then started for all of them; `{host}` and
   * `{port}` in it are this address. Port 0: a free port, another one each time. Without a command, a program
   * that runs already.
   */
  connect?: Address;
  /** Number of readers at the same time, each with a flood of its own; default 1. */
  readers?: number;
  /** Whether to read the reader's replies; default drain. */
  replies?: Replies;
  /** What is said before the first message, and between messages; the readers' replies are then read by it. */
  script?: Script;
  /** What the reader puts out, by which it is then measured. For one reader, and without a look at its processes. */
  output?: OutputOptions;
  /** Whether the readers' processes are watched for work that goes on; default true. See `works`. */
  watchWork?: boolean;
  /**
   * How long to wait for a reader to connect, or to listen; seconds. Default 10; no limit for the first
   * connection of readers that are started separately and connect to us.
   */
  connectSeconds?: number;
  /**
   * Time between SIGTERM and SIGKILL for a reader that we started; seconds, default 3. A search
   * replaces its reader several times: once a reader has not ended in this time, those after it get
   * at most 0.3 s.
   */
  stopTimeoutSeconds?: number;
  adapter?: Adapter;
  /** Aborts what the pool is waiting for, which then rejects with an Interrupted. */
  signal?: AbortSignal;
  onEvent?: (event: ReaderPoolEvent) => void;
}

export type ReaderPoolEvent =
  | { event: "listening"; host: string; port: number }
  | { event: "connected"; readers: number };

const CONNECT_SECONDS = 10;
export const STOP_TIMEOUT_SECONDS = 3;
/** The longest time between SIGTERM and SIGKILL once a reader has ignored SIGTERM. */
const SHORT_STOP_TIMEOUT_SECONDS = 0.3;
/** How long an attached reader may take to reconnect; the first connection has no time limit. */
const RECONNECT_SECONDS = 60;
/** We cannot start an attached reader again, so it gets more time to clear its backlog. */
export const CLEAR_ATTACHED_MS = 30_000;
/** Bytes a second: slow enough for any reader that is still starting up. */
const WARM_UP_RATE = 10_000;
/**
 * A reader that has read nothing by then may wait for more than that (SO_RCVLOWAT): the rate is doubled, and
 * then again and again. Seconds, and bytes a second.
 */
const WARM_UP = { raised: 1, again: 0.4, highest: 2e6 };

/** What comes out late may take so long; ms. */
const OUTPUT_SETTLES_MS = 1200;
/** What a reader's exit needs to be known; ms. */
const LAST_WORDS_MS = 100;
/** One that has only looked whether somebody listens connects again so soon; seconds. */
const LOOKED_SECONDS = 1;
/** With more readers, reading what their threads do would take too much of a core. */
const MOST_WATCHED = 16;
/** How long a fresh reader is watched while it has nothing to do; seconds. */
const IDLE_SECONDS = 0.5;

export class ReaderPool {
  /** The current readers, each with its flood and its meter. */
  connected: MeasuredReader[] = [];
  /**
   * What the readers' processes do, with the baseline of a reader that has nothing to do. Empty where
   * they are not on this host, cannot be seen, or are more than 16.
   */
  works: ReaderWork[] = [];
  readonly #options: ReaderPoolOptions;
  readonly #count: number;
  readonly #ticker = new Ticker();
  readonly #emit: (event: ReaderPoolEvent) => void;
  #connections: ReaderConnections | undefined;
  #output: Output | undefined;
  #processes: ReaderProcess[] = [];
  #hadReaders = false;
  /** With which the last readers began to read; bytes a second. */
  #warmUpRate = WARM_UP_RATE;
  #stopTimeoutSeconds: number;

  constructor(options: ReaderPoolOptions) {
    this.#options = options;
    this.#count = options.readers ?? 1;
    this.#stopTimeoutSeconds = options.stopTimeoutSeconds ?? STOP_TIMEOUT_SECONDS;
    this.#emit = options.onEvent ?? (() => {});
  }

  /** What the present reader has put out; undefined: that is not counted. */
  get outputTotals(): OutputTotals | undefined {
    return this.#output?.counter;
  }

  /** Resolves when it is known what is lost of the output so far; soon, where the reader puts out no more. */
  async outputSettled(): Promise<void> {
    const { signal } = this.#options;
    const endMs = performance.now() + OUTPUT_SETTLES_MS;
    while (this.#output?.counter.waits && performance.now() < endMs && !signal?.aborted) {
      await sleep(SAMPLE_EVERY_MS);
    }
  }

  async open(): Promise<void> {
    const { adapter, host = "127.0.0.1", port = 0, connect } = this.#options;
    const net = adapter ?? await loadAdapter();
    if (this.#options.output !== undefined) {
      this.#output = await Output.open(this.#options.output, net, connect?.host ?? host);
    }
    if (connect !== undefined) {
      this.#connections = new Dialed(net, connect);
      return;
    }
    this.#connections = await Accepted.listen(net, host, port);
    this.#emit({ event: "listening", ...this.#connections.address });
  }

  /**
   * Ends the current readers and connects new ones; resolves once each of those has read something.
   */
  async replace(): Promise<void> {
    await this.end();
    const { command, connect } = this.#options;
    if (command !== undefined) {
      // A connection that an ended process has left behind must not count as one of the next readers.
      await this.#connections!.begin();
      const output = this.#output;
      output?.begin();
      const words = fillCommand(command, this.#connections!.address, output?.address);
      const onStdout = output?.place.kind === "stdout"
        ? (chunk: Uint8Array) => output.counter.push(chunk)
        : undefined;
      const processes = connect === undefined ? this.#count : 1;
      // One by one, so that those that were started are known whatever happens with the next.
      while (this.#processes.length < processes && this.#processes.every((p) => p.started)) {
        this.#processes.push(new ReaderProcess(words, this.#options.folder, onStdout));
      }
    } else this.#output?.begin();
    const connections = await this.#awaitConnections();
    this.#hadReaders = true;
    this.connected = await this.#converse(connections);
    this.#emit({ event: "connected", readers: connections.length });
    await this.#awaitFirstRead();
    await this.#watchWork();
  }

  /** Follows the script with each of them. */
  async #converse(connections: readonly Connection[]): Promise<MeasuredReader[]> {
    try {
      return await Promise.all(connections.map((connection) => this.#measured(connection)));
    } catch (error) {
      // Where the reader's process has exited, its status says more. Our own close could make it exit.
      if (error instanceof UnexpectedReply) await sleep(LAST_WORDS_MS);
      const exited = this.#processes.find(({ exit }) => exit !== undefined);
      for (const each of connections) each.close();
      if (!(error instanceof UnexpectedReply)) throw error;
      throw new ReaderFailed(
        error.message +
          (exited === undefined
            ? ""
            : `; the reader ${describeExit(exited.exit!)}${stderrSuffix(exited)}`),
      );
    }
  }

  /** Rejects with an UnexpectedReply. */
  async #measured(connection: Connection): Promise<MeasuredReader> {
    const { message, replies = "drain", script } = this.#options;
    const shared = { connection, message, ticker: this.#ticker, replies };
    const output = this.#output;
    const measured = (flood: Flood) => ({
      flood,
      meter: output === undefined ? new Meter(flood) : new OutputMeter(flood, output),
    });
    if (script === undefined) {
      const counts = output?.place.kind === "replies";
      const listen = () => readReplies(connection, (chunk) => output!.counter.push(chunk));
      return measured(new Flood(counts ? { ...shared, listen } : shared));
    }
    const conversation = new Conversation(connection);
    await conversation.begin(script);
    const flood = new Flood({ ...shared, listen: (flood) => conversation.goOn(flood) });
    flood.interjected = conversation.sent;
    return measured(flood);
  }

  async #watchWork(): Promise<void> {
    const { watchWork = true, command, signal } = this.#options;
    if (!watchWork || this.#count > MOST_WATCHED || this.#output !== undefined) return;
    const groups = this.#processes.map(({ pid }) => ({ group: pid! }));
    const sockets = this.connected.map(({ flood: { connection: { local, remote } } }) => ({
      ...{ local, remote },
    }));
    const works = await Promise.all(
      (command !== undefined ? groups : sockets).map((reader) =>
        ReaderWork.open(reader, {
          idleSeconds: IDLE_SECONDS,
          ...(signal === undefined ? {} : { signal }),
        })
      ),
    );
    // Without one of them, the others say too little.
    if (works.every((work) => work !== undefined)) this.works = works;
    else for (const work of works) work?.close();
  }

  /**
   * Sends slowly until every reader reads: the time that a program takes to start up after it has
   * connected does not count against its speed. A connection that ends before that may have been a look
   * whether somebody listens: the reader's next one takes its place.
   */
  async #awaitFirstRead(): Promise<void> {
    const readers = this.connected;
    const { connectSeconds = CONNECT_SECONDS, signal } = this.#options;
    let ended: { reader: number; closed: Closed } | undefined;
    const watch = ({ flood }: MeasuredReader, reader: number) => {
      void flood.done.then((closed) => ended ??= { reader, closed });
    };
    readers.forEach(watch);
    let rate = 0;
    const start = ({ flood }: MeasuredReader) => {
      // The first message is sent at once: a large one would otherwise be due only after seconds.
      flood.startBytes(rate, performance.now() - 1000 * flood.message.offsetOf(1) / rate);
    };
    const send = (bytesPerSecond: number) => {
      rate = bytesPerSecond;
      readers.forEach(start);
    };
    const startMs = performance.now();
    send(this.#warmUpRate);
    let raiseMs = startMs + 1000 * WARM_UP.raised;
    while (!readers.every(({ meter }) => (meter.read()?.drained ?? 0) > 0)) {
      if (signal?.aborted) throw new Interrupted();
      if (ended !== undefined) {
        const { reader, closed } = ended;
        const next = await this.#nextConnection();
        if (next === undefined) throw new ReaderFailed(await this.explainEnd(reader, closed));
        ended = undefined;
        const [measured] = await this.#converse([next]) as [MeasuredReader];
        readers[reader] = measured;
        watch(measured, reader);
        start(measured);
      }
      const nowMs = performance.now();
      if (nowMs > startMs + connectSeconds * 1000) {
        throw new ReaderFailed(this.#nothingRead(connectSeconds));
      }
      if (nowMs > raiseMs) {
        raiseMs = nowMs + 1000 * WARM_UP.again;
        send(Math.min(2 * rate, WARM_UP.highest));
      }
      await sleep(SAMPLE_EVERY_MS);
    }
    this.#warmUpRate = rate;
    if (!(await waitForClear(readers, CLEAR_ATTACHED_MS)).clear) {
      if (ended !== undefined) {
        throw new ReaderFailed(await this.explainEnd(ended.reader, ended.closed));
      }
    }
  }

  #nothingRead(seconds: number): string {
    const { output } = this.#options;
    if (output === undefined || this.connected.some(({ meter }) => meter.taken === 0)) {
      return `the reader connected but read nothing within ${seconds} s`;
    }
    const what = output.match === undefined ? "" : ` that matches ${output.match}`;
    return `the reader took what it was sent, but within ${seconds} s nothing${what} came out: ` +
      formatOutputPlace(output.place);
  }

  async #awaitConnections(): Promise<Connection[]> {
    const { command, signal, connect } = this.#options;
    const seconds = this.#options.connectSeconds ?? this.#connectSeconds();
    const endMs = performance.now() + seconds * 1000;
    const { ready } = this.#connections!;
    while (ready.length < this.#count) {
      if (signal?.aborted) throw new Interrupted();
      for (const [number, reader] of this.#processes.entries()) {
        if (reader.startError !== undefined) {
          const which = this.#count === 1 ? "" : ` (${number + 1} of ${this.#count})`;
          throw new ReaderFailed(
            `cannot start the reader ${printable(command![0]!)}${which}: ` +
              startProblem(reader.startError, command!),
          );
        }
        if (reader.exit !== undefined && ready.length < this.#count) {
          await reader.saidAll();
          const what = connect === undefined ? "it connected" : "we could connect to it";
          throw new ReaderFailed(
            `the reader ${describeExit(reader.exit)} before ${what}${stderrSuffix(reader)}`,
          );
        }
      }
      if (performance.now() > endMs) {
        throw new ReaderFailed(this.#notConnected(seconds));
      }
      try {
        await Promise.race([
          this.#connections!.more(),
          ...this.#processes.filter((p) => p.exit === undefined).map((p) => p.exited),
        ]);
      } catch (error) {
        // With our own listener this is no matter of the reader.
        if (error instanceof NetError) throw new ReaderFailed(error.message);
        throw error;
      }
    }
    return ready.splice(0, this.#count);
  }

  /** How long connecting may take; seconds. */
  #connectSeconds(): number {
    const { command, connect } = this.#options;
    if (command !== undefined || connect !== undefined) return CONNECT_SECONDS;
    return this.#hadReaders ? RECONNECT_SECONDS : Infinity;
  }

  #notConnected(seconds: number): string {
    const { command, connect } = this.#options;
    const where = formatHostPort(this.#connections!.address);
    if (connect !== undefined) {
      return `nothing listened on ${where} within ${seconds} s` +
        (command === undefined ? "" : ": does the command start a reader that listens there?");
    }
    if (command === undefined) {
      return `the reader did not reconnect to ${where} within ${seconds} s`;
    }
    return `the reader did not connect to ${where} within ${seconds} s: ` +
      "does its command use {host} and {port}?";
  }

  /** Of a reader whose connection has ended and that may connect again at once; undefined: it does not. */
  async #nextConnection(): Promise<Connection | undefined> {
    const { connect, signal } = this.#options;
    // Where we connected, it has not looked whether we listen.
    if (connect !== undefined) return undefined;
    const { ready } = this.#connections!;
    const endMs = performance.now() + 1000 * LOOKED_SECONDS;
    while (ready.length === 0) {
      const over = this.#processes.some(({ exit }) => exit !== undefined);
      if (over || performance.now() > endMs || signal?.aborted) return undefined;
      await sleep(SAMPLE_EVERY_MS);
    }
    return ready.shift();
  }

  /**
   * Why a reader's connection ended, as one clause. Waits 100 ms first: where the reader's process
   * has exited, its status says more than the connection does.
   */
  async explainEnd(reader: number, closed: { reason: string; errno?: string }): Promise<string> {
    await sleep(LAST_WORDS_MS);
    const process = this.#processes.find(({ exit }) => exit !== undefined) ??
      this.#processes[reader] ?? this.#processes[0];
    const how = closed.reason === "reset" ? "reset its connection" : "closed its connection";
    if (process?.exit === undefined) return `the reader ${how}`;
    return `the reader ${describeExit(process.exit)}${stderrSuffix(process)}`;
  }

  /** Closes the readers' connections and ends the processes that were started. */
  async end(): Promise<void> {
    for (const { flood } of this.connected) flood.connection.close();
    this.connected = [];
    for (const work of this.works) work.close();
    this.works = [];
    const graceMs = this.#stopTimeoutSeconds * 1000;
    const ending = await Promise.all(this.#processes.map((reader) => reader.kill(graceMs)));
    if (ending.includes(false)) {
      this.#stopTimeoutSeconds = Math.min(this.#stopTimeoutSeconds, SHORT_STOP_TIMEOUT_SECONDS);
    }
    this.#processes = [];
  }

  async close(): Promise<void> {
    try {
      await this.end();
    } finally {
      await this.#connections?.close();
      await this.#output?.close();
    }
  }
}

/** Thrown where the signal was aborted; not an error of the reader. */
export class Interrupted extends Error {
  override name = "Interrupted";
}

function stderrSuffix({ stderrLine }: ReaderProcess): string {
  return stderrLine === "" ? "" : `: ${stderrLine}`;
}

function startProblem(error: Error, command: readonly string[]): string {
  const { code } = error as Error & { code?: string };
  if (code === "ENOENT" || /No such file|not found/i.test(error.message)) {
    const quoted = command.length === 1 && command[0]!.includes(" ");
    return quoted
      ? "no such program; give the command without quotes around it"
      : "no such program";
  }
  if (code === "EACCES") return "not permitted to run it";
  if (code === "EMFILE") return "this process has too many open files (ulimit -n)";
  if (code === "EAGAIN") return "there are too many processes (ulimit -u)";
  return printable(error.message);
}
