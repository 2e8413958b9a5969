/**
 * One round of kills (SIGKILL), of a server that spills or of its reader, under load. Then the queue
 * is drained, and all messages that the reader received are verified.
 */
import { createReadStream, statSync } from "node:fs";
import { join } from "node:path";
import type { Connection } from "../src/net/net.ts";
import { loadAdapter } from "../src/net/load.ts";
import { NumberedVerifier } from "../src/message/numbered.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { commandOn, Program } from "./programs.ts";
import type { Runtime } from "../src/kernel/runtime.ts";

export interface KillOptions {
  runtime: Runtime;
  /** Which program is killed. */
  victim: "server" | "reader";
  /**
   * `reader`: the reader is bench/readers/keeper.ts, which stores all messages; `tcp`: client.ts,
   * which forwards them to this process and stores nothing.
   */
  ack: "reader" | "tcp";
  /** As in `--sync`. */
  sync: string;
  /** Number of kills. */
  kills: number;
  /** Offered rate; bytes a second. */
  rate: number;
  /** An empty directory for the queue and for what the reader stores. */
  folder: string;
  onKill?: (kills: number) => void;
}

export interface KillTotals {
  kills: number;
  /** Messages received, and what was wrong with them: see NumberedTotals. */
  messages: number;
  missing: number;
  duplicates: number;
  outOfOrder: number;
  damaged: number;
}

const SIZE = 64;
/** Time from a start to the kill, uniformly distributed; ms. */
const KILL_AFTER_MS = [20, 300] as const;
/** Deadline of each program: the last server delivers the whole backlog. */
const DEADLINE_S = 60;
/** The reader's work on a chunk: makes it slower than a flood that catches up. */
const WORK_US = 500;

export async function killRounds(options: KillOptions): Promise<KillTotals> {
  const { victim, ack, kills } = options;
  const sink = ack === "tcp" ? await openSink() : undefined;
  const stage = new Stage(options, sink?.port);
  try {
    await stage.startServer();
    stage.startReader();
    for (let done = 1; done <= kills; done++) {
      const [least, most] = KILL_AFTER_MS;
      await sleep(least + Math.random() * (most - least));
      if (victim === "server") await stage.killServer();
      else await stage.killReader();
      options.onKill?.(done);
    }
    // A server that ends before its reader is back has generated nothing for it since the kill: not
    // even the rest of the message that the kill cut off. And a restarted server begins with a whole
    // batch: what the last killed reader lost must be in an earlier one, or it would come now, late.
    if (victim === "server") await stage.sawReader();
    await growth(() =>
      sink?.verifier.messages ?? (statSync(stage.file, { throwIfNoEntry: false })?.size ?? 0) / SIZE
    );
    await stage.drain();
    const verifier = sink?.verifier ?? await verifyFile(stage.file);
    await sink?.settled();
    const { messages, missing, duplicates, outOfOrder, damaged } = verifier;
    return { kills, messages, missing, duplicates, outOfOrder, damaged };
  } finally {
    await stage.end();
    await sink?.close();
  }
}

/** Waits until more messages have arrived than two batches (of 1 MiB) hold. */
async function growth(messages: () => number): Promise<void> {
  const before = messages();
  const end = performance.now() + DEADLINE_S * 1000;
  while (messages() <= before + (2 << 20) / SIZE) {
    if (performance.now() > end) throw new Error(`no messages within ${DEADLINE_S} s`);
    await sleep(5);
  }
}

/** Server and reader of a round. */
class Stage {
  /** Where keeper.ts stores the stream. */
  readonly file: string;
  readonly #options: KillOptions;
  readonly #sink: number | undefined;
  /** A restarted server gets the port of the first one. */
  #port = "0";
  #server!: Program;
  #reader: Program | undefined;
  #ended = false;

  constructor(options: KillOptions, sink: number | undefined) {
    this.#options = options;
    this.#sink = sink;
    this.file = join(options.folder, "stream");
  }

