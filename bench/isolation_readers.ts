/** The readers of bench/isolation.ts: many that behave, and four that do not. */
import { setTimeout as sleep } from "node:timers/promises";
import { formatHello } from "../src/message/protocol.ts";
import { loadAdapter } from "../src/net/load.ts";
import type { Connection } from "../src/net/net.ts";

const READ_SIZE = 65_536;
/** How long a reader that resets, or sends nonsense, waits before it comes again; ms. */
const AGAIN_MS = 20;
const GARBAGE = new Uint8Array(65_536).map((_, i) => i * 197 & 255);

/** Readers in this process, of one server. */
export class ManyReaders {
  /** Bytes of each reader that behaves. */
  readonly bytes: number[] = [];
  readonly #port: number;
  readonly #open = new Set<Connection>();
  #ended = false;
  /** Why readers that behave have lost their connections. */
  readonly failures: string[] = [];

  constructor(port: number) {
    this.#port = port;
  }

  async #connect(first: Uint8Array): Promise<Connection> {
    const net = await loadAdapter();
    const connection = await net.connect({ host: "127.0.0.1", port: this.#port });
    this.#open.add(connection);
    void connection.closed.then(() => this.#open.delete(connection));
    await connection.write(first);
    return connection;
  }

  /** A reader that reads all it gets. */
  async add(): Promise<void> {
    const i = this.bytes.push(0) - 1;
    const connection = await this.#connect(hello(`reader-${i}`));
    void (async () => {
      for (let chunk; (chunk = await connection.read(READ_SIZE)) !== null;) {
        this.bytes[i]! += chunk.length;
      }
      if (!this.#ended) {
        this.failures.push(`reader-${i}: ${JSON.stringify(await connection.closed)}`);
      }
    })();
  }

  /** The four; `rate`: what a reader is sent, bytes a second. */
  async addBad(rate: number): Promise<void> {
    await this.#connect(hello("stopped"));
    void this.#slow(await this.#connect(hello("slow")), rate / 100);
    void this.#again(async () => {
      const connection = await this.#connect(hello("resets"));
      await connection.read(READ_SIZE);
      connection.reset();
    });
    let turn = 0;
    void this.#again(async () => {
      // As its name, or after it.
      if (turn++ % 2 === 0) {
        const connection = await this.#connect(GARBAGE);
        await connection.read(READ_SIZE);
        connection.close();
        return;
      }
      const connection = await this.#connect(hello("garbage"));
      for (let i = 0; i < 4; i++) {
        if (await connection.write(GARBAGE) === 0) break;
      }
      connection.close();
    });
  }

  async #slow(connection: Connection, rate: number): Promise<void> {
    const startMs = performance.now();
    let bytes = 0;
    for (let chunk; (chunk = await connection.read(1024)) !== null;) {
      bytes += chunk.length;
      const early = startMs + bytes / rate * 1000 - performance.now();
      if (early > 0) await sleep(early, undefined, { ref: false });
    }
  }

  async #again(visit: () => Promise<void>): Promise<void> {
    while (!this.#ended) {
      await visit().catch(() => {});
      await sleep(AGAIN_MS, undefined, { ref: false });
    }
  }

  end(): void {
    this.#ended = true;
    for (const connection of this.#open) connection.close();
  }
}

const hello = (name: string): Uint8Array => new TextEncoder().encode(formatHello(name));
