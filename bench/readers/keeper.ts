/**
 * A reader that stores its stream in a file, for bench/kill.ts. It reconnects whenever its connection
 * ends, until SIGTERM, and may be killed at any time: what the kernel took with write(2) is kept.
 *
 *     keeper.ts CONFIG
 *
 * CONFIG: a `KeeperConfig` as JSON. The file has the numbered messages as they came. A second file, with
 * `.log` at the end of its name, has a line for each connection: a `KeeperConnection`. A kill may end
 * either inside a message or line: the next start cuts that off, and the message is requested again.
 */
import {
  appendFileSync,
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  truncateSync,
  writeSync,
} from "node:fs";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { interrupted } from "../../src/cli/program.ts";
import { formatAck, ProtocolError } from "../../src/message/protocol.ts";
import { loadAdapter } from "../../src/net/load.ts";
import { type Connection, NetError } from "../../src/net/net.ts";
import { handshake, OtherStreamError } from "../../src/read/acknowledger.ts";

export interface KeeperConfig {
  port: number;
  file: string;
  /** Length of the numbered messages. */
  size: number;
  /** For a server with `--reader-id hello`. */
  name?: string | undefined;
  /** Acknowledges what is in the file: for a server with `--ack reader`. */
  acknowledges: boolean;
  /** Reads at most so many bytes a second; default as fast as it can. */
  rate?: number | undefined;
  /** Disconnects now and then, and stays away for a while. */
  leaves?: boolean | undefined;
  /** Once this file exists, it neither leaves nor limits its rate. */
  hurry: string;
}

/** A connection over which bytes may have come. */
export interface KeeperConnection {
  /** When it began; ms since 1970. */
  time: number;
  /** Bytes in the file when it began: whole messages. */
  at: number;
  /** Why there was no connection: this process is new, it had left, or the server ended the last one. */
  why: "start" | "left" | "lost";
  /** What the server said: the stream's next byte has this offset. Only of a reader that acknowledges. */
  offset?: number;
  stream?: string;
  /** What was requested; absent: everything. */
  requested?: number;
}

/** The lines of a keeper's second file that are complete. */
export function readConnections(file: string): KeeperConnection[] {
  const log = `${file}.log`;
  if (!existsSync(log)) return [];
  const lines = readFileSync(log, "utf8").split("\n");
  return lines.slice(0, -1).map((line) => JSON.parse(line) as KeeperConnection);
}

const RECONNECT_MS = 15;
const READ_SIZE = 65_536;
/** Shortest time between two acknowledgements. */
const ACK_EVERY_MS = 5;
/** How long it stays before it leaves, and how long it is away; ms. */
const STAYS_MS = [100, 900] as const;
const AWAY_MS = [50, 700] as const;

const between = ([least, most]: readonly [number, number]) =>
  least + Math.random() * (most - least);

class Keeper {
  readonly #config: KeeperConfig;
  readonly #fd: number;
  #bytes: number;

  constructor(config: KeeperConfig) {
    this.#config = config;
    this.#fd = openSync(config.file, "a");
    this.#bytes = 0;
    this.#cutOff();
    const log = `${config.file}.log`;
    if (existsSync(log)) truncateSync(log, readFileSync(log).lastIndexOf("\n") + 1);
  }

  /** Drops an incomplete message. */
  #cutOff(): void {
    const { size } = fstatSync(this.#fd);
    this.#bytes = size - size % this.#config.size;
    ftruncateSync(this.#fd, this.#bytes);
  }

  get #hurries(): boolean {
    return existsSync(this.#config.hurry);
  }

  async run(stop: AbortSignal): Promise<void> {
    let why: KeeperConnection["why"] = "start";
    const adapter = await loadAdapter();
    while (!stop.aborted) {
      let connection: Connection | undefined;
      let left = false;
      try {
        connection = await adapter.connect({ host: "127.0.0.1", port: this.#config.port });
        const { closed } = connection;
        const onStop = connection.close.bind(connection);
        stop.addEventListener("abort", onStop);
        left = await this.#take(connection, why);
        stop.removeEventListener("abort", onStop);
        connection.close();
        await closed;
        why = left ? "left" : "lost";
      } catch (error) {
        connection?.close();
        // A killed server will be started again.
        const gone = error instanceof NetError ||
          (error instanceof Error && /closed the connection/.test(error.message));
        if (!gone || error instanceof ProtocolError || error instanceof OtherStreamError) {
          throw error;
        }
      }
      if (!stop.aborted) await sleep(left ? between(AWAY_MS) : RECONNECT_MS);
    }
    closeSync(this.#fd);
  }

  /** Stores what comes over one connection; whether this reader ended it. */
  async #take(connection: Connection, why: KeeperConnection["why"]): Promise<boolean> {
    const { file, name, acknowledges, size, rate } = this.#config;
    this.#cutOff();
    const last = readConnections(file).at(-1);
    const requested = last?.offset === undefined ? undefined : last.offset + this.#bytes - last.at;
    const ack = { offset: requested, stream: last?.stream };
    const at = await handshake(connection, name, acknowledges ? ack : undefined);
    const began = this.#bytes;
    const entry: KeeperConnection = { time: Date.now(), at: began, why, ...at };
    if (requested !== undefined) entry.requested = requested;
    appendFileSync(`${file}.log`, `${JSON.stringify(entry)}\n`);
    const startMs = performance.now();
    let left = false;
    const leave = () => {
      left = true;
      connection.close();
    };
    const leaves = this.#config.leaves && !this.#hurries;
    const leaving = leaves ? setTimeout(leave, between(STAYS_MS)) : undefined;
    let ackedMs = 0;
    let acking: Promise<unknown> | undefined;
    let acked = began;
    const acknowledge = () => {
      const whole = this.#bytes - (this.#bytes - began) % size;
      if (at === undefined || acking !== undefined || whole === acked) return;
      acked = whole;
      ackedMs = performance.now();
      const line = new TextEncoder().encode(formatAck(at.offset + whole - began));
      acking = send(connection, line).finally(() => acking = undefined);
    };
    const timer = at === undefined ? undefined : setInterval(acknowledge, ACK_EVERY_MS);
    try {
      while (true) {
        const answer = connection.read(READ_SIZE);
        const chunk = answer instanceof Promise ? await answer : answer;
        if (chunk === null) return left;
        for (let done = 0; done < chunk.length;) done += writeSync(this.#fd, chunk, done);
        this.#bytes += chunk.length;
        if (performance.now() - ackedMs >= ACK_EVERY_MS) acknowledge();
        if (rate === undefined) continue;
        const early = startMs + (this.#bytes - began) / rate * 1000 - performance.now();
        if (early > 5 && !this.#hurries) await sleep(early);
      }
    } finally {
      clearInterval(timer);
      clearTimeout(leaving);
      await acking;
    }
  }
}

async function send(connection: Connection, bytes: Uint8Array): Promise<void> {
  for (let rest = bytes; rest.length > 0;) {
    const taken = await connection.write(rest);
    if (taken === 0) return;
    rest = rest.subarray(taken);
  }
}

if (import.meta.main) {
  const keeper = new Keeper(JSON.parse(process.argv[2]!) as KeeperConfig);
  await keeper.run(interrupted());
}
