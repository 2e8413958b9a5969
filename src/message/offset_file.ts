/**
 * The file in which a reader stores its offset: one line, `OFFSET STREAM`.
 *
 * Each update writes a new file and renames it over the old one. If the reader is killed or the power
 * fails at any moment, the file contains either the old line or the new one.
 */
import { closeSync, fsync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { formatStreamOffset, parseStreamOffset, type StreamOffset } from "./protocol.ts";

/**
 * The stored offset; undefined if the file does not exist. Throws an Error when the file cannot be
 * read or contains anything else.
 */
export function readOffset(file: string): StreamOffset | undefined {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    throw new Error(`cannot read the offset file ${file}: ${message}`, { cause: error });
  }
  const stored = text.endsWith("\n") ? parseStreamOffset(text.slice(0, -1)) : undefined;
  if (stored !== undefined) return stored;
  throw new Error(
    `the offset file ${file} must contain one line "OFFSET STREAM": it was not changed; ` +
      "if you delete it, the server sends everything that it still has",
  );
}

/**
 * Replaces the file, and settles once the new one is on the disk. Rejects with an Error of one line.
 * Only fsync is asynchronous: while a reader's reads return at once, the event loop seldom gets a turn,
 * and every additional wait would be slow.
 */
export async function writeOffset(file: string, offset: StreamOffset): Promise<void> {
  const newFile = `${file}.new`;
  try {
    const fd = openSync(newFile, "w");
    try {
      writeSync(fd, `${formatStreamOffset(offset)}\n`);
      await sync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(newFile, file);
  } catch (error) {
    const { message } = error as Error;
    throw new Error(`cannot write the offset file ${file}: ${message}`, { cause: error });
  }
  await syncFolder(dirname(file));
}

const sync: (fd: number) => Promise<void> = promisify(fsync);

/** The renamed file is on the disk only once its folder has been synchronised (fsync(2)). */
async function syncFolder(folder: string): Promise<void> {
  try {
    const fd = openSync(folder, "r");
    await sync(fd).finally(() => closeSync(fd));
  } catch {
    // Windows cannot open folders, and some file systems cannot synchronise them.
  }
}
