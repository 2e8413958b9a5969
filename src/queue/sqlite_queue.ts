/** The durable queue in one SQLite file, which a thread of its own writes and reads. */
import process from "node:process";
import type { Worker } from "node:worker_threads";
import { type Batch, type Damage, type Queue, QueueError, type QueueReader } from "./queue.ts";
import { fromSent, giveBuffers, ownBytes, spareBuffer, toSent } from "./buffers.ts";
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
  /** Bytes of stored batches, of all readers, beyond which append rejects; default: no limit. */
  maxBytes?: number;
  /** Called for each batch that had to be set aside. */
  onDamage?: (damage: Damage) => void;
}

/** How long releases are gathered. */
const RELEASE_MS = 50;
/** A name is for people, and on one line. */
const NAME = /^[^\p{Cc}]{1,200}$/u;

/**
 * Opens a queue's file, or makes it. Deno needs --allow-read and --allow-write for the file, and
 * --allow-read for this program's own folder, of which the thread is started. Rejects with a QueueError: the file is
 * open in another process, is none of ours or damaged, cannot be written, or its folder is not there.
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
  outliveSizeLimit();
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

let outliving = false;

/** A file-size limit is an error of the write then, and not the end of the process, as it is on Deno. */
function outliveSizeLimit(): void {
  if (outliving) return;
  outliving = true;
  try {
    process.on("SIGXFSZ", () => {});
  } catch {
    // Windows has no such signal.
  }
}

/** What is asked of the thread, without its number. */
type Question = Request extends infer R ? R extends Request ? Omit<R, "id"> : never : never;

interface Waiting {
  resolve: (answer: Answer) => void;
  reject: (error: Error) => void;
}

class SqliteQueue implements Queue {
  /** The thread has the file. */
  readonly ready: Promise<void>;
  readonly #file: string;
  readonly #worker: Worker;
  readonly #onDamage: (damage: Damage) => void;
  readonly #onClosed: () => void;
  readonly #start: PromiseWithResolvers<void> = Promise.withResolvers();
  readonly #end: PromiseWithResolvers<void> = Promise.withResolvers();
  readonly #readers: Map<number, SqliteReader> = new Map();
  readonly #waiting: Map<number, Waiting> = new Map();
  #lastId = 0;
  #closing: Promise<void> | undefined;
  /** Why nothing can be asked any more. */
  #over: Error | undefined;
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
    // Whoever closes hears of it.
    this.#end.promise.catch(() => {});
    const failed = (what: string) => this.#finish(new QueueError(`${file}: its thread ${what}`));
    worker.on("message", (report: Report) => this.#receive(report));
    worker.on("error", (error) => failed(`failed: ${(error as Error).message}`));
    worker.on("messageerror", (error) => failed(`said what cannot be read: ${error.message}`));
    worker.on("exit", () => failed("ended"));
  }

