/**
 * A reader without loss or duplicates: it stores the stream in a file, and after a new connection
 * continues at the offset where the file ends. It reconnects whenever the connection ends, until
 * SIGTERM.
 *
 *     keeper.ts HOST PORT FILE SIZE [MICROSECONDS]
 *
 * SIZE: of the numbered messages; MICROSECONDS: work on each chunk, default 0. A second file stores the
 * name of the stream. A kill -9 may end the file inside a message. Then the reader requests that message
 * from its start: a server that was killed makes it again with another planned time.
 */
import {
  closeSync,
  existsSync,
  ftruncateSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { NetError } from "../../src/net/net.ts";
import { drain } from "../../src/read/drain.ts";
import { interrupted } from "../../src/cli/program.ts";

const RECONNECT_MS = 10;

const [host, port, file, messageSize, work = "0"] = process.argv.slice(2) as [
  ...[host: string, port: string, file: string, messageSize: string],
  work?: string,
];
const size = Number(messageSize);
const streamFile = `${file}.stream`;
const signal = interrupted();
const fd = openSync(file, "a");

/** The offset and the stream to continue; empty: from the beginning. */
function stored(): { offset?: number; stream?: string } {
  if (existsSync(streamFile)) {
    const bytes = statSync(file).size;
    const offset = bytes - bytes % size;
    ftruncateSync(fd, offset);
    return { offset, stream: readFileSync(streamFile, "utf8") };
  }
  // Killed before its first acknowledgement: the server sends everything again.
  ftruncateSync(fd);
  return {};
}

/** Writes the file atomically. */
function storeStream(stream: string): void {
  writeFileSync(`${streamFile}.new`, stream);
  renameSync(`${streamFile}.new`, streamFile);
}

while (!signal.aborted) {
  try {
    const { missed } = await drain({
      host,
      port: Number(port),
      workMs: Number(work) / 1000,
      // With it, only whole messages are acknowledged.
      verify: { size },
      handler: (chunk) => {
        for (let at = 0; at < chunk.length;) at += writeSync(fd, chunk, at);
      },
      ack: {
        ...stored(),
        onStore(_, stream) {
          // Called before the first acknowledgement, when the bytes are already in the file.
          if (!existsSync(streamFile)) storeStream(stream);
        },
      },
      signal,
    });
    if (missed !== undefined && missed > 0) throw new Error(`${missed} bytes were lost`);
  } catch (error) {
    // A killed server will be started again: reconnect.
    if (
      !(error instanceof NetError) &&
      !/closed the connection/.test((error as Error).message)
    ) throw error;
  }
  if (!signal.aborted) await sleep(RECONNECT_MS);
}
closeSync(fd);
