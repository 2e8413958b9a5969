/**
 * A reader that loses nothing and doubles nothing: it stores the stream in a file, and where the
 * file ends is where it goes on. It comes back whenever the connection ends, until SIGTERM.
 *
 *     keeper.ts HOST PORT FILE [MICROSECONDS]      the time that it works on each chunk
 *
 * Beside the file it keeps the name of the stream. A kill -9 may cut the file inside a message,
 * which does no harm: it asks for the byte behind its last.
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
import { drain } from "../../src/read/drain.ts";
import { NetError } from "../../src/net/net.ts";
import { interrupted } from "../../src/cli/program.ts";
import { setTimeout as sleep } from "node:timers/promises";

const COME_BACK_MS = 10;

const [host, port, file, work = "0"] = process.argv.slice(2) as [string, string, string, string?];
const streamFile = `${file}.stream`;
const signal = interrupted();
const fd = openSync(file, "a");

function known(): { offset?: number; stream?: string } {
  if (existsSync(streamFile)) {
    return { offset: statSync(file).size, stream: readFileSync(streamFile, "utf8") };
  }
  // It was killed before its first acknowledgement: what it had comes again, all of it.
  ftruncateSync(fd);
  return {};
}

/** Whole or not at all. */
function keepStream(stream: string): void {
  writeFileSync(`${streamFile}.new`, stream);
  renameSync(`${streamFile}.new`, streamFile);
}

while (!signal.aborted) {
  try {
    const { missed } = await drain({
      host,
      port: Number(port),
      workMs: Number(work) / 1000,
      handler: (chunk) => {
        for (let at = 0; at < chunk.length;) at += writeSync(fd, chunk, at);
      },
      ack: {
        ...known(),
        onStore(_, stream) {
          // Before the first acknowledgement; the bytes are in the file already.
          if (!existsSync(streamFile)) keepStream(stream);
        },
      },
      signal,
    });
    if (missed !== undefined && missed > 0) throw new Error(`${missed} bytes are gone`);
  } catch (error) {
    // A server that was killed is started again.
    if (!(error instanceof NetError) && !/hung up/.test((error as Error).message)) throw error;
  }
  if (!signal.aborted) await sleep(COME_BACK_MS);
}
closeSync(fd);