  get names(): string[] {
    return [...this.#readers.values()].map(({ name }) => name);
  }

  async open(name: string): Promise<QueueReader> {
    if (!NAME.test(name)) {
      const say = "must be one line of 1 to 200 characters";
      throw new QueueError(`the reader's name ${JSON.stringify(name.slice(0, 60))} ${say}`);
    }
    const { reader } = await this.ask({ kind: "open", name });
    return this.#readers.get(reader!)!;
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    for (const reader of this.#readers.values()) reader.sendRelease();
    if (this.#over === undefined) {
      this.#worker.ref();
      this.tell({ kind: "close" });
      this.#over = new QueueError(`the queue ${this.#file} is closed`);
    }
    await this.#end.promise;
  }

  /** Asks the thread; rejects with what it failed with. */
  ask(question: Question, transfer: ArrayBuffer[] = []): Promise<Answer> {
    if (this.#over !== undefined) return Promise.reject(this.#over);
    // What is under way keeps the process alive; an idle queue does not.
    if (this.#waiting.size === 0) this.#worker.ref();
    const id = ++this.#lastId;
    const { promise, ...settle } = Promise.withResolvers<Answer>();
    this.#waiting.set(id, settle);
    this.#worker.postMessage({ ...question, id }, transfer);
    return promise;
  }

  /** Tells the thread something that has no answer. */
  tell(what: Question): void {
    if (this.#over === undefined) this.#worker.postMessage({ ...what, id: 0 });
  }

  #receive({ answers, readers, damages, buffers, closed }: Report): void {
    giveBuffers(buffers);
    for (const row of readers) {
      const known = this.#readers.get(row.id);
      if (known === undefined) this.#readers.set(row.id, new SqliteReader(this, row));
      else known.row = row;
    }
    for (const { id, ...answer } of answers) {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (answer.failure === undefined) waiting?.resolve({ id, ...answer });
      else waiting?.reject(fromFailure(answer.failure));
    }
    if (this.#waiting.size === 0 && this.#closing === undefined) this.#worker.unref();
    if (closed !== undefined) this.#finish(closed === true ? undefined : fromFailure(closed));
    else this.#start.resolve();
    for (const damage of damages) this.#onDamage(damage);
  }

  /** The thread has closed the file, or can do no more. */
  #finish(error: Error | undefined): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#over ??= error;
    const over = error ?? this.#over!;
    for (const { reject } of this.#waiting.values()) reject(over);
    this.#waiting.clear();
    this.#onClosed();
    void this.#worker.terminate().finally(() => {
      if (error === undefined) this.#end.resolve();
      else this.#end.reject(error);
      this.#start.reject(over);
    });
  }
}

class SqliteReader implements QueueReader {
  /** As the thread told it last. */
  row: ReaderRow;
  readonly #queue: SqliteQueue;
  /** The last release, whether or not it is written. */
  #released: { offset: number; position: number } | undefined;
  #releaseTimer: ReturnType<typeof setTimeout> | undefined;
  /** Appends that have not settled. */
  #underWay = 0;
  /** One of them has failed, and with it all that come until they have settled. */
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
      throw new QueueError(`a batch's ${what} must be a whole number from 0 on, is ${number}`);
    }
    if (bytes.length === 0) throw new QueueError("a batch must have at least 1 byte, has none");
    // What is released first makes room for it.
    this.sendRelease();
    const own = toSent(ownBytes(bytes));
    const batch = { offset, bytes: own, messages, position };
    const change = { kind: "append", reader: this.row.id, attempt: this.#attempt } as const;
    this.#underWay++;
    try {
      await this.#queue.ask({ ...change, ...batch }, [own.buffer]);
    } catch (error) {
      this.#failed = true;
      throw error;
    } finally {
      this.#underWay--;
      if (this.#failed && this.#underWay === 0) {
        this.#failed = false;
        this.#attempt++;
      }
    }
  }

  async read(offset?: number): Promise<Batch | null> {
    const into = spareBuffer();
    const transfer = into === undefined ? [] : [into];
    const question = { kind: "read", reader: this.row.id, offset, into } as const;
    const { batch } = await this.#queue.ask(question, transfer);
    return batch ? { ...batch, bytes: fromSent(batch.bytes) } : null;
  }

  release(offset: number, position: number): void {
    if (offset <= this.delivered) return;
    this.#released = { offset, position };
    this.#releaseTimer ??= setTimeout(() => this.sendRelease(), RELEASE_MS);
  }

  /** What was gathered goes to the thread. */
  sendRelease(): void {
    if (this.#releaseTimer === undefined) return;
    clearTimeout(this.#releaseTimer);
    this.#releaseTimer = undefined;
    this.#queue.tell({ kind: "release", reader: this.row.id, ...this.#released! });
  }

  async reserve(offset: number): Promise<void> {
    await this.#queue.ask({ kind: "reserve", reader: this.row.id, offset });
  }
}
