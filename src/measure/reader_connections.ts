/** Where the connections with readers come from: readers connect to us, or we connect to readers that listen. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Address } from "../kernel/address.ts";
import { type Adapter, type Connection, type Listener, NetError } from "../net/net.ts";

export interface ReaderConnections {
  /** What `{host}` and `{port}` in a reader's command mean. */
  readonly address: Address;
  /** Those that nobody has taken yet. */
  readonly ready: Connection[];
  /** Resolves when there may be more, after 50 ms at the latest. Rejects with a NetError where there will be none. */
  more(): Promise<void>;
  /** Before new readers are started: closes those that nobody has taken. */
  begin(): Promise<void>;
  close(): Promise<void>;
}

const LOOK_EVERY_MS = 50;

/** Of readers that connect to us. */
export class Accepted implements ReaderConnections {
  readonly ready: Connection[] = [];
  #listener: Listener | undefined;
  #onAccepted = () => {};

  /** Rejects with a NetError. */
  static async listen(net: Adapter, host: string, port: number): Promise<Accepted> {
    const accepted = new Accepted();
    accepted.#listener = await net.listen({
      ...{ host, port },
      onConnection: (connection) => {
        accepted.ready.push(connection);
        accepted.#onAccepted();
      },
    });
    return accepted;
  }

  get address(): Address {
    return this.#listener!.address;
  }

  async more(): Promise<void> {
    await Promise.race([
      new Promise<void>((resolve) => this.#onAccepted = resolve),
      sleep(LOOK_EVERY_MS),
    ]);
  }

  begin(): Promise<void> {
    for (const each of this.ready.splice(0)) each.close();
    return Promise.resolve();
  }

  async close(): Promise<void> {
    await this.begin();
    await this.#listener!.close();
  }
}

/** A reader that is starting does not listen yet: then we try again so soon. */
const AGAIN_MS = 20;

/** Of readers that listen. */
export class Dialed implements ReaderConnections {
  readonly ready: Connection[] = [];
  address: Address;
  readonly #net: Adapter;
  readonly #anyPort: boolean;
  #dialing: Promise<void> | undefined;

  /** `to`: where readers listen. Port 0: a free port is chosen, which the reader's command gets as `{port}`. */
  constructor(net: Adapter, to: Address) {
    this.#net = net;
    this.address = to;
    this.#anyPort = to.port === 0;
  }

  async more(): Promise<void> {
    const before = this.ready.length;
    this.#dialing ??= this.#dial().finally(() => this.#dialing = undefined);
    await Promise.race([this.#dialing, sleep(LOOK_EVERY_MS)]);
    if (this.ready.length === before) await sleep(AGAIN_MS);
  }

  async #dial(): Promise<void> {
    const { address } = this;
    try {
      const connection = await this.#net.connect(address);
      // Meanwhile it may have been given up.
      if (address === this.address) this.ready.push(connection);
      else connection.close();
    } catch (error) {
      if (!(error instanceof NetError && error.code === "ECONNREFUSED")) throw error;
    }
  }

  async begin(): Promise<void> {
    for (const each of this.ready.splice(0)) each.close();
    const { host } = this.address;
    this.address = this.#anyPort ? await freeAddress(this.#net, host) : { ...this.address };
  }

  async close(): Promise<void> {
    this.address = { ...this.address };
    for (const each of this.ready.splice(0)) each.close();
    await this.#dialing?.catch(() => {});
  }
}

/** An address with a port that nobody uses now. */
async function freeAddress(net: Adapter, host: string): Promise<Address> {
  const listener = await net.listen({ host, port: 0, onConnection: (each) => each.close() });
  const { port } = listener.address;
  await listener.close();
  return { host, port };
}
