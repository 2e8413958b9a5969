/**
 * Passes messages from a source to all readers. What each reader has still to get outlives its
 * connections.
 */
import { AckParser, formatAt, ProtocolError } from "../message/protocol.ts";
import type { Ack } from "./delivery_options.ts";
import type { RelayOptions } from "./relay_options.ts";
import { type Handshake, receiveHandshake } from "./handshake.ts";
import { libc } from "../kernel/libc.ts";
import { closeSoon, discardReplies, linger } from "../net/linger.ts";
import { type Connection, DEFAULT_READ_SIZE } from "../net/net.ts";
import type { ConnectionTotals, Feeder } from "./feeder.ts";
import type { ServerFigures } from "./figures.ts";
import { Readers, type RelayReader, type ServedConnection, SINGLE } from "./readers.ts";
import { Rejected, type Rejection } from "./rejection.ts";
import { RunningSources } from "./running_sources.ts";

/** A reader that has been silent for this long is replaced by one that acknowledges; ms. */
const SILENT_MS = 1000;
/** Why a reader is rejected that comes too late. */
const ENDING = "the server is ending";
/** How often what is too old is looked for; ms. */
const EXPIRE_EVERY_MS = 1000;

export class Relay implements Feeder {
  /** Resolves when the source has ended and everything is delivered or stored; rejects on failure. */
  readonly done: Promise<void>;
  readonly #options: RelayOptions;
  readonly #readers: Readers;
  readonly #sources: RunningSources;
  /** All connections, and whether what the reader sends is read. */
  readonly #connections = new Map<Connection, boolean>();
  readonly #end: { resolve: () => void; reject: (error: unknown) => void };
  /** What the queue knows of the readers is loaded; never rejects. */
  readonly #loaded: PromiseWithResolvers<void> = Promise.withResolvers();
  /** To be called at the end. */
  readonly #timers: (() => void)[] = [];
  #started = false;
  #ending = false;
  #stopped = false;

