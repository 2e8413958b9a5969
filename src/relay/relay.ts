/**
 * Passes messages from a source to all readers. Each reader has its own `Delivery`, which outlives
 * the reader's connections.
 */
import {
  AckParser,
  formatAt,
  type LineReader,
  newStream,
  ProtocolError,
  type StreamOffset,
} from "../message/protocol.ts";
import { Delivery } from "./delivery.ts";
import type { Ack } from "./delivery_options.ts";
import type { RelayOptions } from "./relay_options.ts";
import { type Handshake, receiveHandshake } from "./handshake.ts";
import { libc } from "../kernel/libc.ts";
import { closeSoon, discardReplies, linger } from "../net/linger.ts";
import { type Connection, DEFAULT_READ_SIZE } from "../net/net.ts";
import type { ConnectionTotals, Feeder } from "./feeder.ts";
import type { ServerFigures } from "./figures.ts";
import type { Source } from "../source/source.ts";

/** Name of the only reader with `single`. */
const SINGLE = "reader";

/** Why a reader is rejected that comes too late. */
const ENDING = "the server is ending";

/** A reader that has connected before, or has a queue on disk. */
interface RelayReader {
  readonly name: string;
  readonly delivery: Delivery;
  readonly stream: string;
  /** Number of its latest connection; 0: none yet. */
  reader: number;
  /** Settles when its current connection is no longer fed; absent: not connected. */
  feeding?: Promise<boolean>;
  /** It has sent FIN on its current connection. */
  sentFin: boolean;
}

export class Relay implements Feeder {
  /** Resolves when the source has ended and everything is delivered or stored; rejects on failure. */
  readonly done: Promise<void>;
  readonly #options: RelayOptions;
  readonly #readersByName = new Map<string, Promise<RelayReader>>();
  readonly #readers: RelayReader[] = [];
  readonly #sources = new Set<Source>();
  /** All connections, and whether what the reader sends is read. */
  readonly #connections = new Map<Connection, boolean>();
  readonly #end: { resolve: () => void; reject: (error: unknown) => void };
  /** Position of the shared source. */
  #position = 0;
  /** Undefined where there is no connection to be lost. */
  #sourceConnected: boolean | undefined;
  /** Messages that were dropped while their readers were connected. */
  #dropped = 0;
  #runningSources = 0;
  #started = false;
  #ending = false;
  #stopped = false;

  constructor(options: RelayOptions) {
    this.#options = options;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.done = promise;
    this.#end = { resolve, reject };
  }

  get droppedWhileAbsent(): number {
    return this.#readers.reduce((sum, { delivery }) => sum + delivery.dropped, -this.#dropped);
  }

  figures(): ServerFigures {
    const connected = this.#sourceConnected;
    return {
      readers: this.#readers.map(({ name, delivery }) => ({ name, ...delivery.figures() })),
      logs: [],
      memoryBytes: this.#readers.reduce((sum, { delivery }) => sum + delivery.memoryBytes, 0),
      ...(connected === undefined ? {} : { sourceConnected: connected }),
    };
  }

  /** Opens the readers in the queue and the single reader, and starts their sources. */
  async start(): Promise<void> {
    const { queue, readerId } = this.#options;
    for (const name of queue?.names ?? []) await this.#openReader(name);
    if (readerId === "single" && queue !== undefined) await this.#openReader(SINGLE);
    this.#started = true;
    this.#startSources();
  }

