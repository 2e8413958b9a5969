/**
 * The thread in which a queue's store does its work, and what is said between the two.
 *
 * The thread runs this very module, found by its own address: in a bundle that is the bundle, of
 * which no line after this module's may run in it. So in the thread its evaluation never ends.
 */
import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { type Batch, type Damage, QueueError, QueueFull } from "./queue.ts";
import { fromSent, type SentBytes, toSent } from "./buffers.ts";
import { explain, loadSqlite } from "./sqlite_file.ts";
import type { ReaderRow } from "./sqlite_reader.ts";
import { type Change, SqliteStore, type StoreOptions } from "./sqlite_store.ts";

/** A batch, or a message with one, on its way. */
export type Sent<T extends Batch> = T extends Batch ? Omit<T, "bytes"> & { bytes: SentBytes }
  : never;

type Append = Change & { kind: "append" };

/** No `offset`: what is behind the last one. The bytes may come in `into`. */
interface Read {
  kind: "read";
  reader: number;
  offset?: number | undefined;
  into?: ArrayBuffer | undefined;
}

/** To the thread; the answer has the same `id`, 0: none is wanted. */
export type Request =
  & { id: number }
  & (
    | Sent<Append>
    | Exclude<Change, Append>
    | Read
    | { kind: "close" }
  );

/** A change that came in a request. */
type Asked = Change & { id: number };

/** An error on its way between threads. */
export interface Failure {
  message: string;
  /** Of a QueueFull; undefined: a QueueError. */
  reason?: "max" | "disk";
}

export interface Answer {
  id: number;
  failure?: Failure;
  /** To `read`. */
  batch?: Sent<Batch> | null;
  /** To `open`. */
  reader?: number;
}

/** From the thread; the first one says that it has the file, or why not. */
export interface Report {
  answers: Answer[];
  /** The readers that may have changed. */
  readers: ReaderRow[];
  damages: Damage[];
  /** To be used again: of batches that were appended, and those that a read did not need. */
  buffers: ArrayBuffer[];
  /** Nothing more comes. */
  closed?: Failure | true;
}

interface WorkerData {
  speedlimitQueue: { file: string; options: StoreOptions };
}

/** Starts the thread for a file. Throws a QueueError when this program may not. */
export function startWorker(file: string, options: StoreOptions): Worker {
  const own = new URL(import.meta.url);
  try {
    if (own.protocol === "file:") statSync(fileURLToPath(own));
  } catch (cause) {
    // Deno says so too, but on standard error. What a compiled program runs is in no file at all.
    if ((cause as Error).name === "NotCapable") {
      const folder = fileURLToPath(new URL(".", own));
      throw new QueueError(
        `the queue's thread may not read its own program: needs --allow-read=${folder}`,
        { cause },
      );
    }
  }
  const workerData: WorkerData = { speedlimitQueue: { file, options } };
  return new Worker(own, { workerData, env: {} });
}

/** Bytes that one transaction takes. */
const MOST_GATHERED = 32 << 20;
/** So many need not wait for the interval. */
const ENOUGH_GATHERED = 2 << 20;
/** What was delivered is written after so long, however long appends are gathered. */
const RELEASE_MS = 100;
/**
 * Between two steps of work that nobody waits for; while the thread has other work they take a tenth
 * of its time at most.
 */
const TIDY_MS = 20;
const TIDY_PAUSE = 9;
/** When a release that found no room on the disk is tried again. */
const RETRY_MS = 250;

class StoreThread {
  readonly #store: SqliteStore;
  readonly #file: string;
  readonly #gatherMs: number;
  readonly #send: (report: Report, transfer: ArrayBuffer[]) => void;
  readonly #inbox: Exclude<Request, Read | { kind: "close" }>[] = [];
  /** Bytes in the inbox. */
  #waiting = 0;
  /** By reader: the end of the batch that was read last. */
  readonly #readEnds: Map<number, number> = new Map();
  #turn: ReturnType<typeof setImmediate> | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** When the timer is due. */
  #dueMs = Infinity;
  /** Something was asked since the last step of tidying. */
  #busy = false;
  #tidyTimer: ReturnType<typeof setTimeout> | undefined;
  #closing: Request | undefined;

  constructor(
    store: SqliteStore,
    file: string,
    { sync }: StoreOptions,
    send: (report: Report, transfer: ArrayBuffer[]) => void,
  ) {
    this.#store = store;
    this.#file = file;
    this.#gatherMs = typeof sync === "object" ? sync.intervalMs : 0;
    this.#send = send;
    this.#report([], this.#readerIds());
    this.#tidyLater();
  }

