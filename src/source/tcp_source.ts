/**
 * Messages from a TCP server, such as a feed that will not wait: read all the time, and connected to
 * again when the connection breaks.
 *
 * A plain server is sent nothing, and what it sent while we were not there is gone. One that speaks
 * the protocol of ack.ts is told where to go on, and what is safe.
 */
import { formatAck, ProtocolError, type StreamOffset } from "../message/protocol.ts";
import { handshake, OtherStreamError } from "../read/acknowledger.ts";
import { createFramer, type Frame, FrameError } from "../message/frame.ts";
import { type Adapter, type Connection, DEFAULT_READ_SIZE, NetError } from "../net/net.ts";
import { loadAdapter } from "../net/load.ts";
import { nextTurn, TURN_BYTES, TURN_READS } from "../send/pacer.ts";
import { Reassembly } from "./reassembly.ts";
import type { Sink, Source } from "./source.ts";
import { formatHostPort } from "../text/units.ts";

export interface TcpSourceOptions {
  host: string;
  port: number;
  frame: Frame;
  /** See `createFramer`. */
  maxMessage?: number | undefined;
  /** The server speaks the protocol of ack.ts; default false. */
  acknowledged?: boolean | undefined;
  /** Said first, to a server that knows its readers by name; default: nothing is. */
  hello?: string | undefined;
  /**
   * The stream in which `from` counts, as an earlier life was told (`connected`). Default: none is
   * known, and the server says where it begins, whatever `from` is.
   */
  stream?: string | undefined;
  /** Default: the one of this runtime. */
  adapter?: Adapter | undefined;
}

/** The first wait before connecting again, which doubles up to the longest. */
const SHORTEST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 5000;
/** After a connection of this length the waits start over. */
const STEADY_MS = 1000;

/** How long the server may take to say where it goes on. */
const ANSWER_MS = 10_000;
/** Acknowledgements are not sent more often: those between are gathered in the next. */
const ACK_EVERY_MS = 10;

export class TcpSource implements Source {
  readonly replayable: boolean;
  readonly #options: TcpSourceOptions;
  readonly #name: string;
  #stream: string | undefined;
  /** End of what was delivered, and of what of that is safe. */
  #position = 0;
  #safe = 0;
  #stopped = false;
  /** Ends a wait in which there is no connection. */
  #interrupt: (() => void) | undefined;
  #connection: Connection | undefined;
  #upstream: Upstream | undefined;

  constructor(options: TcpSourceOptions) {
    this.#options = options;
    this.#name = `tcp://${formatHostPort(options)}`;
    this.#stream = options.stream;
    this.replayable = options.acknowledged === true;
  }

