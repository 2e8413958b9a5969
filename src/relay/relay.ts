/**
 * The server in between: what a source makes goes to each reader by a delivery of its own, which
 * outlives the reader's connections.
 */
import {
  AckParser,
  formatAt,
  type LineReader,
  newStream,
  ProtocolError,
  type StreamOffset,
} from "../message/protocol.ts";
import { type Ack, Delivery, type DeliveryEvent, type DeliveryOptions } from "./delivery.ts";
import { greet, type Greeting } from "./greeting.ts";
import { libc } from "../kernel/libc.ts";
import { discardReplies, linger } from "../net/linger.ts";
import { type Connection, DEFAULT_READ_SIZE } from "../net/net.ts";
import type { ConnectionTotals, Feeder } from "./feeder.ts";
import type { Queue } from "../queue/queue.ts";
import type { Source, SourceEvent } from "../source/source.ts";

/**
 * Who comes back: whoever connects (`single`: there is one reader), whoever comes from the same
 * address, or who says the same name in its first line.
 */
export type ReaderId = "single" | "address" | "hello";

/** The name of a reader that is the only one. */
export const SINGLE = "reader";

export type RelayEvent =
  | ({ reader: number; name: string } & DeliveryEvent)
  | { event: "sent"; reader: number; messages: number }
  /** A reader does not keep to the protocol: it is reset. */
  | { event: "protocol"; error: string }
  | { event: "source"; what: SourceEvent };

export interface RelayOptions extends Omit<DeliveryOptions, "queue" | "onEvent" | "onError"> {
  /** Default: the reader's own word if it gives it, else its kernel's, where ours tells that. */
  ack?: Ack | undefined;
  /** Makes the source: once for all readers, or once for each. */
  source: () => Source;
  shared: boolean;
  /** The source is stopped so long after its start; ms. */
  endsAfterMs?: number | undefined;
  /** How often `sent` is told for each reader; ms, default never. */
  sentEveryMs?: number | undefined;
  queue?: Queue | undefined;
  readerId: ReaderId;
  /** For what a reader has to say first; ms. */
  handshakeTimeoutMs: number;
  /** What a reader sends is read and thrown away, unless it acknowledges. */
  drainReplies: boolean;
  onEvent: (event: RelayEvent) => void;
}

/** A reader that was here, or is in the queue. */
interface Known {
  readonly delivery: Delivery;
  readonly stream: string;
  /** The number of its last connection; 0: none yet. */
  reader: number;
  /** Of its present connection. */
  fed?: Promise<boolean>;
  /** It has sent its FIN on that. */
  left: boolean;
}

export class Relay implements Feeder {
  /** Resolves when the source has ended and all is delivered or stored; rejects when it cannot go on. */
  readonly done: Promise<void>;
  readonly #options: RelayOptions;
  readonly #known = new Map<string, Promise<Known>>();
  readonly #all: Known[] = [];
  readonly #sources = new Set<Source>();
  readonly #connections = new Set<Connection>();
  readonly #end: { resolve: () => void; reject: (error: unknown) => void };
  /** Where the source stands that all readers share. */
  #position = 0;
  /** Messages that were dropped while their readers were here. */
  #dropped = 0;
  #running = 0;
  #begun = false;
  #ending = false;

  constructor(options: RelayOptions) {
    this.#options = options;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.done = promise;
    this.#end = { resolve, reject };
  }

  get droppedAway(): number {
    return this.#all.reduce((sum, { delivery }) => sum + delivery.dropped, -this.#dropped);
  }

  /** Opens what is known already: the readers in the queue, and the single one that may come. */
  async start(): Promise<void> {
    const { queue, readerId } = this.#options;
    for (const name of queue?.names ?? []) await this.#open(name);
    if (readerId === "single" && queue !== undefined) await this.#open(SINGLE);
    this.#begun = true;
    this.#begin();
  }

  /** Serves a connection until it ends. */
  async feed(connection: Connection, reader: number): Promise<ConnectionTotals> {
    this.#connections.add(connection);
    const stay = await this.#receive(connection, reader);
    this.#connections.delete(connection);
    return stay;
  }

