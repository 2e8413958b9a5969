/** A disconnected reader, for bench/spill.ts: how its backlog is stored, and how it is delivered. */
import type { DrainResult } from "../src/read/drain.ts";
import { commandOn, Program } from "./programs.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { bytesIn, type Folder, PATIENCE, pause, runColdRead } from "./spill_disk.ts";
import { type Memory, MemoryWatch, rateOption, ServerRun, storedIn, SYNC } from "./spill_server.ts";

/** How often the size of the queue is polled. */
const POLL_MS = 20;

/** The figures of one run. */
export interface AwayRun {
  /** Memory of the server while its reader was disconnected. */
  awayMemory: Memory;
  /** Rate at which the server stored the backlog; bytes a second. */
  stored: number;
  /** Backlog in the queue after the server was killed; bytes. */
  waiting: number;
  /** Size of the queue's files at that time. */
  fileBytes: number;
  /** Time from a server's restart until it listened. */
  restartSeconds: number;
  /** Readers with a limit: the limit and the drained rate; bytes a second. */
  paced: { rate: number; drained: number }[];
  /** Rate at which dd reads the files, which are not in the page cache; bytes a second. */
  coldRead: number;
  /** Rate at which the fastest reader drained the rest, not in the page cache; bytes a second. */
  drained: number;
  /** For comparison: drained rates of a plain flood, which sends one buffer repeatedly. */
  flooded: number[];
  /** For comparison: drained rates of a flood that passes through the memory of a delivery. */
  relayed: number[];
  /** Memory of the server while the backlog was drained. */
  drainMemory: Memory;
  /** Size of the files once all was delivered. */
  fileBytesLeft: number;
  /** Size of the files after the server had ended. */
  fileBytesClosed: number;
}

export interface AwayOptions {
  runtime: Runtime;
  folder: Folder;
  bytes: number;
  /** Offered rate; bytes a second; default: as fast as possible. */
  rate?: number | undefined;
  /** Duration of each flood that is used for comparison. */
  seconds: number;
  /** A compiled reader with a speed limit. */
  paced: string;
  /** How long it runs with each limit; together these drain at most half of the backlog. */
  pacedSeconds: number;
}

/** Speed limits of the paced reader; bytes a second. */
const PACED_RATES = [100e6, 200e6, 400e6];
/** Time from the start of the paced reader to its first byte. */
const CONNECT_MS = 50;

/** A server that stores more slowly than this counts as hung; bytes a second. */
const LEAST_RATE = 20e6;

export async function runAway(options: AwayOptions): Promise<AwayRun> {
  const { runtime, folder, bytes, rate, seconds, paced, pacedSeconds } = options;
  const file = folder.file("queue");
  const longest = bytes / Math.min(LEAST_RATE, (rate ?? Infinity) / 2);
  const queue = ["--overflow", "spill", "--spill", file, "--sync", SYNC];
  const flooded = [await runFlood(runtime, seconds)];
  const relayed = [await runFlood(runtime, seconds, "--ack", "tcp")];
  let server = await ServerRun.start(runtime, longest, [...rateOption(rate), ...queue]);
  try {
    const startMs = performance.now();
    const away = new MemoryWatch(server.program.pid);
    while (bytesIn(file) < bytes) await server.during(pause(POLL_MS));
    const storeSeconds = (performance.now() - startMs) / 1000;
    const awayMemory = away.stop();
    await server.kill();
    const fileBytes = bytesIn(file);

    await runColdRead(file);
    // With --ack the server does not wait for an optional resume line.
    const again = ["--source", "none", "--ack", "tcp", ...queue];
    server = await ServerRun.start(runtime, longest, again);
    const { startSeconds: restartSeconds } = server;
    // No process writes the queue now, so that its figures are exact.
    const waiting = await storedIn(file);
    const pacing = new MemoryWatch(server.program.pid);
    const pacedRuns: AwayRun["paced"] = [];
    const most = bytes / 2 / PACED_RATES.reduce((sum, rate) => sum + rate);
    const each = Math.min(pacedSeconds, most);
    for (const rate of PACED_RATES) {
      const drained = await server.during(runPaced(paced, server.port, rate, each));
      pacedRuns.push({ rate, drained });
    }
    const pacedMemory = pacing.stop();
    await server.kill();

    const coldRead = await runColdRead(file);
    server = await ServerRun.start(runtime, longest, again);
    const { program } = server;
    const rest = await storedIn(file);
    const draining = new MemoryWatch(program.pid);
    const { bytes: taken, bytesPerSecond: drained } = await drain(runtime, server.port, longest);
    const drainMemory = draining.stop();
    const fileBytesLeft = bytesIn(file);
    if (taken !== rest) {
      throw new Error(
        `the backlog was ${rest} bytes, but the reader received ${taken} (${runtime})`,
      );
    }
    await program.ended();
    const fileBytesClosed = bytesIn(file);
    relayed.push(await runFlood(runtime, seconds, "--ack", "tcp"));
    flooded.push(await runFlood(runtime, seconds));
    return {
      awayMemory,
      stored: fileBytes / storeSeconds,
      waiting,
      fileBytes,
      restartSeconds,
      paced: pacedRuns,
      coldRead,
      drained,
      flooded,
      relayed,
      drainMemory: {
        most: Math.max(pacedMemory.most, drainMemory.most),
        samples: [...pacedMemory.samples, ...drainMemory.samples],
      },
      fileBytesLeft,
      fileBytesClosed,
    };
  } finally {
    await server.kill();
    await folder.clear("queue");
  }
}

/** The drained rate of a reader with a speed limit, from its first byte on; bytes a second. */
async function runPaced(
  reader: string,
  port: string,
  rate: number,
  seconds: number,
): Promise<number> {
  const program = new Program([reader, "127.0.0.1", port, String(rate)], {
    seconds: seconds + PATIENCE,
  });
  try {
    await pause(seconds * 1000 + CONNECT_MS);
    program.terminate();
    const { stderr } = await program.ended();
    const [, drained] = / s, (\d+) bytes\/s, ended by SIGTERM/.exec(stderr) ?? [];
    if (drained === undefined) throw new Error(`the paced reader printed: ${stderr.trim()}`);
    return Number(drained);
  } finally {
    program.kill();
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

/** The drained rate of a flood without a queue; bytes a second. */
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
