/** Servers that spill for a stopped reader: how fast, and how that affects others. */
import { readFileSync } from "node:fs";
import type { DrainResult } from "../src/read/drain.ts";
import type { Connection } from "../src/net/net.ts";
import type { UpstreamFigures } from "./peers/upstream.ts";
import { commandOn, Program } from "./programs.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { type Folder, PATIENCE, pause } from "./spill_disk.ts";
import { connectStopped, rateOption, ServerRun, storedIn, SYNC } from "./spill_server.ts";

export interface SpillRun {
  /** Bytes in the queue after SIGKILL, per second of the run; absent without a stopped reader. */
  spilled?: number;
  /** Drained rate of a second reader, bytes a second; absent without one. */
  fast?: number;
}

export interface SpillRunOptions {
  runtime: Runtime;
  folder: Folder;
  seconds: number;
  sync?: string;
  /** Offered rate to each reader, bytes a second; default: as fast as possible. */
  rate?: number;
  /** One reader connects and never reads; default true. */
  stopped?: boolean;
  /** Another reader reads everything; default false. */
  fast?: boolean;
}

const SPILLING = /"event":"spilling"/;

/**
 * Measures how fast a server spills a flood for a reader that never reads: bytes in the queue after a
 * SIGKILL, divided by the time since the reader connected. The time includes the warm-up.
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
      await server.program.saw(SPILLING);
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

/** What an upstream saw while the server's reader had stopped. */
export interface WindowRun extends UpstreamFigures {
  /**
   * TcpExt of /proc/net/netstat, for all sockets in this network namespace: windows that left zero,
   * and that became zero. The stopped reader's own window becomes zero once.
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
  // Always on Node: the upstream's runtime does not matter, and it needs libc.
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

/** The TcpExt counters of this network namespace, by name. */
function readTcpExt(): Map<string, number> {
  const lines = readFileSync("/proc/net/netstat", "latin1").split("\n");
  const [names = [], values = []] = lines
    .filter((line) => line.startsWith("TcpExt:"))
    .map((line) => line.split(" ").slice(1));
  return new Map(names.map((name, i) => [name, Number(values[i])]));
}
