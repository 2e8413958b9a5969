/** The readers under test: starts them or waits for them, and feeds each one from its own flood. */
import { setTimeout as sleep } from "node:timers/promises";
import { loadAdapter } from "../net/load.ts";
import type { Adapter, Closed, Connection, Listener } from "../net/net.ts";
import type { Message } from "../message/message.ts";
import { Flood, type Replies } from "../send/flood.ts";
import { Ticker } from "../send/pacer.ts";
import { printable } from "../text/printable.ts";
import { formatHostPort } from "../text/units.ts";
import { waitForClear } from "./clearing.ts";
import { Meter, SAMPLE_EVERY_MS } from "./meter.ts";
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
  /** Number of readers at the same time, each with a flood of its own; default 1. */
  readers?: number;
  /** Whether to read the reader's replies; default drain. */
  replies?: Replies;
  /** Whether the readers' processes are watched for work that goes on; default true. See `works`. */
  watchWork?: boolean;
  /** How long to wait for a reader to connect; seconds, default 10 for a command, else no limit. */
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
  #listener: Listener | undefined;
  #processes: ReaderProcess[] = [];
  /** Connections that were accepted and have no flood yet. */
  #accepted: Connection[] = [];
  #onAccepted: (() => void) | undefined;
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

  async open(): Promise<void> {
    const net = this.#options.adapter ?? await loadAdapter();
    this.#listener = await net.listen({
      host: this.#options.host ?? "127.0.0.1",
      port: this.#options.port ?? 0,
      onConnection: (connection) => {
        this.#accepted.push(connection);
        this.#onAccepted?.();
      },
    });
    this.#emit({ event: "listening", ...this.#listener.address });
  }

  /**
   * Ends the current readers and connects new ones; resolves once each of those has read something.
   */
  async replace(): Promise<void> {
    await this.end();
    const { command } = this.#options;
    if (command !== undefined) {
      const words = fillCommand(command, this.#listener!.address);
      // One by one, so that those that were started are known whatever happens with the next.
      while (this.#processes.length < this.#count && this.#processes.every((p) => p.started)) {
        this.#processes.push(new ReaderProcess(words, this.#options.folder));
      }
    }
    const connections = await this.#awaitConnections();
    this.#hadReaders = true;
    this.connected = connections.map((connection) => this.#measured(connection));
    this.#emit({ event: "connected", readers: connections.length });
    await this.#awaitFirstRead();
    await this.#watchWork();
  }

  #measured(connection: Connection): MeasuredReader {
    const { message, replies = "drain" } = this.#options;
    const flood = new Flood({ connection, message, ticker: this.#ticker, replies });
    return { flood, meter: new Meter(flood) };
  }

  async #watchWork(): Promise<void> {
    const { watchWork = true, command, signal } = this.#options;
    if (!watchWork || this.#count > MOST_WATCHED) return;
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
      const messages = rate / flood.message.size;
      // The first message is sent at once: a large one would otherwise be due only after seconds.
      flood.start(messages, performance.now() - 1000 / messages);
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
        const measured = readers[reader] = this.#measured(next);
        watch(measured, reader);
        start(measured);
      }
      const nowMs = performance.now();
      if (nowMs > startMs + connectSeconds * 1000) {
        throw new ReaderFailed(
          `the reader connected but read nothing within ${connectSeconds} s`,
        );
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

  async #awaitConnections(): Promise<Connection[]> {
    const { command, signal } = this.#options;
    const seconds = this.#options.connectSeconds ??
      (command !== undefined ? CONNECT_SECONDS : this.#hadReaders ? RECONNECT_SECONDS : Infinity);
    const endMs = performance.now() + seconds * 1000;
    while (this.#accepted.length < this.#count) {
      if (signal?.aborted) throw new Interrupted();
      for (const [number, reader] of this.#processes.entries()) {
        if (reader.startError !== undefined) {
          const which = this.#count === 1 ? "" : ` (${number + 1} of ${this.#count})`;
          throw new ReaderFailed(
            `cannot start the reader ${printable(command![0]!)}${which}: ` +
              startProblem(reader.startError, command!),
          );
        }
        if (reader.exit !== undefined && this.#accepted.length < this.#count) {
          await reader.saidAll();
          throw new ReaderFailed(
            `the reader ${describeExit(reader.exit)} before it connected${stderrSuffix(reader)}`,
          );
        }
      }
      if (performance.now() > endMs) {
        const where = formatHostPort(this.#listener!.address);
        throw new ReaderFailed(
          command === undefined
            ? `the reader did not reconnect to ${where} within ${seconds} s`
            : `the reader did not connect to ${where} within ${seconds} s: ` +
              `does its command use {host} and {port}?`,
        );
      }
      await Promise.race([
        new Promise<void>((resolve) => this.#onAccepted = resolve),
        sleep(50),
        ...this.#processes.filter((p) => p.exit === undefined).map((p) => p.exited),
      ]);
    }
    return this.#accepted.splice(0, this.#count);
  }

  /** Of a reader whose connection has ended and that may connect again at once; undefined: it does not. */
  async #nextConnection(): Promise<Connection | undefined> {
    const endMs = performance.now() + 1000 * LOOKED_SECONDS;
    while (this.#accepted.length === 0) {
      const over = this.#processes.some(({ exit }) => exit !== undefined);
      if (over || performance.now() > endMs || this.#options.signal?.aborted) return undefined;
      await sleep(SAMPLE_EVERY_MS);
    }
    return this.#accepted.shift();
  }

  /**
   * Why a reader's connection ended, as one clause. Waits 100 ms first: where the reader's process
   * has exited, its status says more than the connection does.
   */
  async explainEnd(reader: number, closed: { reason: string; errno?: string }): Promise<string> {
    await sleep(100);
    const process = this.#processes.find(({ exit }) => exit !== undefined) ??
      this.#processes[reader];
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
    // A connection that an ended process has left behind must not count as one of the next readers.
    if (this.#processes.length > 0) { for (const each of this.#accepted.splice(0)) each.close(); }
    this.#processes = [];
  }

  async close(): Promise<void> {
    try {
      await this.end();
    } finally {
      for (const each of this.#accepted.splice(0)) each.close();
      await this.#listener?.close();
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