  async #receive(connection: Connection, reader: number): Promise<ConnectionTotals> {
    const { readerId, ack, drainReplies, handshakeTimeoutMs } = this.#options;
    let greeting: Greeting;
    try {
      const resume = ack === undefined ? "perhaps" : ack === "reader" ? "yes" : "no";
      greeting = await greet(connection, {
        hello: readerId === "hello",
        resume,
        handshakeTimeoutMs,
      });
    } catch (error) {
      return await refuse(connection, error as Error);
    }
    const name = greeting.name ?? (readerId === "address" ? connection.remote.host : SINGLE);
    const known = await this.#open(name);
    const { delivery } = known;
    while (known.fed !== undefined) {
      // Who knows its name may take over from a connection that hangs, and anybody from one whose
      // reader has sent its FIN: that it is gone for good only a write would tell.
      if (readerId !== "hello" && !known.left) {
        return await refuse(connection, new Error("another reader is here already"));
      }
      delivery.connection?.reset();
      await known.fed;
    }
    known.reader = reader;
    if (this.#ending) return await refuse(connection, new Error("the server ends"));
    const { accepted, messages, dropped, overflows } = delivery;
    const stopTelling = this.#tellSent(known);
    const fed = known.fed = this.#feed(connection, known, greeting);
    const replies = greeting.asks
      ? this.#readAcks(connection, delivery, greeting.lines)
      : drainReplies
      ? discardReplies(connection, greeting.reading)
      : undefined;
    known.left = false;
    void replies?.then(() => {
      if (known.fed === fed) known.left = true;
    });
    const finished = await fed;
    stopTelling();
    delete known.fed;
    // Now: what comes later is the next connection's.
    const totals = {
      messages: delivery.messages - messages,
      bytes: delivery.accepted - accepted,
      dropped: delivery.dropped - dropped,
      overflows: delivery.overflows - overflows,
    };
    this.#dropped += totals.dropped;
    if (finished) await linger(connection, replies);
    connection.close();
    this.#check();
    return { ...totals, closed: await connection.closed };
  }

  async #feed(connection: Connection, known: Known, greeting: Greeting): Promise<boolean> {
    const { delivery, stream } = known;
    const { asks, place } = greeting;
    if (!asks) return await delivery.feed(connection, this.#options.ack ?? defaultAck());
    const at: StreamOffset = { offset: await startFor(delivery, stream, place), stream };
    const line = new TextEncoder().encode(formatAt(at));
    if (await connection.write(line) < line.length) return false;
    // Its offset means nothing here: it has to decide, and leaves.
    if (place !== undefined && place.stream !== stream) {
      await linger(connection);
      return false;
    }
    return await delivery.feed(connection, "reader", at.offset);
  }

