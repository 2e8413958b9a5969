/**
 * Many readers that came once and stay away, for bench/spill.ts: what they cost a server of a live
 * source, that source, and a reader that is there.
 */
import { formatHello } from "../src/message/protocol.ts";
import { loadAdapter } from "../src/net/load.ts";
import { DEFAULT_READ_SIZE } from "../src/net/net.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { Feed } from "./kill_feed.ts";
import { bytesIn, type Folder, pause } from "./spill_disk.ts";
import { type Memory, MemoryWatch, ServerRun, storedIn, SYNC } from "./spill_server.ts";

export interface CrowdRun {
  /** Memory of the server from the time on at which all readers but one had left. */
  memory: Memory;
  /** Bytes that the source sent while they were away, and by how much the queue's files grew. */
  fed: number;
  onDisk: number;
  /** Bytes that wait for the readers, each counted on its own. */
  waiting: number;
  /** The longest time that the source's kernel took no byte, and that nothing came to the reader; s. */
  feedPause: number;
  readerPause: number;
  /** Bytes that the present reader received. */
  received: number;
}

export interface CrowdOptions {
  runtime: Runtime;
  folder: Folder;
  /** Readers that are away. */
  readers: number;
  /** Bytes a second. */
  rate: number;
  seconds: number;
}

const SIZE = 64;
/** How long the server has for the last messages, and to notice that readers have left; ms. */
const SETTLE_MS = 500;

export async function runCrowd(options: CrowdOptions): Promise<CrowdRun> {
  const { runtime, folder, readers, rate, seconds } = options;
  const feed = await Feed.listen(SIZE, rate);
  const queue = folder.file("queue");
  const args = [
    ...["--source", `tcp://127.0.0.1:${feed.port}`, "--frame", `fixed:${SIZE}`],
    ...["--overflow", "spill", "--spill", queue, "--sync", SYNC, "--reader-id", "hello"],
    ...["--ack", "tcp", "--max-reader-names", String(readers + 1)],
  ];
  const server = await ServerRun.start(runtime, seconds + 30, args);
  const net = await loadAdapter();
  const connect = async (name: string) => {
    const connection = await net.connect({ host: "127.0.0.1", port: Number(server.port) });
    await connection.write(new TextEncoder().encode(formatHello(name)));
    return connection;
  };
  try {
    const present = await connect("present");
    const run = { received: 0, readerPause: 0 };
    let measuring = false;
    let lastMs = performance.now();
    void (async () => {
      for (let chunk; (chunk = await present.read(DEFAULT_READ_SIZE)) !== null;) {
        const nowMs = performance.now();
        if (measuring) run.readerPause = Math.max(run.readerPause, (nowMs - lastMs) / 1000);
        lastMs = nowMs;
        run.received += chunk.length;
      }
    })();
    for (let i = 0; i < readers; i++) {
      const connection = await connect(`away-${i}`);
      // Its first byte: the server knows it.
      if (await server.during(Promise.resolve(connection.read(1))) === null) {
        throw new Error(`reader away-${i} was not accepted`);
      }
      connection.close();
    }
    await server.during(pause(SETTLE_MS));
    const begun = feed.messages;
    const before = bytesIn(queue);
    feed.longestPauseMs = 0;
    measuring = true;
    lastMs = performance.now();
    const watch = new MemoryWatch(server.program.pid);
    await server.during(pause(seconds * 1000));
    const memory = watch.stop();
    measuring = false;
    const feedPause = feed.longestPauseMs / 1000;
    feed.end();
    const fed = (feed.messages - begun) * SIZE;
    await server.during(pause(SETTLE_MS));
    const onDisk = bytesIn(queue) - before;
    await server.kill();
    present.close();
    return { memory, fed, onDisk, waiting: await storedIn(queue), feedPause, ...run };
  } finally {
    await feed.close();
    await server.kill();
    await folder.clear("queue");
  }
}
