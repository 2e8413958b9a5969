/** The readers that a relay knows, by name, and the streams that they are sent. */
import { Delivery } from "./delivery.ts";
import type { DeliveryEvent } from "./delivery_options.ts";
import { MemoryBudget } from "./memory_budget.ts";
import { newStream } from "../message/protocol.ts";
import type { Connection } from "../net/net.ts";
import { type Log, QueueError } from "../queue/queue.ts";
import { policyOf } from "../send/overflow.ts";
import type { RelayOptions } from "./relay_options.ts";
import { Rejected } from "./rejection.ts";
import { Stream } from "./stream.ts";
import type { StreamCursor } from "./stream_cursor.ts";

/** Name of the only reader with `single`. */
export const SINGLE = "reader";
/** In the place of a reader's name, in events about all of them. */
const ALL = "all readers";
/** Key of the log that all readers share. */
export const SHARED = "";

/** A reader that has connected before, or is known to the queue. */
export interface RelayReader {
  readonly name: string;
  readonly delivery: Delivery;
  /** Of its stream. */
  readonly key: string;
  /** Number of its latest connection; 0: none yet. */
  reader: number;
  /** Its current connection; absent: not connected. */
  served?: ServedConnection;
  /** It has sent FIN on its current connection. */
  sentFin: boolean;
  /** It has used the acknowledgement protocol. */
  acknowledges: boolean;
  /** It has never connected before. */
  isNew: boolean;
}

/** A connection that is a reader's. */
export interface ServedConnection {
  readonly connection: Connection;
  /** ms of `performance.now()`. */
  readonly sinceMs: number;
  /** The number of the connection that takes over from it. */
  replacedBy?: number;
  /** Resolves when it is no longer fed. */
  readonly over: Promise<void>;
  /** It is no longer fed: another connection may be the reader's. */
  release(): void;
}

/** A stream with its name in the acknowledgement protocol. */
export interface NamedStream {
  readonly id: string;
  readonly stream: Stream;
  readonly log: Log | undefined;
  readonly deliveries: Delivery[];
}

export class Readers {
  readonly all: RelayReader[] = [];
  readonly streams: Map<string, NamedStream> = new Map();
  readonly memory: MemoryBudget;
  /** Messages that were dropped for readers that are forgotten, while they were not connected. */
  droppedForForgotten = 0;
  readonly #options: RelayOptions;
  readonly #byName = new Map<string, Promise<RelayReader>>();
  readonly #onOwnStream: (stream: Stream) => void;
  readonly #onSafe: () => void;
  readonly #onError: (error: unknown) => void;

  /**
   * `onOwnStream`: a reader has a stream of its own, and needs a source. `onSafe`: the shared stream's
   * safe position may have advanced. `onError`: the queue failed.
   */
  constructor(
    options: RelayOptions,
    on: {
      ownStream: (stream: Stream) => void;
      safe: () => void;
      error: (error: unknown) => void;
    },
  ) {
    this.#options = options;
    this.memory = new MemoryBudget(options.memory);
    this.#onOwnStream = on.ownStream;
    this.#onSafe = on.safe;
    this.#onError = on.error;
  }

  /** The stream that all readers share. */
  get shared(): Stream | undefined {
    return this.streams.get(SHARED)?.stream;
  }

  /** Opens the streams and readers in the queue. Rejects with a QueueError if they are of another server. */
  async load(): Promise<void> {
    const { queue, shared, sourceless, readerId } = this.#options;
    for (const { key } of queue?.logs ?? []) {
      const known = sourceless === true || (key === SHARED) === shared;
      if (!known) {
        const whose = key === SHARED
          ? "a source that all readers share"
          : "a flood for each reader";
        throw new QueueError(
          `the queue holds messages of ${whose}, and this server has another: deliver them with ` +
            "--source none, or use another folder",
        );
      }
      await this.#openStream(key);
    }
    if (shared) await this.#openStream(SHARED);
    for (const [key, { stream }] of this.streams) {
      for (const cursor of stream.cursors) {
        // A reader with a stream of its own and a place in the shared one is sent its own first.
        if (key === SHARED && this.streams.has(cursor.name)) continue;
        this.#byName.set(cursor.name, Promise.resolve(this.#add(key, cursor, false)));
      }
    }
    if (readerId === "single" && queue !== undefined) await this.open(SINGLE);
  }

