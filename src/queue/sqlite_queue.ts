/** The durable queue in one SQLite file; a worker thread writes and reads the file. */
import process from "node:process";
import type { Worker } from "node:worker_threads";
import { type Batch, type Damage, type Queue, QueueError, type QueueReader } from "./queue.ts";
import { fromPosted, returnBuffers, spareBuffer, toPosted, transferableBytes } from "./buffers.ts";
import { claim, identify, type SyncMode } from "./sqlite_file.ts";
import type { ReaderRow } from "./sqlite_reader.ts";
import {
  type Answer,
  fromFailure,
  type Report,
  type Request,
  startWorker,
} from "./sqlite_worker.ts";

export type { SyncMode } from "./sqlite_file.ts";
export { takeBuffer } from "./buffers.ts";

export interface SqliteQueueOptions {
  /** Default: always. */
  sync?: SyncMode;
  /** Limit for the stored bytes of all readers, above which `append` rejects; default: no limit. */
  maxBytes?: number;
  /** Called for each damaged batch that was set aside. */
  onDamage?: (damage: Damage) => void;
}

/** How long releases are gathered before they are written. */
const RELEASE_MS = 50;
/** Names are printed: no control characters. */
const NAME = /^[^\p{Cc}]{1,200}$/u;

/**
 * Opens a queue's file; creates it if it does not exist. Deno needs --allow-read and --allow-write
 * for the file, and --allow-read for this program's own directory, to start the worker thread.
 * Rejects with a QueueError if the file is open in another process, is not a queue, is damaged or
 * cannot be written, or if its directory does not exist.
 */