  async feed(connection: Connection, reader: number): Promise<ConnectionTotals> {
    if (this.#ending) return await reject(connection, new Error(ENDING));
    this.#connections.set(connection, this.#options.drainReplies);
    try {
      return await this.#serve(connection, reader);
    } finally {
      this.#connections.delete(connection);
    }
  }

  async #serve(connection: Connection, reader: number): Promise<ConnectionTotals> {
    const { readerId, ack, drainReplies, handshakeTimeoutMs } = this.#options;
    let handshake: Handshake;
    try {
      const resume = ack === undefined ? "optional" : ack === "reader" ? "required" : "none";
      handshake = await receiveHandshake(connection, {
        hello: readerId === "hello",
        resume,
        handshakeTimeoutMs,
      });
    } catch (error) {
      return await reject(connection, error as Error);
    }
    const name = handshake.name ?? (readerId === "address" ? connection.remote.host : SINGLE);
    let relayReader: RelayReader | undefined;
    try {
      const closed = connection.closed.then(() => undefined);
      relayReader = await Promise.race([this.#openReader(name), closed]);
    } catch (error) {
      const why = `its queue cannot be opened: ${(error as Error).message}`;
      return await reject(connection, new Error(why, { cause: error }));
    }
    if (relayReader === undefined) {
      return await reject(connection, new Error("it disconnected before its queue was open"));
    }
    const { delivery } = relayReader;
    while (relayReader.feeding !== undefined) {
      // A reader that names itself may replace its earlier connection, which may hang. Any reader may
      // replace one that has sent FIN: whether that one still reads, only a write would show.
      if (readerId !== "hello" && !relayReader.sentFin) {
        return await reject(connection, new Error("another reader is connected already"));
      }
      delivery.connection?.reset();
      await relayReader.feeding;
    }
    relayReader.reader = reader;
    if (this.#ending) {
      closeSoon(connection);
      await linger(connection, discardReplies(connection, handshake.reading));
      return await reject(connection, new Error(ENDING));
    }
    const { accepted, messages, dropped, overflows } = delivery;
    const stopReporting = this.#reportSent(relayReader);
    let failure: { error: unknown } | undefined;
    const hangUp = () => linger(connection, replies);
    const feeding = relayReader.feeding = this.#feed(connection, relayReader, handshake, hangUp)
      .catch((error) => {
        failure = { error };
        return false;
      });
    const replies = handshake.acknowledges
      ? this.#readAcks(connection, delivery, handshake.lines, { reader, name })
      : drainReplies
      ? discardReplies(connection, handshake.reading)
      : undefined;
    this.#connections.set(connection, replies !== undefined);
    relayReader.sentFin = false;
    void replies?.then(() => {
      if (relayReader.feeding === feeding) relayReader.sentFin = true;
    });
    const finished = await feeding;
    stopReporting();
    delete relayReader.feeding;
    // Before the next await: after it the counters may include the reader's next connection.
    const totals = {
      messages: delivery.messages - messages,
      bytes: delivery.accepted - accepted,
      dropped: delivery.dropped - dropped,
      overflows: delivery.overflows - overflows,
    };
    this.#dropped += totals.dropped;
    if (failure !== undefined) {
      // The queue failed: what it holds for this reader and for others cannot be delivered.
      this.#fail(failure.error);
      throw failure.error;
    }
    if (finished) await linger(connection, replies);
    connection.close();
    this.#endIfComplete();
    return { ...totals, closed: await connection.closed };
  }

  async #feed(
    connection: Connection,
    { delivery, stream }: RelayReader,
    { acknowledges, stored }: Handshake,
    hangUp: () => Promise<void>,
  ): Promise<boolean> {
    if (!acknowledges) {
      return await delivery.feed(connection, this.#options.ack ?? defaultAck(), hangUp);
    }
    const at: StreamOffset = { offset: await startFor(delivery, stream, stored), stream };
    const line = new TextEncoder().encode(formatAt(at));
    if (await connection.write(line) < line.length) return false;
    // Its offset belongs to another stream. The reader has to decide what to do, and disconnects.
    if (stored !== undefined && stored.stream !== stream) {
      await linger(connection);
      return false;
    }
    return await delivery.feed(connection, "reader", hangUp, at.offset);
  }

  /**
   * Ends within about 1 s: messages in memory are stored on disk if there is a queue, else dropped. A
   * reader that is sent a reset would lose what it has not read yet, so a connection whose replies are
   * read ends in order, if its reader closes it in that time.
   */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    for (const source of this.#sources) this.#stopSource(source);
    for (const { delivery } of this.#readers) {
      delivery.unblockSource();
      delivery.stopSending();
    }
    for (const [connection, repliesAreRead] of this.#connections) {
      if (repliesAreRead) closeSoon(connection);
      else connection.close();
    }
    if (this.#ending) return;
    this.#ending = true;
    void this.#storeAll();
  }

  #stopSource(source: Source): void {
    try {
      source.stop();
    } catch (error) {
      this.#fail(error);
    }
  }

  async #storeAll(): Promise<void> {
    try {
      await Promise.all(this.#readers.map(({ feeding }) => feeding));
      await Promise.all(this.#readers.map(({ delivery }) => delivery.store()));
      this.#end.resolve();
    } catch (error) {
      this.#fail(error);
    }
  }

  #reportSent(relayReader: RelayReader): () => void {
    const { sentEveryMs, onEvent } = this.#options;
    if (sentEveryMs === undefined) return () => {};
    let reported = relayReader.delivery.messages;
    const report = () => {
      const { reader, delivery: { messages } } = relayReader;
      if (messages > reported) onEvent({ event: "sent", reader, messages });
      reported = messages;
    };
    const interval = setInterval(report, sentEveryMs);
    return () => {
      clearInterval(interval);
      report();
    };
  }

  async #readAcks(
    connection: Connection,
    delivery: Delivery,
    lines: LineReader,
    who: { reader: number; name: string },
  ): Promise<void> {
    try {
      const acks = new AckParser(lines);
      while (true) {
        delivery.acknowledge(Math.min(acks.acked, delivery.offered));
        const answer = connection.read(DEFAULT_READ_SIZE);
        const chunk = answer instanceof Promise ? await answer : answer;
        if (chunk === null) return;
        acks.push(chunk, delivery.offered);
      }
    } catch (error) {
      connection.reset();
      if (!(error instanceof ProtocolError)) return this.#fail(error);
      this.#options.onEvent({ event: "protocol", ...who, error: error.message });
    }
  }

  #openReader(name: string): Promise<RelayReader> {
    let relayReader = this.#readersByName.get(name);
    if (relayReader === undefined) {
      const creating = this.#createReader(name);
      relayReader = creating;
      this.#readersByName.set(name, creating);
      // Its next connection tries again.
      creating.catch(() => this.#readersByName.delete(name));
    }
    return relayReader;
  }

  async #createReader(name: string): Promise<RelayReader> {
    const { queue, onEvent, shared } = this.#options;
    const stored = await queue?.open(name);
    const delivery = new Delivery({
      ...this.#options,
      queue: stored,
      onEvent: (event) => onEvent({ reader: relayReader.reader, name, ...event }),
      onSafe: shared && this.#options.replayable ? () => this.#acknowledge() : undefined,
      onError: (error) => this.#fail(error),
    });
    if (this.#position > 0 && stored?.tail === 0) {
      // A new reader of a source that is already running: its stream starts at the current position.
      delivery.position = this.#position;
      stored.release(0, this.#position);
    }
    const stream = stored?.stream ?? newStream();
    const relayReader: RelayReader = { name, delivery, stream, reader: 0, sentFin: false };
    this.#readers.push(relayReader);
    if (this.#started) this.#startSources(relayReader);
    return relayReader;
  }

  /** Starts the shared source once there is a reader, or a source for the new reader (default: all). */
  #startSources(newReader?: RelayReader): void {
    const { shared, source } = this.#options;
    if (this.#ending) return;
    if (!shared) {
      for (const { delivery } of newReader === undefined ? this.#readers : [newReader]) {
        void this.#run(source(), delivery, delivery.position);
      }
    } else if (this.#sources.size === 0 && this.#readers.length > 0) {
      this.#position = Math.min(...this.#readers.map(({ delivery }) => delivery.position));
      void this.#run(source(), undefined, this.#position);
    }
  }

  async #run(source: Source, to: Delivery | undefined, from: number): Promise<void> {
    this.#sources.add(source);
    this.#runningSources++;
    const { onEvent, endsAfterMs } = this.#options;
    if (source.connects) this.#sourceConnected = false;
    const timer = endsAfterMs === undefined
      ? undefined
      : setTimeout(() => this.#stopSource(source), endsAfterMs);
    try {
      await source.run({
        push: (bytes, messages, position) => this.#push(to, bytes, messages, position),
        note: (what) => {
          if (source.connects) this.#sourceConnected = what.event === "connected";
          onEvent({ event: "source", what });
        },
      }, from);
    } catch (error) {
      this.#fail(error);
    }
    this.#sourceConnected = undefined;
    clearTimeout(timer);
    this.#runningSources--;
    this.#endIfComplete();
  }

  #push(
    to: Delivery | undefined,
    bytes: Uint8Array,
    messages: number,
    position: number,
  ): void | Promise<void> {
    if (to !== undefined) return to.push(bytes, messages, position);
    this.#position = position + bytes.length * this.#options.positionPerByte;
    let waits: Promise<void>[] | undefined;
    for (const { delivery } of this.#readers) {
      const wait = delivery.push(bytes, messages, position);
      if (wait !== undefined) (waits ??= []).push(wait);
    }
    if (waits !== undefined) return Promise.all(waits).then(() => {});
  }

  /** Tells the shared source the position up to which no reader needs its bytes again. */
  #acknowledge(): void {
    const safe = Math.min(...this.#readers.map(({ delivery }) => delivery.safePosition));
    try {
      for (const source of this.#sources) source.acknowledge?.(safe);
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.#end.reject(error);
  }

  /**
   * Once all sources have ended, connected readers get the rest. Then the server ends, unless a queue
   * on disk still holds messages for readers that are not connected.
   */
  #endIfComplete(): void {
    if (!this.#started || this.#runningSources > 0 || this.#ending) return;
    for (const { delivery } of this.#readers) delivery.finish();
    if (this.#readers.some(({ feeding }) => feeding !== undefined)) return;
    if (
      this.#options.queue !== undefined &&
      this.#readers.some(({ delivery }) => delivery.hasUndelivered)
    ) {
      for (const { delivery } of this.#readers) {
        delivery.store().catch((error) => this.#fail(error));
      }
      return;
    }
    this.#ending = true;
    void this.#storeAll();
  }
}

/** The offset from which a reader that acknowledges is sent its stream. */
async function startFor(
  delivery: Delivery,
  stream: string,
  stored: StreamOffset | undefined,
): Promise<number> {
  const requested = stored?.stream === stream ? stored.offset : 0;
  return await delivery.available(Math.max(requested, delivery.delivered));
}

/** TCP acknowledgements are read through libc. */
const defaultAck = (): Ack => typeof libc === "string" ? "none" : "tcp";

async function reject(connection: Connection, error: Error): Promise<ConnectionTotals> {
  connection.close();
  const closed = await connection.closed;
  return { messages: 0, bytes: 0, dropped: 0, overflows: 0, closed, refused: error.message };
}