  async startServer(...source: string[]): Promise<void> {
    const { runtime, ack, sync, rate, folder } = this.#options;
    const messages = source.length > 0
      ? source
      : ["--message", "numbered", "--size", String(SIZE), "--rate", `${rate}B/s`];
    const spill = ["--overflow", "spill", "--spill", join(folder, "queue.db"), "--sync", sync];
    const args = ["--port", this.#port, "--backlog", "64k", "--ack", ack, ...spill, ...messages];
    this.#server = new Program(commandOn(runtime, "server.ts", ...args), { seconds: DEADLINE_S });
    const [, port] = await this.#server.saw(/listening on 127\.0\.0\.1:(\d+)/);
    this.#port = port!;
  }

  startReader(): void {
    const { runtime, ack } = this.#options;
    const words = ack === "reader"
      ? commandOn(
        runtime,
        "bench/readers/keeper.ts",
        "127.0.0.1",
        this.#port,
        this.file,
        String(SIZE),
        `${WORK_US}`,
      )
      : commandOn(
        runtime,
        "client.ts",
        ...[`127.0.0.1:${this.#port}`, "--forward", `127.0.0.1:${this.#sink}`],
        ...["--work", `${WORK_US}us`],
      );
    const reader = new Program(words, { seconds: DEADLINE_S, statuses: [0, 1] });
    this.#reader = reader;
    reader.ended().then(
      // client.ts ends when its server is killed (keeper.ts reconnects): start it again.
      () => ack === "tcp" && !this.#ended && this.#reader === reader && this.#restartReader(),
      () => {},
    );
  }

  #restartReader(): void {
    setTimeout(() => {
      if (!this.#ended) this.startReader();
    }, 10);
  }

  async killServer(): Promise<void> {
    await killed(this.#server);
    await this.startServer();
  }

  async killReader(): Promise<void> {
    const reader = this.#reader!;
    this.#reader = undefined;
    await killed(reader);
    this.startReader();
  }

  /** The reader has come to this server: until then it may still read what the last one had sent. */
  async sawReader(): Promise<void> {
    await this.#server.saw(/^reader .* connected/m);
  }

  /** Restarts the server without new messages: it delivers the backlog and ends. */
  async drain(): Promise<void> {
    this.#server.interrupt();
    await this.#server.ended();
    await this.startServer("--source", "none");
    await this.#server.ended();
  }

  async end(): Promise<void> {
    this.#ended = true;
    for (const program of [this.#server, this.#reader]) {
      if (program !== undefined) await killed(program);
    }
  }
}

async function killed(program: Program): Promise<void> {
  program.kill();
  await program.ended().catch(() => {});
}

async function verifyFile(file: string): Promise<NumberedVerifier> {
  const verifier = new NumberedVerifier(SIZE);
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) {
    verifier.push(chunk as Uint8Array);
  }
  if (verifier.end() > 0) verifier.damaged++;
  return verifier;
}

interface Sink {
  port: number;
  verifier: NumberedVerifier;
  /** All connections so far have been read to their ends. */
  settled(): Promise<void>;
  close(): Promise<void>;
}

/** Verifies the messages that readers forward, one connection after the other. */
async function openSink(): Promise<Sink> {
  const verifier = new NumberedVerifier(SIZE);
  let last: Promise<void> = Promise.resolve();
  const net = await loadAdapter();
  const listener = await net.listen({
    host: "127.0.0.1",
    port: 0,
    onConnection: (connection) => {
      last = last.then(() => take(connection, verifier));
    },
  });
  return {
    port: listener.address.port,
    verifier,
    settled: () => last,
    async close() {
      await listener.close();
      await last;
    },
  };
}

/** Drops an incomplete message at the end of a connection: the next one sends it again, complete. */
async function take(connection: Connection, verifier: NumberedVerifier): Promise<void> {
  const partial = new Uint8Array(SIZE);
  let partialBytes = 0;
  for (let chunk; (chunk = await connection.read(65_536)) !== null;) {
    let at = 0;
    if (partialBytes > 0) {
      at = Math.min(SIZE - partialBytes, chunk.length);
      partial.set(chunk.subarray(0, at), partialBytes);
      partialBytes += at;
      if (partialBytes < SIZE) continue;
      verifier.push(partial);
    }
    const whole = at + Math.floor((chunk.length - at) / SIZE) * SIZE;
    verifier.push(chunk.subarray(at, whole));
    partial.set(chunk.subarray(whole));
    partialBytes = chunk.length - whole;
  }
  connection.close();
}