  constructor(options: RelayOptions) {
    this.#options = options;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.done = promise;
    this.#end = { resolve, reject };
    const onError = (error: unknown) => this.#fail(error);
    this.#sources = new RunningSources(options, () => this.#endIfComplete(), onError);
    this.#readers = new Readers(options, {
      ownStream: (stream) => this.#started && this.#sources.start(stream),
      safe: () => this.#sources.acknowledge(this.#readers.shared),
      error: onError,
    });
  }

  get droppedWhileAbsent(): number {
    return this.#readers.all.reduce(
      (sum, { delivery }) => sum + delivery.cursor.droppedWhileAbsent,
      this.#readers.droppedForForgotten,
    );
  }

  figures(): ServerFigures {
    const { queue } = this.#options;
    const { connected } = this.#sources;
    const diskFreeBytes = queue?.diskFree;
    const logs = [...this.#readers.streams.values()].map(({ stream }) => stream.figures);
    return {
      readers: this.#readers.all.map(({ delivery }) => delivery.figures()),
      logs: logs.filter((log) => log !== undefined),
      memoryBytes: this.#readers.memory.used,
      ...(diskFreeBytes === undefined ? {} : { diskFreeBytes }),
      ...(queue === undefined ? {} : { sync: { ...queue.syncs } }),
      ...(connected === undefined ? {} : { sourceConnected: connected }),
    };
  }

  /** Opens the readers in the queue and the single reader, and starts their sources. */
  async start(): Promise<void> {
    const { ticker, retainMs, sourceless } = this.#options;
    try {
      await this.#readers.load();
      this.#started = true;
    } finally {
      this.#loaded.resolve();
    }
    // It may have been stopped meanwhile.
    if (this.#ending) return;
    this.#timers.push(ticker.add(() => this.#review()));
    if (retainMs !== undefined) {
      const timer = setInterval(() => void this.#expire(retainMs), EXPIRE_EVERY_MS);
      this.#timers.push(() => clearInterval(timer));
    }
    if (sourceless) return this.#endIfComplete();
    const { shared } = this.#readers;
    if (shared === undefined) {
      for (const { stream } of this.#readers.streams.values()) this.#sources.start(stream);
    } else if (this.#readers.all.length > 0) {
      this.#sources.start(shared);
    }
  }

  #review(): void {
    for (const { stream } of this.#readers.streams.values()) stream.review();
  }

  async #expire(retainMs: number): Promise<void> {
    try {
      for (const { stream } of this.#readers.streams.values()) await stream.expire(retainMs);
    } catch (error) {
      this.#fail(error);
    }
  }

  async feed(connection: Connection, reader: number): Promise<ConnectionTotals> {
    if (this.#ending) return await reject(connection, new Rejected("end", ENDING));
    this.#connections.set(connection, this.#options.drainReplies);
    try {
      return await this.#serve(connection, reader);
    } finally {
      this.#connections.delete(connection);
    }
  }

  async #serve(connection: Connection, reader: number): Promise<ConnectionTotals> {
    const { handshakeTimeoutMs, readerId } = this.#options;
    let handshake: Handshake | undefined;
    let relayReader: RelayReader;
    let served: ServedConnection;
    // A reader may connect before the queue is loaded. It must not be taken for a new one.
    await this.#loaded.promise;
    if (!this.#started) {
      return await reject(connection, new Rejected("queue", "the queue cannot be loaded"));
    }
    try {
      handshake = await receiveHandshake(connection, {
        hello: readerId === "hello",
        resume: (name) => this.#expectsResume(this.#nameOf(connection, name)),
        handshakeTimeoutMs,
      });
      relayReader = await this.#open(connection, this.#nameOf(connection, handshake.name));
      served = await this.#takeOver(relayReader, connection, handshake, reader);
    } catch (error) {
      const known = handshake !== undefined || readerId !== "hello";
      const name = known ? this.#nameOf(connection, handshake?.name) : undefined;
      return await reject(connection, error as Error, name);
    }
    try {
      return await this.#deliver(served, reader, relayReader, handshake);
    } finally {
      served.release();
    }
  }

  /** Feeds a reader on a connection that is now its own. */
  async #deliver(
    served: ServedConnection,
    reader: number,
    relayReader: RelayReader,
    handshake: Handshake,
  ): Promise<ConnectionTotals> {
    const { drainReplies, readerId, onEvent } = this.#options;
    const { connection } = served;
    const { name } = relayReader;
    relayReader.reader = reader;
    if (readerId === "hello") onEvent({ event: "named", reader, name });
    if (this.#ending || this.#stopped) {
      closeSoon(connection);
      await linger(connection, discardReplies(connection, handshake.reading));
      return await reject(connection, new Rejected("end", ENDING), name);
    }
    const before = { ...countsOf(relayReader) };
    const stopReporting = this.#reportSent(relayReader);
    let failure: { error: unknown } | undefined;
    let rejected: Rejected | undefined;
    const acks = handshake.acknowledges ? new AckParser(handshake.lines) : undefined;
    const begun = Promise.withResolvers<void>();
    const feeding = this.#feed(
      connection,
      relayReader,
      handshake,
      begun.resolve,
      () => linger(connection, replies),
    ).catch((error) => {
      if (error instanceof ProtocolError) {
        onEvent({ event: "protocol", reader, name, error: error.message });
        connection.reset();
      } else if (error instanceof Rejected) {
        rejected = error;
      } else {
        failure = { error };
      }
      return false;
    }).finally(begun.resolve);
    const replies = acks !== undefined
      ? begun.promise.then(() => this.#readAcks(connection, relayReader, acks, reader))
      : drainReplies
      ? discardReplies(connection, handshake.reading)
      : undefined;
    this.#connections.set(connection, replies !== undefined);
    void replies?.then(() => {
      if (relayReader.served?.connection === connection) relayReader.sentFin = true;
    });
    const finished = await feeding;
    stopReporting();
    served.release();
    const { replacedBy } = served;
    // Before the next await: after it the counters may include the reader's next connection.
    const after = countsOf(relayReader);
    const totals = {
      messages: after.messages - before.messages,
      bytes: after.bytes - before.bytes,
      dropped: after.dropped - before.dropped,
      overflows: after.overflows - before.overflows,
    };
    if (failure !== undefined) {
      // The queue failed: what it holds for this reader and for others cannot be delivered.
      this.#fail(failure.error);
      throw failure.error;
    }
    if (finished) await linger(connection, replies);
    connection.close();
    this.#endIfComplete();
    const why = rejected !== undefined
      ? { refused: rejected.message, why: rejected.why }
      : replacedBy !== undefined
      ? { replacedBy }
      : {};
    return { ...totals, name, ...why, closed: await connection.closed };
  }

  #nameOf(connection: Connection, name: string | undefined): string {
    return name ?? (this.#options.readerId === "address" ? connection.remote.host : SINGLE);
  }

  /** A stream once acknowledged by its reader is never delivered to it without. */
  #expectsResume(name: string): "required" | "optional" | "none" {
    const { ack } = this.#options;
    if (ack !== undefined) return ack === "reader" ? "required" : "none";
    return this.#readers.known(name)?.acknowledges === true ? "required" : "optional";
  }

  async #open(connection: Connection, name: string): Promise<RelayReader> {
    const closed = connection.closed.then(() => undefined);
    let relayReader: RelayReader | undefined;
    try {
      relayReader = await Promise.race([this.#readers.open(name), closed]);
    } catch (error) {
      const why = error instanceof Rejected ? error.why : "queue";
      throw new Rejected(why, `the reader is not accepted: ${(error as Error).message}`, error);
    }
    if (relayReader !== undefined) {
      this.#startShared();
      return relayReader;
    }
    throw new Rejected("handshake", "it disconnected before its queue was open");
  }

  /** The shared source starts with the first reader. */
  #startShared(): void {
    const { shared } = this.#readers;
    if (!this.#started || this.#options.sourceless || shared === undefined) return;
    if (!this.#sources.any && !this.#ending) this.#sources.start(shared);
  }

  /**
   * Makes a connection, of number `by`, the reader's, once its earlier one, which it may replace, has ended.
   * Where it may not replace it, this one is `Rejected`.
   */
  async #takeOver(
    relayReader: RelayReader,
    connection: Connection,
    { acknowledges }: Handshake,
    by: number,
  ): Promise<ServedConnection> {
    for (let served; (served = relayReader.served) !== undefined;) {
      // A reader that names itself may replace its earlier connection, which may hang. Any reader may
      // replace one that has sent FIN: whether that one still reads, only a write would show. And one
      // that acknowledges loses nothing when it replaces one that does not move.
      const movedMs = relayReader.delivery.progressAtMs ?? served.sinceMs;
      const may = this.#options.readerId === "hello" || relayReader.sentFin ||
        (acknowledges && performance.now() - movedMs >= SILENT_MS);
      if (!may) throw new Rejected("connected", "another reader is connected already");
      served.replacedBy = by;
      served.connection.reset();
      await served.over;
    }
    // At once: several may have waited, and the next of them finds this one.
    const { promise: over, resolve } = Promise.withResolvers<void>();
    const own: ServedConnection = {
      ...{ connection, sinceMs: performance.now(), over },
      release() {
        if (relayReader.served === own) delete relayReader.served;
        resolve();
      },
    };
    relayReader.served = own;
    relayReader.sentFin = false;
    return own;
  }

  async #feed(
    connection: Connection,
    relayReader: RelayReader,
    { acknowledges, stored }: Handshake,
    begun: () => void,
    hangUp: () => Promise<void>,
  ): Promise<boolean> {
    const { delivery, isNew } = relayReader;
    const { stream, cursor } = delivery;
    relayReader.isNew = false;
    if (!acknowledges) {
      return await delivery.feed(connection, this.#options.ack ?? defaultAck(), hangUp);
    }
    const { id } = this.#readers.streams.get(relayReader.key)!;
    const other = stored !== undefined && stored.stream !== id;
    const requested = stored?.stream === id ? stored.offset : 0;
    const offered = isNew ? Math.max(stream.tail, cursor.offered) : cursor.offered;
    if (requested > offered) {
      throw new ProtocolError(
        `the reader claims to have ${requested} bytes of its stream, but at most ${offered} ` +
          "have been sent",
      );
    }
    relayReader.acknowledges = true;
    await cursor.stored?.setAcknowledges();
    const wanted = Math.max(requested, cursor.delivered);
    const offset = await stream.available(cursor, wanted);
    const line = new TextEncoder().encode(formatAt({ offset, stream: id }));
    if (await connection.write(line) < line.length) return false;
    // Its offset belongs to another stream. The reader has to decide what to do, and disconnects.
    if (other) {
      await linger(connection);
      throw new Rejected(
        "stream",
        `its offset is of the stream ${stored.stream}, and this server's stream is ${id}: remove ` +
          "its offset file to let it begin anew, or start the server with the queue of that stream",
      );
    }
    // Told now: from here on it counts as delivered.
    if (offset > wanted) stream.miss(cursor, wanted, offset);
    const feeding = delivery.feed(connection, "reader", hangUp, offset, line.length);
    begun();
    return await feeding;
  }

  /**
   * Ends within about 1 s: messages in memory are stored on disk if there is a queue, else dropped. A
   * reader that is sent a reset would lose what it has not read yet, so a connection whose replies are
   * read ends in order, if its reader closes it in that time.
   */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#sources.stop();
    for (const { stream } of this.#readers.streams.values()) stream.unblockSource();
    for (const { delivery } of this.#readers.all) delivery.stopSending();
    for (const [connection, repliesAreRead] of this.#connections) {
      if (repliesAreRead) closeSoon(connection);
      else connection.close();
    }
    if (this.#ending) return;
    this.#ending = true;
    void this.#storeAll();
  }

  async #storeAll(): Promise<void> {
    const { queue, replayable, onEvent } = this.#options;
    for (const stop of this.#timers.splice(0)) stop();
    try {
      await Promise.all(this.#readers.all.map(({ served }) => served?.over));
      for (const { stream } of this.#readers.streams.values()) {
        await stream.store();
        stream.end();
        for (const cursor of stream.cursors) {
          const { name } = cursor;
          const bytes = stream.unstoredFor(cursor);
          if (queue === undefined || replayable || bytes <= 0) continue;
          const reader = this.#readers.known(name)?.reader ?? 0;
          onEvent({ event: "lost", reader, name, bytes });
        }
        for (const cursor of stream.cursors) if (queue === undefined) stream.discard(cursor);
      }
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
    { delivery, name }: RelayReader,
    acks: AckParser,
    reader: number,
  ): Promise<void> {
    const { cursor } = delivery;
    // Another connection may have replaced this one meanwhile.
    const isCurrent = () => delivery.connection === connection;
    try {
      if (!isCurrent()) return;
      delivery.acknowledge(acks.parse(cursor.offered));
      while (true) {
        const answer = connection.read(DEFAULT_READ_SIZE);
        const chunk = answer instanceof Promise ? await answer : answer;
        if (chunk === null || !isCurrent()) return;
        delivery.acknowledge(acks.push(chunk, cursor.offered));
      }
    } catch (error) {
      connection.reset();
      if (!(error instanceof ProtocolError)) return this.#fail(error);
      this.#options.onEvent({ event: "protocol", reader, name, error: error.message });
    }
  }

  #fail(error: unknown): void {
    for (const stop of this.#timers.splice(0)) stop();
    for (const { stream } of this.#readers.streams.values()) {
      stream.reportGaps();
      stream.end();
    }
    this.#end.reject(error);
  }

  /**
   * Once all sources have ended, connected readers get the rest. Then the server ends, unless a queue
   * on disk still holds messages for readers that are not connected.
   */
  #endIfComplete(): void {
    if (!this.#started || !this.#sources.allEnded || this.#ending) return;
    if (!this.#options.sourceless && !this.#sources.any) return;
    const { all, streams } = this.#readers;
    for (const { stream } of streams.values()) stream.finish();
    for (const { delivery } of all) delivery.finish();
    if (all.some(({ served }) => served !== undefined)) return;
    if (this.#options.queue !== undefined && all.some(({ delivery }) => delivery.hasUndelivered)) {
      for (const { stream } of streams.values()) {
        stream.store().catch((error) => this.#fail(error));
      }
      return;
    }
    this.#ending = true;
    void this.#storeAll();
  }
}

const countsOf = ({ delivery }: RelayReader) => ({
  messages: delivery.messages,
  bytes: delivery.accepted,
  // Without those that are dropped while it is being connected: they are counted apart.
  dropped: delivery.dropped - delivery.cursor.droppedWhileAbsent,
  overflows: delivery.overflows,
});

/** TCP acknowledgements are read through libc. */
const defaultAck = (): Ack => typeof libc === "string" ? "none" : "tcp";

async function reject(
  connection: Connection,
  error: Error,
  name?: string,
): Promise<ConnectionTotals> {
  connection.close();
  const closed = await connection.closed;
  // The handshake has errors of its own.
  const why: Rejection = error instanceof Rejected ? error.why : "handshake";
  const who = name === undefined ? {} : { name };
  const nothing = { messages: 0, bytes: 0, dropped: 0, overflows: 0 };
  return { ...nothing, ...who, closed, refused: error.message, why };
}