  async #openStream(key: string): Promise<NamedStream> {
    const known = this.streams.get(key);
    if (known !== undefined) return known;
    const { queue, policy, ...options } = this.#options;
    const log = await queue?.openLog(key);
    const deliveries: Delivery[] = [];
    const stream = new Stream({
      ...options,
      log,
      policy: policyOf(policy),
      memory: this.memory,
      onEvent: (event, cursor) => {
        // Of all readers, or of the only one.
        const [first, ...others] = cursor === undefined ? stream.cursors : [cursor];
        this.#emit(others.length > 0 || first === undefined ? ALL : first.name, event);
      },
      onNew: () => {
        for (const delivery of deliveries) delivery.wake();
      },
      onSafe: key === SHARED ? this.#onSafe : () => {},
      onError: this.#onError,
    });
    const named = { id: log?.stream ?? newStream(), stream, log, deliveries };
    this.streams.set(key, named);
    return named;
  }

  #emit(name: string, event: DeliveryEvent): void {
    const reader = this.all.find((reader) => reader.name === name)?.reader ?? 0;
    this.#options.onEvent({ reader, name, ...event });
  }

  #add(key: string, cursor: StreamCursor, isNew: boolean): RelayReader {
    const { name } = cursor;
    const { stream, deliveries } = this.streams.get(key)!;
    const delivery = new Delivery(stream, cursor, {
      ...this.#options,
      onEvent: (event) => this.#emit(name, event),
    });
    deliveries.push(delivery);
    const reader: RelayReader = {
      name,
      delivery,
      key,
      reader: 0,
      sentFin: false,
      acknowledges: cursor.stored?.acknowledges ?? false,
      isNew,
    };
    this.all.push(reader);
    return reader;
  }

  /** What is known of the reader so far. */
  known(name: string): RelayReader | undefined {
    return this.all.find((reader) => reader.name === name);
  }

  /** The reader of this name; new: once it is recorded. Rejects with an Error. */
  open(name: string): Promise<RelayReader> {
    let opening = this.#byName.get(name);
    if (opening === undefined) {
      if (this.#byName.size >= this.#options.mostNames && !this.#evict()) {
        return Promise.reject(
          new Rejected(
            "names",
            `${this.#options.mostNames} names of readers are known, and more are not accepted ` +
              "(--max-reader-names); `queue forget` removes one",
          ),
        );
      }
      opening = this.#create(name);
      this.#byName.set(name, opening);
      // Its next connection tries again.
      opening.catch(() => this.#byName.delete(name));
    }
    return opening;
  }

  async #create(name: string): Promise<RelayReader> {
    const { shared, start } = this.#options;
    const key = shared ? SHARED : name;
    const { stream } = await this.#openStream(key);
    // With --reader-id single it is opened before anyone has come.
    const cursor = await stream.addCursor(name, stream.beginning(start), name !== SINGLE);
    const reader = this.#add(key, cursor, true);
    if (!shared) this.#onOwnStream(stream);
    return reader;
  }

  /** Forgets a reader whose messages are not kept while it is away; whether there was one. */
  #evict(): boolean {
    if (policyOf(this.#options.policy).keepsForAbsentReaders) return false;
    const reader = this.all.find(({ served }) => served === undefined);
    if (reader === undefined) return false;
    const { delivery, name, key } = reader;
    this.droppedForForgotten += delivery.cursor.droppedWhileAbsent;
    this.#byName.delete(name);
    this.all.splice(this.all.indexOf(reader), 1);
    const { deliveries } = this.streams.get(key)!;
    deliveries.splice(deliveries.indexOf(delivery), 1);
    void delivery.stream.removeCursor(delivery.cursor);
    return true;
  }
}
