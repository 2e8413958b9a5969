/** Connects to a reader that listens, again and again: the opposite of a listener. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Address } from "../kernel/address.ts";
import { type Adapter, type Connection, type Listener, NetError } from "../net/net.ts";

/** The time before it connects again: first, doubling up to the last; after a connection of that length first again. */
const AGAIN = { firstMs: 100, lastMs: 5000, afterMs: 1000 };

export interface DialerOptions {
  net: Adapter;
  to: Address;
  /** Called for each connection; the next attempt is made once it has ended. */
  onConnection: (connection: Connection) => void;
  /** It could not connect, and tries again in so many ms. */
  onFailure: (error: NetError, inMs: number) => void;
  /** It cannot go on. */
  onError: (error: unknown) => void;
}

export class Dialer implements Listener {
  readonly #options: DialerOptions;
  readonly #closing = new AbortController();

  constructor(options: DialerOptions) {
    this.#options = options;
    this.#run().catch(options.onError);
  }

  /** Where it connects to. */
  get address(): Address {
    return this.#options.to;
  }

  /** Makes no further connection; the present one stays open. */
  close(): Promise<void> {
    this.#closing.abort();
    return Promise.resolve();
  }

  async #run(): Promise<void> {
    const { net, to, onConnection, onFailure } = this.#options;
    const { signal } = this.#closing;
    let waitMs = AGAIN.firstMs;
    while (!signal.aborted) {
      const startMs = performance.now();
      try {
        const connection = await net.connect(to);
        if (signal.aborted) return connection.close();
        onConnection(connection);
        await connection.closed;
      } catch (error) {
        if (!(error instanceof NetError)) throw error;
        onFailure(error, waitMs);
      }
      if (performance.now() - startMs >= AGAIN.afterMs) waitMs = AGAIN.firstMs;
      await sleep(waitMs, undefined, { signal }).catch(() => {});
      waitMs = Math.min(AGAIN.lastMs, 2 * waitMs);
    }
  }
}
