/** The readers of bench/soak.ts: one that is always there, and others that come, go and are killed. */
import { setTimeout as sleep } from "node:timers/promises";
import { NumberedVerifier } from "../src/message/numbered.ts";
import { formatHello } from "../src/message/protocol.ts";
import { loadAdapter } from "../src/net/load.ts";
import { type Connection, DEFAULT_READ_SIZE } from "../src/net/net.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { median } from "../src/measure/statistics.ts";
import type { Random } from "./kill_cells.ts";
import { commandOn, Program } from "./programs.ts";

/** How long a reader stays, and stays away; ms. */
const STAYS_MS = [50, 3000] as const;
const AWAY_MS = [50, 3000] as const;
/** A slow reader is slow for so long, and then reads all that it has missed. */
const SLOW_MS = 10_000;
/** How long a reader's process lives until it is killed; ms. */
const LIVES_MS = [1000, 5000] as const;

export class SoakReaders {
  /** How late messages came to the reader that is always there; ms, since `lateness` was called. */
  readonly #late: number[] = [];
  #verifier: NumberedVerifier | undefined;
  readonly #first: () => number;
  readonly #port: number;
  readonly #size: number;
  readonly #random: Random;
  readonly #open = new Set<Connection>();
  readonly counts = { visits: 0, kills: 0 };
  #ended = false;

  /** `first`: number of the first message, once one has come. */
  constructor(port: number, size: number, random: Random, first: () => number) {
    this.#port = port;
    this.#size = size;
    this.#random = random;
    this.#first = first;
  }

  #between([least, most]: readonly [number, number]): number {
    return least + this.#random() * (most - least);
  }

  async #connect(name: string): Promise<Connection> {
    const net = await loadAdapter();
    const connection = await net.connect({ host: "127.0.0.1", port: this.#port });
    this.#open.add(connection);
    void connection.closed.then(() => this.#open.delete(connection));
    await connection.write(new TextEncoder().encode(formatHello(name)));
    return connection;
  }

  /** Reads everything, at once. `onLost`: its connection has ended. */
  async present(onLost: (why: string) => void): Promise<void> {
    const connection = await this.#connect("present");
    void (async () => {
      let at = 0;
      for (let chunk; (chunk = await connection.read(DEFAULT_READ_SIZE)) !== null;) {
        this.#verifier ??= new NumberedVerifier(this.#size, this.#first());
        this.#verifier.push(chunk);
        // The planned time of the first message that begins in the chunk.
        const begin = (this.#size - at % this.#size) % this.#size;
        at += chunk.length;
        if (begin + 16 > chunk.length) continue;
        const view = new DataView(chunk.buffer, chunk.byteOffset + begin + 8, 8);
        const planned = Number(view.getBigUint64(0)) / 1e6;
        this.#late.push(performance.timeOrigin + performance.now() - planned);
      }
      if (!this.#ended) onLost(JSON.stringify(await connection.closed));
    })();
  }

  /** Comes, stays a while, leaves (or resets its connection), and comes again. */
  async visitor(name: string): Promise<void> {
    while (!this.#ended) {
      const connection = await this.#connect(name).catch(() => undefined);
      if (connection === undefined) return;
      this.counts.visits++;
      const end = this.#random() < 0.3 ? () => connection.reset() : () => connection.close();
      const timer = setTimeout(end, this.#between(STAYS_MS));
      while (await connection.read(DEFAULT_READ_SIZE) !== null);
      clearTimeout(timer);
      connection.close();
      await sleep(this.#between(AWAY_MS), undefined, { ref: false });
    }
  }

  /** Reads at this rate for a while, then as fast as it can, and so on. */
  async slow(name: string, rate: number): Promise<void> {
    const connection = await this.#connect(name);
    let bytes = 0;
    let startMs = performance.now();
    for (let chunk; (chunk = await connection.read(16_384)) !== null;) {
      bytes += chunk.length;
      const nowMs = performance.now();
      if (nowMs - startMs >= 2 * SLOW_MS) {
        startMs = nowMs;
        bytes = 0;
      }
      const early = startMs + bytes / rate * 1000 - nowMs;
      if (early > 0 && nowMs - startMs < SLOW_MS) await sleep(early, undefined, { ref: false });
    }
  }

  /** A process that is killed (SIGKILL) and started again. */
  async killed(name: string, runtime: Runtime): Promise<void> {
    while (!this.#ended) {
      const words = commandOn(runtime, "client.ts", `127.0.0.1:${this.#port}`, "--hello", name);
      const program = new Program(words, { seconds: 60 });
      const ended = program.ended().catch(() => {});
      await sleep(this.#between(LIVES_MS), undefined, { ref: false });
      program.kill();
      await ended;
      this.counts.kills++;
    }
  }

  /** Of the messages since the last call; ms, null: none came. */
  lateness(): { median: number; most: number } | null {
    const late = this.#late.splice(0);
    return late.length === 0 ? null : { median: median(late), most: Math.max(...late) };
  }

  /** What is wrong with what the reader that is always there has got; undefined: nothing. */
  get fault(): string | undefined {
    if (this.#verifier === undefined) return "no messages";
    const { messages, missing, duplicates, outOfOrder, damaged } = this.#verifier;
    if (missing + duplicates + outOfOrder + damaged === 0) return undefined;
    return `${messages} messages: ${missing} missing, ${duplicates} duplicates, ` +
      `${outOfOrder} out of order, ${damaged} damaged`;
  }

  end(): void {
    this.#ended = true;
    for (const connection of this.#open) connection.close();
  }
}