export async function openSqliteQueue(
  file: string,
  { sync = "always", maxBytes = Infinity, onDamage = () => {} }: SqliteQueueOptions = {},
): Promise<Queue> {
  if (typeof sync === "object" && !(sync.intervalMs > 0 && sync.intervalMs < 2 ** 31)) {
    throw new RangeError(`intervalMs must be from 1 to 2^31 - 1, is ${sync.intervalMs}`);
  }
  if (!(maxBytes > 0)) throw new RangeError(`maxBytes must be above zero, is ${maxBytes}`);
  identify(file);
  const unclaim = claim(file);
  surviveSizeLimit();
  try {
    const worker = startWorker(file, { sync, maxBytes });
    const queue = new SqliteQueue(file, worker, onDamage, unclaim);
    await queue.ready;
    return queue;
  } catch (error) {
    unclaim();
    throw error;
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

/** A request to the worker thread, without its id. */
type RequestBody = Request extends infer R ? R extends Request ? Omit<R, "id"> : never : never;

interface PendingRequest {
  resolve: (answer: Answer) => void;
  reject: (error: Error) => void;
}

class SqliteQueue implements Queue {
  /** Resolves once the worker thread has opened the file. */
  readonly ready: Promise<void>;
  readonly #file: string;
  readonly #worker: Worker;
  readonly #onDamage: (damage: Damage) => void;
  readonly #onClosed: () => void;
  readonly #start: PromiseWithResolvers<void> = Promise.withResolvers();
  readonly #end: PromiseWithResolvers<void> = Promise.withResolvers();
  readonly #readers: Map<number, SqliteReader> = new Map();
  readonly #pending: Map<number, PendingRequest> = new Map();
  #lastId = 0;
  #closing: Promise<void> | undefined;
  /** Why no more requests are possible. */
  #endReason: Error | undefined;
  #finished = false;

  constructor(
    file: string,
    worker: Worker,
    onDamage: (damage: Damage) => void,
    onClosed: () => void,
  ) {
    this.#file = file;
    this.#worker = worker;
    this.#onDamage = onDamage;
    this.#onClosed = onClosed;
    this.ready = this.#start.promise;
    // `close` reports the error; it may never be called.
    this.#end.promise.catch(() => {});
    const failed = (what: string) =>
      this.#finish(new QueueError(`${file}: its worker thread ${what}`));
    worker.on("message", (report: Report) => this.#receive(report));
    worker.on("error", (error) => failed(`failed: ${(error as Error).message}`));
    worker.on("messageerror", (error) => failed(`sent an unreadable message: ${error.message}`));
    worker.on("exit", () => failed("ended unexpectedly"));
  }

  get names(): string[] {
    return [...this.#readers.values()].map(({ name }) => name);
  }

  async open(name: string): Promise<QueueReader> {
    if (!NAME.test(name)) {
      const rule = "must be one line of 1 to 200 characters";
      throw new QueueError(`the reader's name ${JSON.stringify(name.slice(0, 60))} ${rule}`);
    }
    const { reader } = await this.request({ kind: "open", name });
    return this.#readers.get(reader!)!;
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    for (const reader of this.#readers.values()) reader.sendRelease();
    if (this.#endReason === undefined) {
      this.#worker.ref();
      this.notify({ kind: "close" });
      this.#endReason = new QueueError(`the queue ${this.#file} is closed`);
    }
    await this.#end.promise;
  }

  /** Sends a request to the worker thread; rejects with the error that the thread reports. */
  request(body: RequestBody, transfer: ArrayBuffer[] = []): Promise<Answer> {
    if (this.#endReason !== undefined) return Promise.reject(this.#endReason);
    // Pending requests keep the process alive; an idle queue does not.
    if (this.#pending.size === 0) this.#worker.ref();
    const id = ++this.#lastId;
    const { promise, ...settle } = Promise.withResolvers<Answer>();
    this.#pending.set(id, settle);
    this.#worker.postMessage({ ...body, id }, transfer);
    return promise;
  }

  /** Sends a request that has no answer. */
  notify(body: RequestBody): void {
    if (this.#endReason === undefined) this.#worker.postMessage({ ...body, id: 0 });
  }

  #receive({ answers, readers, damages, buffers, closed }: Report): void {
    returnBuffers(buffers);
    for (const row of readers) {
      const known = this.#readers.get(row.id);
      if (known === undefined) this.#readers.set(row.id, new SqliteReader(this, row));
      else known.row = row;
    }
    for (const { id, ...answer } of answers) {
      const pending = this.#pending.get(id);
      this.#pending.delete(id);
      if (answer.failure === undefined) pending?.resolve({ id, ...answer });
      else pending?.reject(fromFailure(answer.failure));
    }
    if (this.#pending.size === 0 && this.#closing === undefined) this.#worker.unref();
    if (closed !== undefined) this.#finish(closed === true ? undefined : fromFailure(closed));
    else this.#start.resolve();
    for (const damage of damages) this.#onDamage(damage);
  }

  /** The worker thread has closed the file (no error), or has failed. */
  #finish(error: Error | undefined): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#endReason ??= error;
    const reason = error ?? this.#endReason!;
    for (const { reject } of this.#pending.values()) reject(reason);
    this.#pending.clear();
    this.#onClosed();
    void this.#worker.terminate().finally(() => {
      if (error === undefined) this.#end.resolve();
      else this.#end.reject(error);
      this.#start.reject(reason);
    });
  }
}

class SqliteReader implements QueueReader {
  /** As the worker thread last reported it. */
  row: ReaderRow;
  readonly #queue: SqliteQueue;
  /** The last release, written or not. */
  #released: { offset: number; position: number } | undefined;
  #releaseTimer: ReturnType<typeof setTimeout> | undefined;
  /** Appends that have not settled. */
  #appends = 0;
  /** One of them has failed: all of the same attempt fail, until all have settled. */
  #failed = false;
  #attempt = 1;

  constructor(queue: SqliteQueue, row: ReaderRow) {
    this.#queue = queue;
    this.row = row;
  }

  get name(): string {
    return this.row.name;
  }

  get stream(): string {
    return this.row.stream;
  }

  get delivered(): number {
    return Math.max(this.row.delivered, this.#released?.offset ?? 0);
  }

  get deliveredPosition(): number {
    const released = this.#released;
    return released === undefined || released.offset <= this.row.delivered
      ? this.row.deliveredPosition
      : released.position;
  }

  get tail(): number {
    return this.#empty ? this.delivered : this.row.tail;
  }

  get tailPosition(): number {
    return this.#empty ? this.deliveredPosition : this.row.tailPosition;
  }

  get reserved(): number {
    return this.row.reserved;
  }

  get stored(): { batches: number; bytes: number; messages: number } {
    if (this.#empty) return { batches: 0, bytes: 0, messages: 0 };
    const { batches, bytes, messages } = this.row;
    return { batches, bytes, messages };
  }

  get #empty(): boolean {
    return this.row.batches === 0 || this.row.tail <= this.delivered;
  }

  async append({ offset, bytes, messages, position }: Batch): Promise<void> {
    for (const [what, number] of Object.entries({ offset, messages, position })) {
      if (Number.isSafeInteger(number) && number >= 0) continue;
      throw new QueueError(`a batch's ${what} must be a whole number of at least 0, is ${number}`);
    }
    if (bytes.length === 0) throw new QueueError("a batch must have at least 1 byte, has none");
    // First, as the released batches make room for this one.
    this.sendRelease();
    const posted = toPosted(transferableBytes(bytes));
    const batch = { offset, bytes: posted, messages, position };
    const change = { kind: "append", reader: this.row.id, attempt: this.#attempt } as const;
    this.#appends++;
    try {
      await this.#queue.request({ ...change, ...batch }, [posted.buffer]);
    } catch (error) {
      this.#failed = true;
      throw error;
    } finally {
      this.#appends--;
      if (this.#failed && this.#appends === 0) {
        this.#failed = false;
        this.#attempt++;
      }
    }
  }

  async read(offset?: number): Promise<Batch | null> {
    const into = spareBuffer();
    const transfer = into === undefined ? [] : [into];
    const body = { kind: "read", reader: this.row.id, offset, into } as const;
    const { batch } = await this.#queue.request(body, transfer);
    return batch ? { ...batch, bytes: fromPosted(batch.bytes) } : null;
  }

  release(offset: number, position: number): void {
    if (offset <= this.delivered) return;
    this.#released = { offset, position };
    this.#releaseTimer ??= setTimeout(() => this.sendRelease(), RELEASE_MS);
  }

  /** Sends the last release to the worker thread now. */
  sendRelease(): void {
    if (this.#releaseTimer === undefined) return;
    clearTimeout(this.#releaseTimer);
    this.#releaseTimer = undefined;
    this.#queue.notify({ kind: "release", reader: this.row.id, ...this.#released! });
  }

  async reserve(offset: number): Promise<void> {
    await this.#queue.request({ kind: "reserve", reader: this.row.id, offset });
  }
}
