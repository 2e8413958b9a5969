/** The durable queue in a folder: a small database, and a folder of segment files for each stream. */
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  statfsSync,
  statSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { LONGEST_WRITE } from "../message/message.ts";
import { newStream } from "../message/protocol.ts";
import { checkName } from "./disk_cursor.ts";
import { DiskLog, type DiskLogContext, DiskSpace } from "./disk_log.ts";
import { explain } from "./file_errors.ts";
import { syncFolder } from "./stream_folder.ts";
import { type Damage, type Log, type Queue, QueueError } from "./queue.ts";
import { QueueState } from "./state.ts";
import { DATABASE, LOCK, type LogState, type RangeState, storedStreams } from "./state_database.ts";

/**
 * When appended batches are safe from a power failure. In every mode they survive a kill of the
 * process.
 * - `always`: once `append` has resolved;
 * - `intervalMs`: this long after `append` has resolved;
 * - `off`: never.
 */
export type SyncMode = "always" | { intervalMs: number } | "off";

export interface DiskQueueOptions {
  /** Default: always. */
  sync?: SyncMode;
  /** Limit for the bytes of all segment files, above which `append` rejects; default: no limit. */
  maxBytes?: number;
  /**
   * How long messages are kept, as with `serve`'s `retainMs`; ms, default: no limit. Segments are deleted
   * as wholes: a new one begins after a quarter of this time, and messages are deleted that much late at
   * most.
   */
  retainMs?: number;
  /** Called for everything damaged that is found. */
  onDamage?: (damage: Damage) => void;
}

/** Segments are this long, or an eighth of what the queue may hold. */
const SEGMENT_BYTES = 64 << 20;
const SEGMENTS_AT_LEAST = 8;
const LEAST_SEGMENT = 65_536;
/** Share of the time for which messages are kept, after which a segment gets no more. */
const SEGMENT_AGE = 1 / 4;

/**
 * Opens the queue in a folder, which is created if it does not exist; its parent must exist. Deno needs
 * --allow-read and --allow-write for the folder, and --allow-read for this program's own directory, to
 * start the worker thread. Rejects with a QueueError if another process has it open, if it is no queue,
 * is damaged, or cannot be written.
 */
export async function openDiskQueue(
  folder: string,
  { sync = "always", maxBytes = Infinity, retainMs = Infinity, onDamage = () => {} }:
    DiskQueueOptions = {},
): Promise<Queue> {
  if (typeof sync === "object" && !(sync.intervalMs > 0 && sync.intervalMs < 2 ** 31)) {
    throw new RangeError(`intervalMs must be from 1 to 2^31 - 1, is ${sync.intervalMs}`);
  }
  if (!(maxBytes > 0)) throw new RangeError(`maxBytes must be above zero, is ${maxBytes}`);
  if (!(retainMs > 0)) throw new RangeError(`retainMs must be above zero, is ${retainMs}`);
  identify(folder);
  const unclaim = claim(folder);
  surviveSizeLimit();
  try {
    const queue = new DiskQueue(folder, { sync, maxBytes, retainMs, onDamage }, unclaim);
    await queue.open();
    return queue;
  } catch (error) {
    unclaim();
    throw explain(error, `cannot open the queue ${folder}`);
  }
}

let handlesSizeLimit = false;

/**
 * With a handler for SIGXFSZ a write above the file-size limit fails with an error; without it the
 * signal ends the process on Deno.
 */
function surviveSizeLimit(): void {
  if (handlesSizeLimit) return;
  handlesSizeLimit = true;
  try {
    process.on("SIGXFSZ", () => {});
  } catch {
    // Windows has no such signal.
  }
}

/** Folders that this process has open. Global, as bundles contain several copies of this module. */
const FOLDERS = Symbol.for("speedlimit.queue.folders");
const shared = globalThis as { [FOLDERS]?: Set<string> };
const opened: Set<string> = shared[FOLDERS] ??= new Set();

