/** Readers that come and go, each of them fed by a flood: what a limit is measured on. */
import { Flood, type Replies } from "../send/flood.ts";
import type { Message } from "../message/message.ts";
import { Meter, SAMPLE_EVERY_MS } from "./meter.ts";
import type { Adapter, Closed, Connection, Listener } from "../net/net.ts";
import { loadAdapter } from "../net/load.ts";
import { Ticker } from "../send/pacer.ts";
import { describeExit, fillCommand, ReaderFailed, ReaderProcess } from "./reader_process.ts";
import { setTimeout as sleep } from "node:timers/promises";
import type { Feed } from "./trial_watch.ts";
import { waitForClear } from "./clearing.ts";

export interface FedReadersOptions {
  /** The reader's program and arguments, `{host}` and `{port}` replaced; without it readers attach. */
  command?: readonly string[];
  message: Message;
  /** Where to listen; default 127.0.0.1 and any free port. */
  host?: string;
  port?: number;
  /** Readers at once, each with a flood of its own; default 1. */
  readers?: number;
  /** What becomes of the reader's replies; default drain. */
  replies?: Replies;
  /** How long to wait for a reader to connect; seconds, default 10 for a command, else no limit. */
  connectSeconds?: number;
  adapter?: Adapter;
  /** Ends what goes on, with an Interrupted. */
  signal?: AbortSignal;
  onEvent?: (event: FedReadersEvent) => void;
}

export type FedReadersEvent =
  | { event: "listening"; host: string; port: number }
  | { event: "connected"; readers: number };

const CONNECT_SECONDS = 10;
/** An attached reader that has gone is expected back; the first one may take as long as it likes. */
const RETURN_SECONDS = 60;
/** An attached reader cannot be replaced when it does not clear its backlog: it gets its time. */
export const CLEAR_ATTACHED_MS = 30_000;
/** Bytes a second that any reader can take while it warms up. */
const TRICKLE_RATE = 10_000;

/** Those that are there are in `feeds`. */
export class FedReaders {
  feeds: Feed[] = [];
  readonly #options: FedReadersOptions;
  readonly #count: number;
  readonly #ticker = new Ticker();
  readonly #emit: (event: FedReadersEvent) => void;
  #listener: Listener | undefined;
  #processes: ReaderProcess[] = [];
  #waiting: Connection[] = [];
  #arrived: (() => void) | undefined;
  #served = false;

  constructor(options: FedReadersOptions) {
    this.#options = options;
    this.#count = options.readers ?? 1;
    this.#emit = options.onEvent ?? (() => {});
  }

