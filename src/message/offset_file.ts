/**
 * The file in which a reader keeps how far it has come: one line, `OFFSET STREAM`.
 *
 * It is never written in place: a reader that is killed at any moment, or a machine that loses its
 * power, leaves the old line or the new one.
 */
import { closeSync, fsync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { formatStreamOffset, parseStreamOffset, type StreamOffset } from "./protocol.ts";

/** What the file says; undefined: there is none. Throws an Error when it says anything else. */
export function readOffset(file: string): StreamOffset | undefined {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    throw new Error(`cannot read the offset file ${file}: ${message}`, { cause: error });
  }
  const place = text.endsWith("\n") ? parseStreamOffset(text.slice(0, -1)) : undefined;
  if (place !== undefined) return place;
  throw new Error(
    `the offset file ${file} must be one line "OFFSET STREAM": it is left as it is; ` +
      "without it all that the server still has comes again",
  );
}

/**
 * Replaces it; settles once that is on the disk. Rejects with an Error of one line. Only the disk is
 * waited for: where reads are answered at once, each wait takes its time to be seen.
 */
export async function writeOffset(file: string, place: StreamOffset): Promise<void> {
  const beside = `${file}.new`;
  try {
    const fd = openSync(beside, "w");
    try {
      writeSync(fd, `${formatStreamOffset(place)}\n`);
      await sync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(beside, file);
  } catch (error) {
    const { message } = error as Error;
    throw new Error(`cannot write the offset file ${file}: ${message}`, { cause: error });
  }
  await syncFolder(dirname(file));
}

const sync: (fd: number) => Promise<void> = promisify(fsync);

/** The new name is on the disk only when its folder is (fsync(2)). */
async function syncFolder(folder: string): Promise<void> {
  try {
    const fd = openSync(folder, "r");
    await sync(fd).finally(() => closeSync(fd));
  } catch {
    // Windows opens no folder, and some file systems sync none.
  }
}
