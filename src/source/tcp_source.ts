/**
 * Reads messages from a TCP server, the upstream, and reconnects when the connection breaks.
 *
 * A plain upstream is sent nothing: what it sends while we are disconnected is lost. An upstream with
 * the acknowledgement protocol (message/protocol.ts) is sent the offset at which to resume, and
 * acknowledgements of what is safe.
 */
import { setUserTimeout, SILENCE_MS } from "../kernel/keepalive.ts";
import { ProtocolError, type StreamOffset } from "../message/protocol.ts";
import { handshake, OtherStreamError } from "../read/acknowledger.ts";
import { createFramer } from "../message/frame.ts";
import { type Frame, FrameError } from "../message/framer.ts";
import { type Adapter, type Connection, DEFAULT_READ_SIZE, NetError } from "../net/net.ts";
import { ReconnectPause } from "../net/reconnect_pause.ts";
import { loadAdapter } from "../net/load.ts";
import { nextTurn, TURN_BYTES, TURN_READS } from "../send/pacer.ts";
import { AckSender } from "./ack_sender.ts";
import { BadFrames } from "./bad_frames.ts";
import { IdleWatch } from "./idle_watch.ts";
import { Reassembly } from "../message/reassembly.ts";
import type { OnBadFrame, Sink, Source, SourceKind } from "./source.ts";
import { formatHostPort, formatSeconds, parseHostPort, UnitError } from "../text/units.ts";

export interface TcpSourceOptions {
  host: string;
  port: number;
  frame: Frame;
  /** See `createFramer`. */
  maxMessage?: number | undefined;
  /**
   * What to do with a message that is too long; default reconnect. With `acknowledged` the server then
   * sends the same message again.
   */
  onBadFrame?: OnBadFrame | undefined;
  /** The server supports the acknowledgement protocol (message/protocol.ts); default false. */
  acknowledged?: boolean | undefined;
  /** The reader's name for a server with `--reader-id hello`; default: no name is sent. */
  hello?: string | undefined;
  /** A server that has sent nothing for this time is connected anew; ms, default never. */
  idleMs?: number | undefined;
  /** Default: the adapter of this runtime. */
  adapter?: Adapter | undefined;
}

/** Time limit for the server's answer in the handshake. */
const ANSWER_MS = 10_000;

export class TcpSource implements Source {
  readonly replayable: boolean;
  readonly connects = true;
  readonly #options: TcpSourceOptions;
  readonly #name: string;
  #stream: string | undefined;
  /** Position up to which messages were delivered. */
  #position = 0;
  /** Position up to which they are safe. */
  #safe = 0;
  #stopped = false;
  /** Ends the current wait for a connection or before a new attempt. */
  #interrupt: (() => void) | undefined;
  #connection: Connection | undefined;
  #acks: AckSender | undefined;

  constructor(options: TcpSourceOptions) {
    this.#options = options;
    this.#name = `tcp://${formatHostPort(options)}`;
    this.replayable = options.acknowledged === true;
  }

