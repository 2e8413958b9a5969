/** Starts and observes the servers and readers of bench/spill.ts. */
import { readFileSync } from "node:fs";
import { formatHello } from "../src/message/protocol.ts";
import type { Connection } from "../src/net/net.ts";
import { loadAdapter } from "../src/net/load.ts";
import { interrupted } from "../src/cli/program.ts";
import { queueStatus } from "../src/queue/inspect.ts";
import { loadSqlite } from "../src/queue/sqlite.ts";
import { commandOn, Program } from "./programs.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { PATIENCE } from "./spill_disk.ts";

/** The server's default. */
export const SYNC = "interval:100ms";

/** A running server.ts. */
export class ServerRun {
  readonly program: Program;
  readonly port: string;
  /** Rejects when the server ends. */
  readonly ended: Promise<never>;
  /** Time from its start until it listened. */
  readonly startSeconds: number;

  private constructor(program: Program, port: string, startSeconds: number) {
    this.program = program;
    this.port = port;
    this.startSeconds = startSeconds;
    this.ended = program.ended().then(() => {
      throw new Error("the server ended unexpectedly");
    });
    this.ended.catch(() => {});
  }

  static async start(
    runtime: Runtime,
    seconds: number,
    args: readonly string[],
  ): Promise<ServerRun> {
    const words = commandOn(runtime, "server.ts", "--port", "0", "--json", ...args);
    const startMs = performance.now();
    const program = new Program(words, { seconds: seconds + PATIENCE });
    const [, port] = await program.saw(/"event":"listening".*"port":(\d+)/);
    return new ServerRun(program, port!, (performance.now() - startMs) / 1000);
  }

  /** Waits for a promise; rejects if the server ends before. */
  async during<T>(what: Promise<T>): Promise<T> {
    return await Promise.race([what, this.ended]);
  }

  /** Sends SIGKILL, and waits for the end. Messages that were not stored are lost. */
  async kill(): Promise<void> {
    this.program.kill();
    await this.program.ended().catch(() => {});
    interrupted().throwIfAborted();
  }
}

/** Bytes in the queue of a server that was killed, of all readers. */
export async function storedIn(folder: string): Promise<number> {
  const { readers } = await queueStatus(await loadSqlite(), folder);
  return readers.reduce((sum, { bytes }) => sum + bytes, 0);
}

export const rateOption = (rate: number | undefined): string[] => [
  "--rate",
  rate === undefined ? "max" : `${Math.round(rate)}B/s`,
];

/** Connects as a reader, with a name if there are several, and reads nothing. */
export async function connectStopped(port: string, name?: string): Promise<Connection> {
  const net = await loadAdapter();
  const connection = await net.connect({ host: "127.0.0.1", port: Number(port) });
  if (name !== undefined) await connection.write(new TextEncoder().encode(formatHello(name)));
  return connection;
}

/** The memory of a process. */
export interface Memory {
  /** VmHWM: the peak over the whole life of the process. Bytes. */
  most: number;
  /** VmRSS every 100 ms. Bytes. */
  samples: number[];
}

const MEMORY_EVERY_MS = 100;

export class MemoryWatch {
  readonly #pid: number;
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #memory: Memory = { most: 0, samples: [] };

  constructor(pid: number) {
    this.#pid = pid;
    this.#timer = setInterval(() => this.#sample(), MEMORY_EVERY_MS);
    this.#sample();
  }

  #sample(): void {
    let text: string;
    try {
      text = readFileSync(`/proc/${this.#pid}/status`, "latin1");
    } catch {
      // The process has ended.
      return;
    }
    const bytes = (name: string) =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0) * 1024;
    if (bytes("VmRSS") === 0) return;
    this.#memory.samples.push(bytes("VmRSS"));
    this.#memory.most = Math.max(this.#memory.most, bytes("VmHWM"));
  }

  stop(): Memory {
    this.#sample();
    clearInterval(this.#timer);
    return this.#memory;
  }
}