  /** Ends all at once: what is in memory goes to disk, where there is a queue. */
  stop(): void {
    if (this.#ending) return;
    this.#ending = true;
    for (const source of this.#sources) source.stop();
    for (const { delivery } of this.#all) delivery.letGo();
    for (const connection of this.#connections) connection.close();
    void this.#storeAll();
  }

  async #storeAll(): Promise<void> {
    try {
      await Promise.all(this.#all.map(({ fed }) => fed));
      await Promise.all(this.#all.map(({ delivery }) => delivery.store()));
      this.#end.resolve();
    } catch (error) {
      this.#fail(error);
    }
  }

  #tellSent(known: Known): () => void {
    const { sentEveryMs, onEvent } = this.#options;
    if (sentEveryMs === undefined) return () => {};
    let told = known.delivery.messages;
    const tell = () => {
      const { reader, delivery: { messages } } = known;
      if (messages > told) onEvent({ event: "sent", reader, messages });
      told = messages;
    };
    const interval = setInterval(tell, sentEveryMs);
    return () => {
      clearInterval(interval);
      tell();
    };
  }

  async #readAcks(connection: Connection, delivery: Delivery, lines: LineReader): Promise<void> {
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
      if (!(error instanceof ProtocolError)) throw error;
      this.#options.onEvent({ event: "protocol", error: error.message });
      connection.reset();
    }
  }

  #open(name: string): Promise<Known> {
    let known = this.#known.get(name);
    if (known === undefined) {
      known = this.#make(name);
      this.#known.set(name, known);
      known.catch((error) => this.#fail(error));
    }
    return known;
  }

  async #make(name: string): Promise<Known> {
    const { queue, onEvent, shared } = this.#options;
    const stored = await queue?.open(name);
    const delivery = new Delivery({
      ...this.#options,
      queue: stored,
      onEvent: (event) => onEvent({ reader: known.reader, name, ...event }),
      onSafe: shared && this.#options.replayable ? () => this.#acknowledge() : undefined,
      onError: (error) => this.#fail(error),
    });
    if (this.#position > 0 && stored?.tail === 0) {
      // New to a source that is under way: its stream begins here.
      delivery.position = this.#position;
      stored.release(0, this.#position);
    }
    const stream = stored?.stream ?? newStream();
    const known: Known = { delivery, stream, reader: 0, left: false };
    this.#all.push(known);
    if (this.#begun) this.#begin(known);
    return known;
  }

  /** Starts the sources that are not running yet; `fresh`: for this one. */
  #begin(fresh?: Known): void {
    const { shared, source } = this.#options;
    if (this.#ending) return;
    if (!shared) {
      for (const { delivery } of fresh === undefined ? this.#all : [fresh]) {
        void this.#run(source(), delivery, delivery.position);
      }
    } else if (this.#sources.size === 0 && this.#all.length > 0) {
      this.#position = Math.min(...this.#all.map(({ delivery }) => delivery.position));
      void this.#run(source(), undefined, this.#position);
    }
  }

  async #run(source: Source, to: Delivery | undefined, from: number): Promise<void> {
    this.#sources.add(source);
    this.#running++;
    const { onEvent, endsAfterMs } = this.#options;
    const timer = endsAfterMs === undefined
      ? undefined
      : setTimeout(() => source.stop(), endsAfterMs);
    try {
      await source.run({
        push: (bytes, messages, position) => this.#push(to, bytes, messages, position),
        note: (what) => onEvent({ event: "source", what }),
      }, from);
    } catch (error) {
      this.#fail(error);
    }
    clearTimeout(timer);
    this.#running--;
    this.#check();
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
    for (const { delivery } of this.#all) {
      const wait = delivery.push(bytes, messages, position);
      if (wait !== undefined) (waits ??= []).push(wait);
    }
    if (waits !== undefined) return Promise.all(waits).then(() => {});
  }

  /** What none of them needs any more, the source need not keep. */
  #acknowledge(): void {
    const safe = Math.min(...this.#all.map(({ delivery }) => delivery.safePosition));
    for (const source of this.#sources) source.acknowledge?.(safe);
  }

  #fail(error: unknown): void {
    this.#end.reject(error);
  }

  /**
   * Once the sources have ended, those who are here get the rest; what is left goes to disk, and
   * waits for its readers. Without a queue nobody can wait for it.
   */
  #check(): void {
    if (!this.#begun || this.#running > 0 || this.#ending) return;
    for (const { delivery } of this.#all) delivery.finish();
    if (this.#all.some(({ fed }) => fed !== undefined)) return;
    if (this.#options.queue !== undefined && this.#all.some(({ delivery }) => delivery.owes)) {
      for (const { delivery } of this.#all) void delivery.store();
      return;
    }
    this.#ending = true;
    void this.#storeAll();
  }
}

/** Where a reader that acknowledges goes on. */
async function startFor(delivery: Delivery, stream: string, place?: StreamOffset): Promise<number> {
  const asked = place?.stream === stream ? place.offset : 0;
  return await delivery.available(Math.max(asked, delivery.delivered));
}

/** The kernel's word, where it gives it. */
const defaultAck = (): Ack => typeof libc === "string" ? "none" : "tcp";

async function refuse(connection: Connection, error: Error): Promise<ConnectionTotals> {
  connection.close();
  const closed = await connection.closed;
  return { messages: 0, bytes: 0, dropped: 0, overflows: 0, closed, refused: error.message };
}