  async open(): Promise<void> {
    const net = this.#options.adapter ?? await loadAdapter();
    this.#listener = await net.listen({
      host: this.#options.host ?? "127.0.0.1",
      port: this.#options.port ?? 0,
      onConnection: (connection) => {
        this.#waiting.push(connection);
        this.#arrived?.();
      },
    });
    this.#emit({ event: "listening", ...this.#listener.address });
  }

  /** Ends the readers that are there, and gets new ones, which have read already when it resolves. */
  async renew(): Promise<void> {
    await this.end();
    const { command } = this.#options;
    if (command !== undefined) {
      const words = fillCommand(command, this.#listener!.address);
      this.#processes = Array.from({ length: this.#count }, () => new ReaderProcess(words));
    }
    const connections = await this.#gather();
    this.#served = true;
    this.feeds = connections.map((connection) => {
      const { message, replies = "drain" } = this.#options;
      const flood = new Flood({ connection, message, ticker: this.#ticker, replies });
      return { flood, meter: new Meter(flood) };
    });
    this.#emit({ event: "connected", readers: connections.length });
    await this.#awaitFirstRead();
  }

  /** A reader that warms up after it has connected is no slow reader: a trickle, until it reads. */
  async #awaitFirstRead(): Promise<void> {
    const { feeds } = this;
    const { connectSeconds = CONNECT_SECONDS, signal } = this.#options;
    let ended: { reader: number; closed: Closed } | undefined;
    feeds.forEach(({ flood }, reader) => {
      // The first message at once: a large one would be due only after seconds.
      const rate = TRICKLE_RATE / flood.message.size;
      flood.start(rate, performance.now() - 1000 / rate);
      void flood.done.then((closed) => ended ??= { reader, closed });
    });
    const endMs = performance.now() + connectSeconds * 1000;
    while (!feeds.every(({ meter }) => (meter.read()?.drained ?? 0) > 0)) {
      if (signal?.aborted) throw new Interrupted();
      if (ended !== undefined) {
        throw new ReaderFailed(await this.describeEnd(ended.reader, ended.closed));
      }
      if (performance.now() > endMs) {
        throw new ReaderFailed(
          `the reader connected, and read nothing within ${connectSeconds} s`,
        );
      }
      await sleep(SAMPLE_EVERY_MS);
    }
    if (!await waitForClear(feeds, CLEAR_ATTACHED_MS)) {
      if (ended !== undefined) {
        throw new ReaderFailed(await this.describeEnd(ended.reader, ended.closed));
      }
    }
  }

  async #gather(): Promise<Connection[]> {
    const { command, signal } = this.#options;
    const seconds = this.#options.connectSeconds ??
      (command !== undefined ? CONNECT_SECONDS : this.#served ? RETURN_SECONDS : Infinity);
    const endMs = performance.now() + seconds * 1000;
    while (this.#waiting.length < this.#count) {
      if (signal?.aborted) throw new Interrupted();
      for (const reader of this.#processes) {
        if (reader.startError !== undefined) {
          throw new ReaderFailed(
            `cannot start the reader ${command![0]}: ${startProblem(reader.startError)}`,
          );
        }
        if (reader.exit !== undefined && this.#waiting.length < this.#count) {
          throw new ReaderFailed(
            `the reader ${describeExit(reader.exit)} before it connected${said(reader)}`,
          );
        }
      }
      if (performance.now() > endMs) {
        const { host, port } = this.#listener!.address;
        throw new ReaderFailed(
          command === undefined
            ? `the reader did not come back to ${host}:${port} within ${seconds} s`
            : `the reader did not connect to ${host}:${port} within ${seconds} s: ` +
              `does its command use {host} and {port}?`,
        );
      }
      await Promise.race([
        new Promise<void>((resolve) => this.#arrived = resolve),
        sleep(50),
        ...this.#processes.filter((p) => p.exit === undefined).map((p) => p.exited),
      ]);
    }
    return this.#waiting.splice(0, this.#count);
  }

  /** Why a reader's connection ended, in words, once its process has had a moment to end as well. */
  async describeEnd(reader: number, closed: { reason: string; errno?: string }): Promise<string> {
    await sleep(100);
    const process = this.#processes.find(({ exit }) => exit !== undefined) ??
      this.#processes[reader];
    const how = closed.reason === "reset" ? "reset its connection" : "closed its connection";
    if (process?.exit === undefined) return `the reader ${how}`;
    return `the reader ${describeExit(process.exit)}${said(process)}`;
  }

  /** Ends the readers that are there. */
  async end(): Promise<void> {
    for (const { flood } of this.feeds) flood.connection.close();
    this.feeds = [];
    await Promise.all(this.#processes.map((reader) => reader.kill()));
    // A command's leftover connection is not one of the next readers.
    if (this.#processes.length > 0) { for (const each of this.#waiting.splice(0)) each.close(); }
    this.#processes = [];
  }

  async close(): Promise<void> {
    await this.end();
    for (const each of this.#waiting.splice(0)) each.close();
    await this.#listener?.close();
  }
}

/** Not an error: the signal was aborted. */
export class Interrupted extends Error {
  override name = "Interrupted";
}

const said = (reader: ReaderProcess) => reader.lastWords === "" ? "" : `: ${reader.lastWords}`;

function startProblem(error: Error): string {
  const { code } = error as Error & { code?: string };
  if (code === "ENOENT" || /No such file|not found/i.test(error.message)) return "no such program";
  if (code === "EACCES") return "not permitted to run it";
  return error.message;
}
