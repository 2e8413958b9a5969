/** The disk that bench/spill.ts measures: a directory on it, and its speed as dd measures it. */
import { mkdtempSync, readdirSync, rmSync, statfsSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { interrupted } from "../src/cli/program.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { Program } from "./programs.ts";

/** A program that hangs is killed this long after it should have ended. Seconds. */
export const PATIENCE = 30;
/**
 * Pause after a run's files are deleted. On a thin-provisioned disk ext4 with `discard` returns blocks
 * some 2 s after a delete. A write to blocks that are still allocated is several times as fast as one
 * to new blocks (2.9 GB/s, not 0.7), and would distort the next run.
 */
const SETTLE_SECONDS = 4;
/** After a run that wrote less than this there is no pause. Bytes. */
const LITTLE = 16 << 20;

/** A temporary directory, deleted when this process exits. */
export class Folder {
  readonly path: string;
  /** Pause after each run. */
  readonly settleSeconds: number;

  /** Throws an Error if the parent is on a file system in memory. */
  constructor(parent: string, { settle }: { settle: boolean }) {
    this.settleSeconds = settle ? SETTLE_SECONDS : 0;
    if (IN_MEMORY.has(statfsSync(parent).type)) {
      throw new Error(
        `cannot measure a disk: ${parent} is in memory; choose another directory with --folder`,
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

  /** Deletes a file or folder that a run wrote, and waits until the disk has freed its blocks. */
  async clear(name: string): Promise<void> {
    const bytes = bytesIn(this.file(name));
    rmSync(this.file(name), { recursive: true, force: true });
    await new Program(["sync", "-f", this.path], { seconds: PATIENCE }).ended();
    if (bytes > LITTLE) await pause(this.settleSeconds * 1000);
  }
}

/** The files in a folder, and in its folders; the file itself, where it is one. */
function filesIn(path: string): string[] {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat?.isDirectory() !== true) return stat === undefined ? [] : [path];
  return readdirSync(path).flatMap((name) => filesIn(join(path, name)));
}

/** Length of a file, or of all files in a folder; 0 if it does not exist. */
export function bytesIn(path: string): number {
  // A running server may delete a file meanwhile.
  return filesIn(path).reduce(
    (sum, file) => sum + (statSync(file, { throwIfNoEntry: false })?.size ?? 0),
    0,
  );
}

/** f_type of tmpfs and ramfs (linux/magic.h). */
const IN_MEMORY: ReadonlySet<number> = new Set([0x01021994, 0x858458f6]);

/** Like sleep; rejects on Ctrl-C. */
export async function pause(ms: number): Promise<void> {
  await sleep(ms);
  interrupted().throwIfAborted();
}

/** The rate at which dd writes to stable storage; bytes a second. */
export async function runDd(folder: Folder, mebibytes: number): Promise<number> {
  const file = folder.file("dd");
  const words = [`of=${file}`, "bs=1M", `count=${mebibytes}`, "conv=fdatasync"];
  const rate = await dd(["if=/dev/zero", ...words], PATIENCE + mebibytes / 20);
  await folder.clear("dd");
  return rate;
}

/** The rate at which dd reads files that are not in the page cache, before or after; bytes a second. */
export async function runColdRead(path: string): Promise<number> {
  let bytes = 0;
  let took = 0;
  for (const file of filesIn(path)) {
    const { size } = statSync(file);
    // What is short says nothing of the disk.
    if (size < 1 << 20) continue;
    await dropCache(file);
    const rate = await dd([`if=${file}`, "of=/dev/null", "bs=1M"], PATIENCE + size / 20e6);
    await dropCache(file);
    bytes += size;
    took += size / rate;
  }
  return bytes / took;
}

/** Writes a file to the disk completely and removes it from the page cache. */
async function dropCache(file: string): Promise<void> {
  const words = [`of=${file}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"];
  await new Program(["dd", ...words], { seconds: PATIENCE }).ended();
}

async function dd(words: readonly string[], seconds: number): Promise<number> {
  const { stderr } = await new Program(["env", "LC_ALL=C", "dd", ...words], { seconds }).ended();
  const [, bytes, took] = /^(\d+) bytes.* copied, ([\d.e+-]+) s,/m.exec(stderr) ?? [];
  if (took === undefined) throw new Error(`dd printed no time: ${stderr}`);
  return Number(bytes) / Number(took);
}