  async run(sink: Sink, from: number): Promise<void> {
    const adapter = this.#options.adapter ?? await loadAdapter();
    if (this.replayable) this.#position = this.#safe = from;
    let waitMs = SHORTEST_WAIT_MS;
    while (!this.#stopped) {
      let error: string | undefined;
      let connection: Connection | undefined;
      let at: StreamOffset | undefined;
      try {
        connection = await this.#connect(adapter);
        if (connection !== undefined) at = await this.#introduce(connection);
      } catch (thrown) {
        if (!(thrown instanceof NetError)) throw thrown;
        error = thrown.message;
      }
      if (this.#stopped) return;
      if (connection !== undefined && error === undefined) {
        const connectedMs = performance.now();
        await this.#drain(connection, at, sink);
        if (performance.now() - connectedMs >= STEADY_MS) waitMs = SHORTEST_WAIT_MS;
        if (this.#stopped) return;
      }
      // Those that lost the same server shall not all come back at the same moment.
      const inMs = waitMs * (0.5 + Math.random() / 2);
      waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
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
    this.#upstream?.acknowledge(this.#safe);
  }

  /** Undefined: stopped meanwhile; a connection that comes later is closed. */
  #connect(adapter: Adapter): Promise<Connection | undefined> {
    const { host, port } = this.#options;
    return new Promise((resolve, reject) => {
      this.#interrupt = () => resolve(undefined);
      adapter.connect({ host, port, readSize: DEFAULT_READ_SIZE }).then((connection) => {
        if (this.#stopped) return connection.close();
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

  /** Delivers what a connection brings, until it ends. */
  async #drain(connection: Connection, at: StreamOffset | undefined, sink: Sink): Promise<void> {
    const { frame, maxMessage } = this.#options;
    const messages = new Reassembly(createFramer(frame, maxMessage), (bytes, count) => {
      const position = this.#position;
      if (this.replayable) this.#position += bytes.length;
      return sink.push(bytes, count, position);
    });
    try {
      const skip = this.#connected(connection, at, sink);
      await this.#read(connection, messages, skip);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      throw new Error(`cannot take what ${this.#name} sends: ${error.message}`, { cause: error });
    } finally {
      this.#upstream?.close();
      this.#connection = this.#upstream = undefined;
      connection.close();
    }
    const closed = await connection.closed;
    if (this.#stopped) return;
    sink.note({ event: "disconnected", ...closed, discarded: messages.partial.length });
  }

  /**
   * Where the server goes on; undefined: a plain one. It is asked for all that is not safe, though
   * that was delivered: what is before the place that it is asked for, it forgets.
   */
  async #introduce(connection: Connection): Promise<StreamOffset | undefined> {
    const { hello } = this.#options;
    const known = this.#stream === undefined ? {} : { offset: this.#safe, stream: this.#stream };
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      connection.close();
    }, ANSWER_MS);
    try {
      return await handshake(connection, hello, this.replayable ? known : undefined);
    } catch (error) {
      if (this.#stopped) return undefined;
      connection.close();
      const what = `cannot go on with ${this.#name}`;
      if (error instanceof ProtocolError || error instanceof OtherStreamError) {
        throw new Error(`${what}: ${error.message}`, { cause: error });
      }
      const { errno = "EOF" } = await connection.closed;
      throw new NetError(what, late ? "ETIMEDOUT" : errno, error);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Returns how many of the bytes that come next were delivered before. */
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
    this.#upstream = new Upstream(connection, offset);
    this.#upstream.acknowledge(this.#safe);
    return skip;
  }

  /** All that comes, but for the first `skip` bytes. */
  async #read(
    connection: Connection,
    messages: Reassembly,
    skip: number,
  ): Promise<void> {
    const readSize = Math.max(DEFAULT_READ_SIZE, connection.readAhead);
    let turnBytes = 0;
    let turnReads = 0;
    while (!this.#stopped) {
      const answer = connection.read(readSize);
      let chunk = answer instanceof Promise ? await answer : answer;
      if (chunk === null || this.#stopped) return;
      turnBytes += chunk.length;
      this.#upstream?.came(chunk.length);
      if (skip > 0) {
        const skipped = Math.min(skip, chunk.length);
        skip -= skipped;
        chunk = chunk.subarray(skipped);
      }
      const taking = messages.take(chunk);
      if (taking instanceof Promise) await taking;
      if (turnBytes >= TURN_BYTES || ++turnReads >= TURN_READS) {
        // Where reads are answered at once, nothing else gives the event loop a turn.
        await nextTurn();
        turnBytes = turnReads = 0;
      }
    }
  }
}

/** Tells a server what is safe. */
class Upstream {
  readonly #connection: Connection;
  /** The offset of what comes next: the server takes no acknowledgement of more. */
  #received: number;
  #safe = 0;
  #sent: number;
  #sending = false;
  #closed = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** From `offset` on. */
  constructor(connection: Connection, offset: number) {
    this.#connection = connection;
    this.#received = this.#sent = offset;
  }

  /** So many bytes of the stream. */
  came(bytes: number): void {
    this.#received += bytes;
    this.#pump();
  }

  acknowledge(position: number): void {
    this.#safe = position;
    this.#pump();
  }

  /** No more is sent. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  #pump(): void {
    if (this.#sending || this.#closed) return;
    const position = Math.min(this.#safe, this.#received);
    if (position > this.#sent) void this.#send(position);
  }

  async #send(position: number): Promise<void> {
    this.#sending = true;
    this.#sent = position;
    let bytes = new TextEncoder().encode(formatAck(position));
    while (bytes.length > 0) {
      const taken = await this.#connection.write(bytes);
      if (taken === 0 || this.#closed) return;
      bytes = bytes.subarray(taken);
    }
    this.#timer = setTimeout(() => {
      this.#sending = false;
      this.#pump();
    }, ACK_EVERY_MS);
  }
}
