/** A flood whose clock and kernel are the test's own: so its arithmetic is tested without a socket. */
import { textMessage } from "../src/message/message.ts";
import type { Closed, Connection } from "../src/net/net.ts";
import { Flood, type FloodOptions } from "../src/send/flood.ts";
import { nextTurn, Ticker } from "../src/send/pacer.ts";

/** Ticks when the test says so. */
export class ManualTicker extends Ticker {
  readonly listeners = new Set<(nowMs: number) => void>();
  override add(listener: (nowMs: number) => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }
  /** One tick, and all that follows from it. */
  async tick(nowMs: number): Promise<void> {
    for (const each of [...this.listeners]) each(nowMs);
    await settled();
  }
}

/** Until nothing moves any more. */
export const settled = async () => {
  for (let i = 0; i < 3; i++) await nextTurn();
};

/** A kernel that takes `room` bytes; a write that finds none waits. */
export class FakeConnection implements Connection {
  readonly local = { host: "127.0.0.1", port: 1 };
  readonly remote = { host: "127.0.0.1", port: 2 };
  readonly fd = undefined;
  readonly readAhead = 0;
  readonly bufferedBytes = 0;
  blockedSince: number | undefined;
  room = Infinity;
  /** Bytes offered by each write, and what was taken of all of them. */
  offers: number[] = [];
  taken = "";
  calls: string[] = [];
  /** What the peer sends: it ends when this settles. */
  readonly peer = Promise.withResolvers<void>();
  #ended = false;
  readonly #closed = Promise.withResolvers<Closed>();
  readonly closed = this.#closed.promise;
  #waiting: { bytes: Uint8Array; resolve: (taken: number) => void } | undefined;

  write(bytes: Uint8Array): number | Promise<number> {
    if (this.#ended) return 0;
    this.offers.push(bytes.length);
    if (this.room > 0) return this.#take(bytes);
    return new Promise((resolve) => this.#waiting = { bytes, resolve });
  }
  async give(room: number): Promise<void> {
    this.room += room;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve(this.#take(waiting.bytes));
    await settled();
  }
  #take(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.room);
    this.room -= taken;
    if (bytes.length < 1000) this.taken += new TextDecoder().decode(bytes.subarray(0, taken));
    return taken;
  }
  async read(): Promise<Uint8Array | null> {
    this.calls.push("read");
    await this.peer.promise;
    return null;
  }
  closeWrite(): Promise<void> {
    this.calls.push("closeWrite");
    return Promise.resolve();
  }
  close(): void {
    this.end("close", { reason: "local" });
  }
  reset(): void {
    this.end("reset", { reason: "local" });
  }
  end(call: string, how: Closed): void {
    this.calls.push(call);
    this.#ended = true;
    this.#waiting?.resolve(0);
    this.#waiting = undefined;
    this.#closed.resolve(how);
  }
}

/** A flood of "abcd" at 1000 a second, if it is not said otherwise: one message a ms. */
export function open(options: Partial<FloodOptions> = {}, room = Infinity) {
  const connection = new FakeConnection();
  connection.room = room;
  const ticker = new ManualTicker();
  const flood = new Flood({ connection, ticker, message: textMessage("abcd"), ...options });
  return { connection, ticker, flood };
}
