/** The runs of bench/spill.ts: real servers that spill, and what became of their readers and disk. */
import { mkdtempSync, readFileSync, rmSync, statfsSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { formatHello } from "../src/ack.ts";
import type { DrainResult } from "../src/drain.ts";
import { type Connection, loadAdapter } from "../src/net.ts";
import { interrupted } from "../src/program.ts";
import { queueStatus } from "../src/sqlite_check.ts";
import { loadSqlite } from "../src/sqlite_file.ts";
import { sleep } from "../src/trial.ts";
import type { UpstreamFigures } from "./peers/upstream.ts";
import { commandOn, Program, type Runtime } from "./programs.ts";

/** A program that hangs is killed this long after it should have ended. Seconds. */
const PATIENCE = 30;
/**
 * What a run wrote is deleted, and so long later the next one begins: ext4 with `discard` gives
 * blocks back to a thin disk some 2 s later, and one that is still there takes a write several times
 * as fast as one that has to be made (2.9 GB/s, not 0.7).
 */
const SETTLE_SECONDS = 4;
/** What a run may leave behind without a rest. Bytes. */
const LITTLE = 16 << 20;
/** The server's default. */
export const SYNC = "interval:100ms";
/** How often a file's size is looked at. */
const POLL_MS = 20;

/** A folder of our own, which is gone when this process ends, however it is told to. */
export class Folder {
  readonly path: string;
  /** How long the disk rests after each run. */
  readonly settleSeconds: number;

  /** Throws an Error where what is written stays in memory. */
  constructor(parent: string, { settle }: { settle: boolean }) {
    this.settleSeconds = settle ? SETTLE_SECONDS : 0;
    if (IN_MEMORY.has(statfsSync(parent).type)) {
      throw new Error(
        `cannot measure a disk in ${parent}: it is in memory; --folder names another`,
      );
    }
    this.path = mkdtempSync(join(resolve(parent), "speedlimit-spill-"));
    process.on("exit", () => rmSync(this.path, { recursive: true, force: true }));
  }

  /** Bytes that are free. */
  get free(): number {
    const { bavail, bsize } = statfsSync(this.path);
    return bavail * bsize;
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** Deletes a file that a run wrote, and waits until its blocks are as free as others. */
  async clear(name: string): Promise<void> {
    const bytes = statSync(this.file(name), { throwIfNoEntry: false })?.size ?? 0;
    for (const end of ["", "-journal"]) rmSync(this.file(name) + end, { force: true });
    await new Program(["sync", "-f", this.path], { seconds: PATIENCE }).ended();
    if (bytes > LITTLE) await pause(this.settleSeconds * 1000);
  }
}

/** f_type of tmpfs and ramfs (linux/magic.h). */
const IN_MEMORY: ReadonlySet<number> = new Set([0x01021994, 0x858458f6]);

/** Like sleep; rejects on Ctrl-C. */
async function pause(ms: number): Promise<void> {
  await sleep(ms);
  interrupted().throwIfAborted();
}

/** Bytes a second of `dd`, to stable storage. */
export async function runDd(folder: Folder, mebibytes: number): Promise<number> {
  const file = folder.file("dd");
  const words = ["dd", "if=/dev/zero", `of=${file}`, "bs=1M", `count=${mebibytes}`];
  const command = ["env", "LC_ALL=C", ...words, "conv=fdatasync"];
  const { stderr } = await new Program(command, { seconds: PATIENCE + mebibytes / 20 }).ended();
  const [, bytes, seconds] = /^(\d+) bytes.* copied, ([\d.e+-]+) s,/m.exec(stderr) ?? [];
  if (seconds === undefined) throw new Error(`dd said no time: ${stderr}`);
  await folder.clear("dd");
  return Number(bytes) / Number(seconds);
}

/** A server.ts, from its start to its end. */
class ServerRun {
  readonly program: Program;
  readonly port: string;
  /** Rejects when it ends before it is killed. */
  readonly ended: Promise<never>;
  /** From its start until it listened. */
  readonly startSeconds: number;

  private constructor(program: Program, port: string, startSeconds: number) {
    this.program = program;
    this.port = port;
    this.startSeconds = startSeconds;
    this.ended = program.ended().then(() => {
      throw new Error("the server ended by itself");
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

  /** Waits; rejects if the server ends meanwhile. */
  async during<T>(what: Promise<T>): Promise<T> {
    return await Promise.race([what, this.ended]);
  }

  /** SIGKILL; what it had not stored is lost. */
  async kill(): Promise<void> {
    this.program.kill();
    await this.program.ended().catch(() => {});
    interrupted().throwIfAborted();
  }
}

/** Bytes in the queue of a server that was killed. */
async function storedIn(file: string): Promise<number> {
  const { readers } = queueStatus(await loadSqlite(), file);
  return readers.reduce((sum, { bytes }) => sum + bytes, 0);
}

const rateOption = (rate: number | undefined): string[] => [
  "--rate",
  rate === undefined ? "max" : `${Math.round(rate)}B/s`,
];

/** Connects as one reader of several, and reads nothing. */
async function connectStopped(port: string, name?: string): Promise<Connection> {
  const net = await loadAdapter();
  const connection = await net.connect({ host: "127.0.0.1", port: Number(port) });
  if (name !== undefined) await connection.write(new TextEncoder().encode(formatHello(name)));
  return connection;
}

/** What a spilling server did in some seconds. */
export interface SpillRun {
  /** Bytes that a SIGKILL left in the queue, for each second of the time until then. */
  spilled?: number;
  /** Bytes a second that a second reader took; absent without one. */
  fast?: number;
}

export interface SpillRunOptions {
  runtime: Runtime;
  folder: Folder;
  seconds: number;
  sync?: string;
  /** Bytes a second to each reader; default: as fast as it goes. */
  rate?: number;
  /** A reader is connected and has stopped; default true. */
  stopped?: boolean;
  /** Another one takes all; default false. */
  fast?: boolean;
}

const HEARD = /"event":"spilling"/;

/**
 * A flood for a reader that connects and never reads: what the queue holds after a kill was told of
 * as stored, or was about to be. From the connection on: no start and no warming up is left out.
 */
export async function runSpill(options: SpillRunOptions): Promise<SpillRun> {
  const { runtime, folder, seconds, sync = SYNC, rate, stopped = true, fast = false } = options;
  const queue = ["--overflow", "spill", "--spill", folder.file("queue"), "--sync", sync];
  const args = [...rateOption(rate), ...queue, "--reader-id", "hello"];
  const server = await ServerRun.start(runtime, seconds, args);
  let slow: Connection | undefined;
  let client: Program | undefined;
  try {
    const startMs = performance.now();
    const run: SpillRun = {};
    if (stopped) {
      slow = await connectStopped(server.port, "slow");
      await server.program.saw(HEARD);
    }
    if (fast) {
      const at = `127.0.0.1:${server.port}`;
      const how = ["--hello", "fast", "--duration", `${seconds}s`, "--json"];
      client = new Program(commandOn(runtime, "client.ts", at, ...how), {
        seconds: seconds + PATIENCE,
      });
      run.fast = (await server.during(client.figures()) as DrainResult).bytesPerSecond;
    } else {
      await server.during(pause(startMs + seconds * 1000 - performance.now()));
    }
    const ranMs = performance.now() - startMs;
    await server.kill();
    if (stopped) run.spilled = await storedIn(folder.file("queue")) / ranMs * 1000;
    return run;
  } finally {
    client?.kill();
    slow?.close();
    await server.kill();
    await folder.clear("queue");
  }
}

/** The memory of a process. */
export interface Memory {
  /** VmHWM: the most that it ever was, seen or not. Bytes. */
  most: number;
  /** VmRSS every 100 ms. Bytes. */
  samples: number[];
}

const MEMORY_EVERY_MS = 100;

class MemoryWatch {
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
      // It has ended.
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

/** What became of a reader that was away. */
export interface AwayRun {
  /** Of the server, while its reader was away. */
  awayMemory: Memory;
  /** Bytes a second that it stored. */
  stored: number;
  /** Bytes that waited for the reader after the kill, and its file then. */
  waiting: number;
  fileBytes: number;
  /** From its start until it listened again. */
  restartSeconds: number;
  /**
   * Bytes a second that the reader took of that, of a plain flood, which is one buffer again and
   * again, and of one that goes through a delivery's memory as what waits does.
   */
  drained: number;
  flooded: number[];
  relayed: number[];
  /** Of the server, while the reader took what waited. */
  drainMemory: Memory;
  /** The file when all was delivered, and once the server had ended. */
  fileBytesLeft: number;
  fileBytesClosed: number;
}

export interface AwayOptions {
  runtime: Runtime;
  folder: Folder;
  bytes: number;
  /** Bytes a second; default: as fast as it goes. */
  rate?: number | undefined;
  /** Of each plain flood. */
  seconds: number;
}

/** Below this, a server that stores is as good as stuck. Bytes a second. */
const LEAST_RATE = 20e6;

export async function runAway(options: AwayOptions): Promise<AwayRun> {
  const { runtime, folder, bytes, rate, seconds } = options;
  const file = folder.file("queue");
  const longest = bytes / Math.min(LEAST_RATE, (rate ?? Infinity) / 2);
  const queue = ["--overflow", "spill", "--spill", file, "--sync", SYNC];
  const flooded = [await runFlood(runtime, seconds)];
  const relayed = [await runFlood(runtime, seconds, "--ack", "tcp")];
  let server = await ServerRun.start(runtime, longest, [...rateOption(rate), ...queue]);
  try {
    const startMs = performance.now();
    const away = new MemoryWatch(server.program.pid);
    while (statSync(file).size < bytes) await server.during(pause(POLL_MS));
    const storeSeconds = (performance.now() - startMs) / 1000;
    const awayMemory = away.stop();
    await server.kill();
    const fileBytes = statSync(file).size;

    server = await ServerRun.start(runtime, longest, ["--source", "none", ...queue]);
    const { startSeconds: restartSeconds, program } = server;
    // Nothing writes now, so that the file can be looked into.
    const waiting = await storedIn(file);
    const draining = new MemoryWatch(program.pid);
    const { bytes: taken, bytesPerSecond: drained } = await drain(runtime, server.port, longest);
    const drainMemory = draining.stop();
    const fileBytesLeft = statSync(file).size;
    if (taken !== waiting) {
      throw new Error(`${waiting} bytes waited, but the reader got ${taken} (${runtime})`);
    }
    await program.ended();
    const fileBytesClosed = statSync(file).size;
    relayed.push(await runFlood(runtime, seconds, "--ack", "tcp"));
    flooded.push(await runFlood(runtime, seconds));
    return {
      awayMemory,
      stored: fileBytes / storeSeconds,
      waiting,
      fileBytes,
      restartSeconds,
      drained,
      flooded,
      relayed,
      drainMemory,
      fileBytesLeft,
      fileBytesClosed,
    };
  } finally {
    await server.kill();
    await folder.clear("queue");
  }
}

async function drain(
  runtime: Runtime,
  port: string,
  seconds: number,
  ...more: string[]
): Promise<DrainResult> {
  const words = commandOn(runtime, "client.ts", `127.0.0.1:${port}`, "--json", ...more);
  return await new Program(words, { seconds: seconds + PATIENCE }).figures() as DrainResult;
}

/** Bytes a second that a reader takes of a flood without a queue. */
async function runFlood(runtime: Runtime, seconds: number, ...more: string[]): Promise<number> {
  const args = ["--rate", "max", "--overflow", "block"];
  const server = await ServerRun.start(runtime, seconds, [...args, ...more]);
  try {
    const { bytesPerSecond } = await server.during(
      drain(runtime, server.port, seconds, "--duration", `${seconds}s`),
    );
    return bytesPerSecond;
  } finally {
    await server.kill();
  }
}

/** What an upstream saw while the reader behind the server had stopped. */
export interface WindowRun extends UpstreamFigures {
  /**
   * TcpExt of /proc/net/netstat, of all sockets here: windows that opened again, and that closed;
   * the stopped reader closes its own once.
   */
  fromZeroWindow: number;
  toZeroWindow: number;
  /** Bytes that were in the queue at the end. */
  spilled: number;
}

export interface WindowOptions {
  runtime: Runtime;
  folder: Folder;
  seconds: number;
  /** Bytes a second. */
  rate: number;
}

export async function runWindow(options: WindowOptions): Promise<WindowRun> {
  const { runtime, folder, seconds, rate } = options;
  const pace = ["--rate", `${rate}B/s`, "--size", "64", "--seconds", `${seconds}s`];
  // On Node, which is told to load libc: what it runs on matters to nobody here.
  const upstream = new Program(commandOn("node", "bench/peers/upstream.ts", ...pace), {
    seconds: seconds + PATIENCE,
  });
  let server: ServerRun | undefined;
  let reader: Connection | undefined;
  try {
    const [, port] = await upstream.saw(/^listening (\d+)$/m);
    const before = readTcpExt();
    const source = ["--source", `tcp://127.0.0.1:${port}`, "--frame", "fixed:64"];
    const queue = ["--overflow", "spill", "--spill", folder.file("queue"), "--sync", SYNC];
    server = await ServerRun.start(runtime, seconds, [...source, ...queue]);
    reader = await connectStopped(server.port);
    const figures = await server.during(upstream.figures()) as UpstreamFigures;
    const after = readTcpExt();
    await server.kill();
    const grown = (name: string) => (after.get(name) ?? NaN) - (before.get(name) ?? NaN);
    return {
      ...figures,
      fromZeroWindow: grown("TCPFromZeroWindowAdv"),
      toZeroWindow: grown("TCPToZeroWindowAdv"),
      spilled: await storedIn(folder.file("queue")),
    };
  } finally {
    upstream.kill();
    reader?.close();
    await server?.kill();
    await folder.clear("queue");
  }
}

/** Counters of this network namespace by their names. */
function readTcpExt(): Map<string, number> {
  const lines = readFileSync("/proc/net/netstat", "latin1").split("\n");
  const [names = [], values = []] = lines
    .filter((line) => line.startsWith("TcpExt:"))
    .map((line) => line.split(" ").slice(1));
  return new Map(names.map((name, i) => [name, Number(values[i])]));
}