  /** Without a stream the server chooses the start, and `from` is ignored. */
  async run(sink: Sink, from: number, stream?: string): Promise<void> {
    const adapter = this.#options.adapter ?? await loadAdapter();
    if (this.replayable) this.#position = this.#safe = from;
    this.#stream = stream;
    const bad = new BadFrames(this.#options.onBadFrame ?? "reconnect", (event) => sink.note(event));
    try {
      await this.#runUntilStopped(adapter, sink, bad);
    } finally {
      bad.close();
    }
  }

  async #runUntilStopped(adapter: Adapter, sink: Sink, bad: BadFrames): Promise<void> {
    const pause = new ReconnectPause();
    while (!this.#stopped) {
      let error: string | undefined;
      let connection: Connection | undefined;
      let at: StreamOffset | undefined;
      try {
        connection = await this.#connect(adapter);
        if (connection !== undefined) at = await this.#handshake(connection);
      } catch (thrown) {
        if (!(thrown instanceof NetError)) throw thrown;
        error = thrown.message;
      }
      if (this.#stopped) return;
      if (connection !== undefined && error === undefined) {
        const connectedMs = performance.now();
        error = await this.#deliver(connection, at, sink, bad);
        pause.connectedFor(performance.now() - connectedMs);
        if (this.#stopped) return;
      }
      // Random, so that the clients of a server that restarts do not all reconnect at once.
      const inMs = pause.next() * (0.5 + Math.random() / 2);
      sink.note({ event: "retrying", inMs, ...(error === undefined ? {} : { error }) });
      await this.#wait(inMs);
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#interrupt?.();
    this.#connection?.close();
  }

  acknowledge(position: number): void {
    if (!this.replayable || position <= this.#safe) return;
    this.#safe = Math.min(position, this.#position);
    this.#acks?.acknowledge(this.#safe);
  }

  /** Undefined: the source was stopped; a connection established later is closed. */
  #connect(adapter: Adapter): Promise<Connection | undefined> {
    const { host, port } = this.#options;
    return new Promise((resolve, reject) => {
      this.#interrupt = () => resolve(undefined);
      adapter.connect({ host, port, readSize: DEFAULT_READ_SIZE }).then((connection) => {
        if (this.#stopped) return connection.close();
        // We send little, and a server reads it at once: only one whose host has vanished does not.
        if (connection.fd !== undefined) setUserTimeout(connection.fd, SILENCE_MS);
        this.#connection = connection;
        resolve(connection);
      }, reject);
    });
  }

  #wait(ms: number): Promise<void> {
    return new Promise((resolve) => {
      if (this.#stopped) return resolve();
      const timer = setTimeout(resolve, ms);
      this.#interrupt = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Delivers the messages of a connection until it ends. Returns why, if we have ended it. */
  async #deliver(
    connection: Connection,
    at: StreamOffset | undefined,
    sink: Sink,
    bad: BadFrames,
  ): Promise<string | undefined> {
    const { frame, maxMessage, idleMs = Infinity } = this.#options;
    let why: string | undefined;
    const idle = new IdleWatch(idleMs, () => {
      why = `${this.#name} has sent nothing for ${formatSeconds(idleMs / 1000)}`;
      connection.close();
    });
    const advance = (bytes: number) => {
      if (this.replayable) this.#position += bytes;
    };
    const messages = new Reassembly(
      createFramer(frame, maxMessage),
      (bytes, count) => {
        const position = this.#position;
        advance(bytes.length);
        return sink.push(bytes, count, position);
      },
      bad.skipping(advance),
    );
    try {
      const skip = this.#connected(connection, at, sink);
      await this.#read(connection, messages, skip, idle);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      bad.ended(error);
      if (bad.then === "stop") {
        throw new Error(`invalid data from ${this.#name}: ${error.message}`, { cause: error });
      }
    } finally {
      idle.stop();
      this.#acks?.close();
      this.#connection = this.#acks = undefined;
      connection.close();
    }
    const closed = await connection.closed;
    if (this.#stopped) return undefined;
    sink.note({ event: "disconnected", ...closed, discarded: messages.partial.length });
    return why;
  }

  /**
   * Returns the offset at which the server resumes; undefined: a plain server. Requests everything
   * from the safe position on, including bytes that were delivered already: the server may discard
   * everything before the requested offset.
   */
  async #handshake(connection: Connection): Promise<StreamOffset | undefined> {
    const { hello } = this.#options;
    const stored = this.#stream === undefined ? {} : { offset: this.#safe, stream: this.#stream };
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      connection.close();
    }, ANSWER_MS);
    try {
      return await handshake(connection, hello, this.replayable ? stored : undefined);
    } catch (error) {
      if (this.#stopped) return undefined;
      connection.close();
      const what = `cannot resume the stream of ${this.#name}`;
      if (error instanceof OtherStreamError) {
        // The server was replaced. What it has is a stream of its own, from its beginning on.
        this.#stream = undefined;
        throw new NetError(what, "ESTALE", error);
      }
      if (error instanceof ProtocolError) {
        throw new Error(`${what}: ${error.message}`, { cause: error });
      }
      const { errno = "EOF" } = await connection.closed;
      throw new NetError(what, late ? "ETIMEDOUT" : errno, error);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Returns how many of the bytes that follow were delivered before. */
  #connected(connection: Connection, at: StreamOffset | undefined, sink: Sink): number {
    const { remote } = connection;
    if (at === undefined) {
      sink.note({ event: "connected", ...remote });
      return 0;
    }
    const { offset, stream } = at;
    if (this.#stream === undefined) this.#position = this.#safe = offset;
    this.#stream = stream;
    const skip = Math.max(0, this.#position - offset);
    const missed = Math.max(0, offset - this.#position);
    this.#position += missed;
    sink.note({ event: "connected", ...remote, stream, position: this.#position, missed });
    this.#acks = new AckSender(connection, offset);
    this.#acks.acknowledge(this.#safe);
    return skip;
  }

  /** Reads everything, and drops the first `skip` bytes. */
  async #read(
    connection: Connection,
    messages: Reassembly,
    skip: number,
    idle: IdleWatch,
  ): Promise<void> {
    const readSize = Math.max(DEFAULT_READ_SIZE, connection.readAhead);
    let turnBytes = 0;
    let turnReads = 0;
    while (!this.#stopped) {
      const answer = connection.read(readSize);
      // Only while we wait for it: a server that must wait for us can send nothing.
      if (answer instanceof Promise) idle.begin();
      let chunk = answer instanceof Promise ? await answer : answer;
      idle.end();
      if (chunk === null || this.#stopped) return;
      turnBytes += chunk.length;
      this.#acks?.received(chunk.length);
      if (skip > 0) {
        const skipped = Math.min(skip, chunk.length);
        skip -= skipped;
        chunk = chunk.subarray(skipped);
      }
      const taking = messages.take(chunk);
      if (taking instanceof Promise) await taking;
      if (turnBytes >= TURN_BYTES || ++turnReads >= TURN_READS) {
        // Reads that return synchronously never yield to the event loop.
        await nextTurn();
        turnBytes = turnReads = 0;
      }
    }
  }
}

/** `tcp://HOST:PORT` */
export const TCP_KIND: SourceKind = {
  form: "tcp://HOST:PORT",
  words: "tcp://HOST:PORT",
  parse(text) {
    const [, address] = /^tcp:\/\/(.*?)\/?$/s.exec(text) ?? [];
    if (address === undefined) return undefined;
    try {
      const { host, port } = parseHostPort(address);
      return {
        name: `tcp://${formatHostPort({ host, port })}`,
        takesRate: false,
        acknowledges: true,
        reconnects: true,
        onBadFrame: ["reconnect", "skip", "stop"],
        open: ({ frame, maxMessage, onBadFrame, acknowledged, idleMs }) =>
          new TcpSource({ host, port, frame, maxMessage, onBadFrame, acknowledged, idleMs }),
      };
    } catch (error) {
      if (!(error instanceof UnitError)) throw error;
      return undefined;
    }
  },
};