/** Records that this process has a queue open, until the returned function is called. */
function claim(folder: string): () => void {
  const path = canonical(folder);
  opened.add(path);
  return () => opened.delete(path);
}

/** The real path of a folder, which need not exist. */
function canonical(folder: string): string {
  try {
    return realpathSync(folder);
  } catch {
    return resolve(folder);
  }
}

/**
 * Whether there is a queue in this folder, or nothing yet. Changes nothing. Throws a QueueError if there
 * is something else, or a queue that this process has open already.
 */
export function identify(folder: string): "queue" | "nothing" {
  if (opened.has(canonical(folder))) {
    throw new QueueError(`the queue ${folder} is already open in this process`);
  }
  try {
    const stat = statSync(folder, { throwIfNoEntry: false });
    if (stat === undefined) {
      if (lstatSync(folder, { throwIfNoEntry: false }) !== undefined) {
        throw new QueueError(`${folder} is a symbolic link to something that does not exist`);
      }
      const parent = dirname(resolve(folder));
      if (isThere(parent)) return "nothing";
      throw new QueueError(`cannot create the queue ${folder}: there is no folder ${parent}`);
    }
    if (stat.isFile()) throw new QueueError(describeFile(folder));
    if (!stat.isDirectory()) throw new QueueError(`${folder} is not a folder`);
    const names = readdirSync(folder);
    if (names.includes(DATABASE) || storedStreams(folder).length > 0) return "queue";
    // A kill while the queue was created can leave only the lock.
    if (names.every((name) => name.startsWith(LOCK))) return "nothing";
    throw new QueueError(`${folder} is a folder with other files, not a queue; it was not changed`);
  } catch (error) {
    throw explain(error, `cannot read the queue ${folder}`);
  }
}

/** Throws a QueueError unless there is a queue in this folder. */
export function requireQueue(folder: string): void {
  if (identify(folder) !== "nothing") return;
  throw new QueueError(
    existsSync(join(folder, LOCK))
      ? `the queue ${folder} is not made yet: a server has just begun to, or was killed then`
      : `there is no queue ${folder}`,
  );
}

/** Whether it exists; true where Deno has permission for the queue alone: making its folder tells then. */
function isThere(folder: string): boolean {
  try {
    return existsSync(folder);
  } catch (error) {
    if ((error as Error).name === "NotCapable") return true;
    throw error;
  }
}

/** What is wrong with a file in the place of the queue's folder. */
function describeFile(file: string): string {
  if (!isFirstFormat(file)) return `${file} is a file; a queue is a folder; it was not changed`;
  return `${file} is a queue of an earlier version, which was one file; it was not changed. ` +
    `Save its messages with \`queue export ${file}\`, and name a new folder`;
}

/** Whether this file is a queue of the first version: one SQLite database. */
export function isFirstFormat(file: string): boolean {
  const header = new Uint8Array(100);
  const fd = openSync(file, "r");
  try {
    readSync(fd, header, 0, header.length, 0);
  } finally {
    closeSync(fd);
  }
  // SQLite's file format, 1.3: application_id at 68.
  return new TextDecoder("latin1").decode(header.subarray(0, 16)) === "SQLite format 3\0" &&
    new TextDecoder("latin1").decode(header.subarray(68, 72)) === "splq";
}

/** Without it a power failure can remove the folder. Deno may have no permission for its parent. */
async function syncParent(folder: string): Promise<void> {
  try {
    await syncFolder(dirname(resolve(folder)));
  } catch (error) {
    if ((error as Error).name !== "NotCapable") throw error;
  }
}

class DiskQueue implements Queue {
  readonly syncs = { count: 0, seconds: 0, longestSeconds: 0 };
  readonly #folder: string;
  /** The folder was not there before. */
  readonly #created: boolean;
  readonly #state: QueueState;
  readonly #context: DiskLogContext;
  readonly #logs: Map<string, DiskLog> = new Map();
  readonly #opening: Map<string, Promise<DiskLog>> = new Map();
  readonly #onClosed: () => void;
  /** What was stored when it was closed. */
  #closed: RangeState[] = [];
  #failed: Error | undefined;
  #closing: Promise<void> | undefined;

