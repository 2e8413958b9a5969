/** Connects to a reader that listens, again and again: the opposite of a listener. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Address } from "../kernel/address.ts";
import { type Adapter, type Connection, type Listener, NetError } from "../net/net.ts";
import { ReconnectPause } from "../net/reconnect_pause.ts";

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
    const pause = new ReconnectPause();
    while (!signal.aborted) {
      let failure: NetError | undefined;
      try {
        const connection = await net.connect(to);
        if (signal.aborted) return connection.close();
        const connectedMs = performance.now();
        onConnection(connection);
        await connection.closed;
        pause.connectedFor(performance.now() - connectedMs);
      } catch (error) {
        if (!(error instanceof NetError)) throw error;
        failure = error;
      }
      const inMs = pause.next();
      if (failure !== undefined) onFailure(failure, inMs);
      await sleep(inMs, undefined, { signal }).catch(() => {});
    }
  }
}