  take(request: Request): void {
    this.#busy = true;
    // Those who read wait for no disk, and see what is stored already.
    if (request.kind === "read") return this.#read(request);
    if (request.kind === "close") this.#closing = request;
    else this.#inbox.push(request);
    if (request.kind === "append") this.#waiting += request.bytes.length;
    const gathers = request.kind === "append" || request.kind === "release";
    if (!gathers || this.#gatherMs === 0 || this.#waiting >= ENOUGH_GATHERED) this.#soon();
    else this.#within(request.kind === "append" ? this.#gatherMs : RELEASE_MS);
  }

  #within(ms: number): void {
    const dueMs = performance.now() + Math.min(ms, this.#gatherMs);
    if (dueMs >= this.#dueMs) return;
    this.#dueMs = dueMs;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#soon(), dueMs - performance.now());
  }

  /** Once all that has come so far is in the inbox. */
  #soon(): void {
    this.#turn ??= setImmediate(() => this.#run());
  }

  #run(): void {
    this.#turn = undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#dueMs = Infinity;
    if (this.#inbox.length > 0) this.#change(this.#takeChanges());
    if (this.#inbox.length > 0) this.#soon();
    else if (this.#closing !== undefined) this.#close();
  }

  #takeChanges(): Asked[] {
    const changes: Asked[] = [];
    let bytes = 0;
    for (const request of this.#inbox) {
      if (request.kind === "append") bytes += request.bytes.length;
      if (changes.length > 0 && bytes > MOST_GATHERED) break;
      changes.push(
        request.kind === "append" ? { ...request, bytes: fromSent(request.bytes) } : request,
      );
    }
    this.#inbox.splice(0, changes.length);
    for (const change of changes) {
      if (change.kind === "append") this.#waiting -= change.bytes.length;
    }
    return changes;
  }

  #read({ id, reader, offset = this.#readEnds.get(reader) ?? 0, into }: Request & Read): void {
    let answer: Answer;
    let transfer: ArrayBuffer[] = [];
    try {
      const batch = this.#store.read(reader, offset, into);
      const bytes = batch === null ? undefined : toSent(batch.bytes as Uint8Array<ArrayBuffer>);
      answer = { id, batch: bytes === undefined ? null : { ...batch!, bytes } };
      if (bytes !== undefined) transfer = [bytes.buffer];
      this.#readEnds.set(reader, batch === null ? offset : batch.offset + batch.bytes.length);
    } catch (error) {
      answer = { id, failure: toFailure(explain(this.#file, error)) };
    }
    const unused = into === undefined || into === transfer[0] ? [] : [into];
    this.#report([answer], [reader], transfer, unused);
  }

  #change(changes: Asked[]): void {
    const outcomes = this.#store.apply(changes);
    const answers: Answer[] = [];
    const buffers: ArrayBuffer[] = [];
    const readers = new Set<number>();
    changes.forEach((change, i) => {
      const outcome = outcomes[i];
      const failure = outcome instanceof Error ? toFailure(outcome) : undefined;
      if (change.kind === "append") buffers.push(change.bytes.buffer as ArrayBuffer);
      if (change.kind === "release") {
        if (failure !== undefined) this.#retry(change);
        this.#tidyLater();
      }
      let answer: Answer = { id: change.id };
      if (failure !== undefined) answer = { id: change.id, failure };
      else if (change.kind === "open") answer.reader = (outcome as ReaderRow).id;
      const reader = change.kind === "open" ? answer.reader : change.reader;
      if (reader !== undefined) readers.add(reader);
      if (answer.id !== 0) answers.push(answer);
    });
    this.#report(answers, [...readers], [], buffers);
  }

  /** It asks for less room, which may take some: not on a disk that is full to the last page. */
  #retry(change: Asked & { kind: "release" }): void {
    if (this.#closing === undefined) setTimeout(() => this.take(change), RETRY_MS);
  }

  #tidyLater(ms = TIDY_MS): void {
    this.#tidyTimer ??= setTimeout(() => {
      this.#tidyTimer = undefined;
      this.#tidy();
    }, ms);
  }

  #tidy(): void {
    try {
      const startMs = performance.now();
      const more = this.#store.tidy();
      const tookMs = performance.now() - startMs;
      this.#report([], this.#readerIds());
      if (!more) return;
      // Nothing waits in the file: the sooner it is small, the better.
      const pause = this.#store.empty ? 0 : TIDY_MS;
      this.#tidyLater(this.#busy ? Math.max(pause, TIDY_PAUSE * tookMs) : pause);
      this.#busy = false;
    } catch {
      // There is no room even for giving some back: the next release tries again.
    }
  }

  #close(): void {
    clearTimeout(this.#tidyTimer);
    let closed: Report["closed"] = true;
    try {
      this.#store.close();
    } catch (error) {
      closed = toFailure(explain(this.#file, error));
    }
    this.#send({ answers: [], readers: [], damages: [], buffers: [], closed }, []);
  }

  #report(
    answers: Answer[],
    readers: number[],
    transfer: ArrayBuffer[] = [],
    buffers: ArrayBuffer[] = [],
  ): void {
    const rows = readers.map((id) => this.#store.reader(id));
    const damages = this.#store.takeDamages();
    this.#send({ answers, readers: rows, damages, buffers }, [...transfer, ...buffers]);
  }

  #readerIds(): number[] {
    return this.#store.readers.map(({ id }) => id);
  }
}

function toFailure(error: QueueError | QueueFull): Failure {
  const { message } = error;
  return error instanceof QueueFull ? { message, reason: error.reason } : { message };
}

export function fromFailure({ message, reason }: Failure): QueueError | QueueFull {
  return reason === undefined ? new QueueError(message) : new QueueFull(message, reason);
}

async function runStore({ file, options }: WorkerData["speedlimitQueue"]): Promise<void> {
  const port = parentPort!;
  const early: Request[] = [];
  let thread: StoreThread | undefined;
  // From the first moment on: it is what keeps the thread alive.
  port.on("message", (request: Request) => {
    if (thread === undefined) early.push(request);
    else thread.take(request);
  });
  const send = (report: Report, transfer: ArrayBuffer[]) => port.postMessage(report, transfer);
  try {
    const store = new SqliteStore(await loadSqlite(), file, options);
    thread = new StoreThread(store, file, options, send);
    for (const request of early) thread.take(request);
  } catch (error) {
    const closed = toFailure(explain(file, error));
    send({ answers: [], readers: [], damages: [], buffers: [], closed }, []);
  }
}

const given: unknown = isMainThread ? undefined : workerData;
if (typeof given === "object" && given !== null && "speedlimitQueue" in given) {
  void runStore((given as WorkerData).speedlimitQueue);
  await new Promise<never>(() => {});
}