  constructor(
    folder: string,
    { sync, maxBytes, retainMs, onDamage }: Required<DiskQueueOptions>,
    onClosed: () => void,
  ) {
    this.#folder = folder;
    this.#onClosed = onClosed;
    this.#created = statSync(folder, { throwIfNoEntry: false }) === undefined;
    if (this.#created) mkdirSync(folder, 0o700);
    const onFailed = (error: Error) => this.#failed ??= error;
    const onSync = (seconds: number) => {
      this.syncs.count++;
      this.syncs.seconds += seconds;
      this.syncs.longestSeconds = Math.max(this.syncs.longestSeconds, seconds);
    };
    this.#state = new QueueState(folder, sync !== "off", onFailed, onSync);
    const segmentBytes = Math.max(
      LEAST_SEGMENT,
      Math.min(SEGMENT_BYTES, Math.floor(maxBytes / SEGMENTS_AT_LEAST)),
    );
    this.#context = {
      folder,
      state: this.#state,
      space: new DiskSpace(maxBytes),
      sync: sync === "always" ? "always" : sync === "off" ? "never" : "later",
      syncEveryMs: typeof sync === "object" ? sync.intervalMs : 0,
      segmentBytes,
      segmentAgeMs: retainMs * SEGMENT_AGE,
      largestBatch: Math.min(LONGEST_WRITE, segmentBytes),
      onDamage,
      onSync,
      onFailed,
    };
  }

  async open(): Promise<void> {
    try {
      await this.#open();
    } catch (error) {
      await Promise.allSettled(this.logs.map((log) => log.close()));
      // Nothing was stored: what was there before must still be there.
      for (const range of this.#closed) this.#state.putRange(range);
      await this.#state.close().catch(() => {});
      throw error;
    }
  }

  async #open(): Promise<void> {
    const { logs, cursors, ranges } = await this.#state.opened;
    this.#closed = ranges.filter(({ what }) => what === "closed");
    await syncFolder(this.#folder);
    if (this.#created) await syncParent(this.#folder);
    for (const row of logs) {
      const log = new DiskLog(this.#context, row);
      this.#logs.set(row.key, log);
      await log.recover(
        cursors.filter(({ key }) => key === row.key),
        ranges.filter(({ key }) => key === row.key),
      );
    }
  }

  get logs(): readonly DiskLog[] {
    return [...this.#logs.values()];
  }

  get diskFree(): number | undefined {
    try {
      const { bavail, bsize } = statfsSync(this.#folder);
      return bavail * bsize;
    } catch {
      return undefined;
    }
  }

  async openLog(key: string, start = 0): Promise<Log> {
    if (this.#failed !== undefined) throw this.#failed;
    if (this.#closing !== undefined) throw new QueueError(`the queue ${this.#folder} is closed`);
    checkName(key);
    const known = this.#logs.get(key);
    if (known !== undefined) return known;
    let opening = this.#opening.get(key);
    if (opening === undefined) {
      opening = this.#createLog(key, start).finally(() => this.#opening.delete(key));
      this.#opening.set(key, opening);
    }
    return await opening;
  }

  async #createLog(key: string, start: number): Promise<DiskLog> {
    const stream = newStream();
    const row: LogState = {
      key,
      stream,
      epoch: 1,
      reserved: start,
      originStream: null,
      shift: 0,
      since: 0,
    };
    const log = new DiskLog(this.#context, row);
    await log.recover([]);
    log.end = log.durableEnd = start;
    await syncFolder(this.#folder);
    this.#state.putLog(row);
    await this.#state.recorded();
    this.#logs.set(key, log);
    return log;
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    try {
      for (const log of this.logs) {
        await log.close();
        const { key, start, end } = log;
        this.#state.putRange({ key, what: "closed", start, end });
      }
      await this.#state.close();
      if (this.#failed !== undefined) throw this.#failed;
    } finally {
      this.#onClosed();
    }
  }
}
