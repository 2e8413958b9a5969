/** A reader that was away, as bench/spill.ts runs it: what its server stores, and how that goes out. */
import { statSync } from "node:fs";
import type { DrainResult } from "../src/read/drain.ts";
import { commandOn, Program } from "./programs.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { type Folder, PATIENCE, pause, runColdRead } from "./spill_disk.ts";
import { type Memory, MemoryWatch, rateOption, ServerRun, storedIn, SYNC } from "./spill_server.ts";

/** How often a file's size is looked at. */
const POLL_MS = 20;

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
  /** What readers took that were no faster than that. */
  paced: { rate: number; drained: number }[];
  /** Bytes a second at which the disk gives the file, of which nothing is in memory. */
  coldRead: number;
  /**
   * Bytes a second that the fastest reader took of the rest, of which nothing was in memory either, of
   * a plain flood, which is one buffer again and again, and of one that goes through a delivery's
   * memory as what waits does.
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
  /** A reader, compiled, that has a limit; for so long at each, at most half of what waits. */
  paced: string;
  pacedSeconds: number;
}

/** The limits of readers that have one. Bytes a second. */
const PACED_RATES = [100e6, 200e6, 400e6];
/** From the start of such a reader to its first byte. */
const CONNECT_MS = 50;

/** Below this, a server that stores is as good as stuck. Bytes a second. */
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
    while (statSync(file).size < bytes) await server.during(pause(POLL_MS));
    const storeSeconds = (performance.now() - startMs) / 1000;
    const awayMemory = away.stop();
    await server.kill();
    const fileBytes = statSync(file).size;

    await runColdRead(file);
    // A reader that acknowledges nothing is told so at once.
    const again = ["--source", "none", "--ack", "tcp", ...queue];
    server = await ServerRun.start(runtime, longest, again);
    const { startSeconds: restartSeconds } = server;
    // Nothing writes now, so that the file can be looked into.
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
    const fileBytesLeft = statSync(file).size;
    if (taken !== rest) {
      throw new Error(`${rest} bytes waited, but the reader got ${taken} (${runtime})`);
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

/** Bytes a second that a reader with a limit took, from its first byte on. */
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
    if (drained === undefined) throw new Error(`the paced reader said: ${stderr.trim()}`);
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
