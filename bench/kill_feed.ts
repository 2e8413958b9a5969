/** A TCP server that sends numbered messages at a fixed rate, each once, whether or not it is read. */
import type { Connection, Listener } from "../src/net/net.ts";
import { loadAdapter } from "../src/net/load.ts";
import { fillNumbered } from "../src/message/numbered.ts";

/** A connection of the server that reads the feed. */
export interface FeedConnection {
  /** When it began; ms since 1970. */
  time: number;
  /** Number of the first message on it. */
  first: number;
  /** Number after the last message that the feed's kernel took completely. */
  next: number;
}

/** Limit for one write. */
const MOST_WRITTEN = 1 << 20;

export class Feed {
  readonly connections: FeedConnection[] = [];
  /** Messages so far. */
  messages = 0;
  /** The longest wait for the server's kernel to take bytes; ms. */
  longestPauseMs = 0;
  readonly #size: number;
  readonly #everyMs: number;
  #listener!: Listener;
  #open: Connection | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #ended = false;
  #added = 0;
  #startMs = 0;

  private constructor(size: number, everyMs: number) {
    this.#size = size;
    this.#everyMs = everyMs;
  }

  /**
   * Messages of `size` bytes, sent every `everyMs` ms. `rate`: bytes a second, or the bytes that are due by a
   * time; seconds since `begin`, which without it is now.
   */
  static async listen(
    size: number,
    rate: number | ((seconds: number) => number),
    everyMs = 5,
  ): Promise<Feed> {
    const due = typeof rate === "number" ? (seconds: number) => seconds * rate : rate;
    const feed = new Feed(size, everyMs);
    const net = await loadAdapter();
    feed.#listener = await net.listen({
      host: "127.0.0.1",
      port: 0,
      onConnection: (connection) => void feed.#send(connection),
    });
    feed.begin();
    feed.#timer = setInterval(() => {
      if (feed.#ended) return;
      const seconds = (performance.now() - feed.#startMs) / 1000;
      feed.messages = Math.floor(due(seconds) / size) + feed.#added;
    }, everyMs);
    return feed;
  }

  get port(): number {
    return this.#listener.address.port;
  }

  get isRead(): boolean {
    return this.#open !== undefined;
  }

  /** Its time begins anew. */
  begin(): void {
    this.#startMs = performance.now();
  }

  /** So many more messages are due at once. */
  add(messages: number): void {
    this.#added += messages;
  }

  /** No more messages. */
  end(): void {
    this.#ended = true;
  }

  async #send(connection: Connection): Promise<void> {
    this.#open?.close();
    this.#open = connection;
    const entry = { time: Date.now(), first: this.messages, next: this.messages };
    this.connections.push(entry);
    let over = false;
    void connection.closed.then(() => over = true);
    // Notices the end of a server that sends nothing.
    void (async () => {
      while (await connection.read(64) !== null);
      connection.close();
    })();
    const size = this.#size;
    const most = Math.floor(MOST_WRITTEN / size);
    while (!over && this.#open === connection) {
      const due = Math.min(this.messages - entry.next, most);
      if (due <= 0) {
        await new Promise((resolve) => setTimeout(resolve, this.#everyMs));
        continue;
      }
      let bytes = new Uint8Array(due * size);
      fillNumbered(bytes, {
        first: entry.next,
        count: due,
        size,
        plannedMs: performance.timeOrigin + performance.now(),
        everyMs: 0,
      });
      while (bytes.length > 0) {
        const offeredMs = performance.now();
        const taken = await connection.write(bytes);
        this.longestPauseMs = Math.max(this.longestPauseMs, performance.now() - offeredMs);
        if (taken === 0) break;
        bytes = bytes.subarray(taken);
      }
      entry.next += due - Math.ceil(bytes.length / size);
      if (bytes.length > 0) break;
    }
    connection.close();
    if (this.#open === connection) this.#open = undefined;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#ended = true;
    this.#open?.close();
    await this.#listener.close();
  }
}
