/** The folder of a stream: its key, and its segments. */
import { readdirSync } from "node:fs";
import { mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { Segment, segmentStart } from "./segment.ts";

/** In the folder of a stream: its key, so that the database can be made anew. */
export const KEY_FILE = "key";

/** Creates the folder of the stream with this key. */
export async function createStreamFolder(folder: string, key: string): Promise<void> {
  await mkdir(folder, { mode: 0o700 });
  const handle = await open(join(folder, KEY_FILE), "wx", 0o600);
  try {
    await handle.writeFile(`${key}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await syncFolder(folder);
}

/**
 * The segments in a folder, in order, without those that a running server deletes meanwhile. Throws a
 * QueueError where one is not a file.
 */
export function findSegments(folder: string, crcOfStream: number): Segment[] {
  const starts = readdirSync(folder).map((name) => ({ name, start: segmentStart(name) }));
  return starts
    .flatMap(({ name, start }) => start === undefined ? [] : { name, start })
    .sort((a, b) => a.start - b.start)
    .flatMap(({ name, start }) => Segment.find(join(folder, name), start, crcOfStream) ?? []);
}

/** A new file survives a power failure only once its folder is synced (fsync(2)). */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
