/**
 * The worker thread that runs a queue's store, and the messages between it and the main thread.
 *
 * The worker is started from this module's own URL. In a bundle that is the bundle's URL, and the
 * worker must not run the code after this module: so in the worker the module's evaluation never ends.
 */
import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { type Batch, type Damage, QueueError, QueueFull } from "./queue.ts";
import { fromPosted, type PostedBytes, toPosted } from "./buffers.ts";
import { explain, loadSqlite } from "./sqlite_file.ts";
import type { ReaderRow } from "./sqlite_reader.ts";
import { type Change, SqliteStore, type StoreOptions } from "./sqlite_store.ts";

/** A batch, or a request with one, as it is posted between threads. */
export type Posted<T extends Batch> = T extends Batch ? Omit<T, "bytes"> & { bytes: PostedBytes }
  : never;

type Append = Change & { kind: "append" };

/** No `offset`: the batch after the one read last. The answer may use the buffer `into`. */
interface Read {
  kind: "read";
  reader: number;
  offset?: number | undefined;
  into?: ArrayBuffer | undefined;
}

/** To the worker; its answer has the same `id`; 0: no answer is wanted. */
export type Request =
  & { id: number }
  & (
    | Posted<Append>
    | Exclude<Change, Append>
    | Read
    | { kind: "close" }
  );

/** A change that a request asked for. */
type RequestedChange = Change & { id: number };

/** An error as it is posted between threads. */
export interface Failure {
  message: string;
  /** Of a QueueFull; undefined: a QueueError. */
  reason?: "max" | "disk";
}

export interface Answer {
  id: number;
  failure?: Failure;
  /** To `read`. */
  batch?: Posted<Batch> | null;
  /** To `open`. */
  reader?: number;
}

/** From the worker; the first report says that the file is open, or why not. */
export interface Report {
  answers: Answer[];
  /** Readers that may have changed. */
  readers: ReaderRow[];
  damages: Damage[];
  /** For reuse: buffers of appended batches, and those that a read did not need. */
  buffers: ArrayBuffer[];
  /** This is the last report: the file is closed, or why it failed. */
  closed?: Failure | true;
}

interface WorkerData {
  speedlimitQueue: { file: string; options: StoreOptions };
}

/** Starts the worker for a file. Throws a QueueError if permissions forbid that. */
export function startWorker(file: string, options: StoreOptions): Worker {
  const own = new URL(import.meta.url);
  try {
    if (own.protocol === "file:") statSync(fileURLToPath(own));
  } catch (cause) {
    // Deno itself reports this only on standard error. Other errors do not matter: the code of a
    // compiled program is not in a file.
    if ((cause as Error).name === "NotCapable") {
      const folder = fileURLToPath(new URL(".", own));
      throw new QueueError(
        `the queue's worker thread cannot read its own program: it needs --allow-read=${folder}`,
        { cause },
      );
    }
  }
  const workerData: WorkerData = { speedlimitQueue: { file, options } };
  return new Worker(own, { workerData, env: {} });
}

/** Limit for the bytes of one transaction. */
const MOST_GATHERED = 32 << 20;
/** With this many bytes a transaction starts before the interval is over. */
const ENOUGH_GATHERED = 2 << 20;
/** How long a release waits at most, even if appends are gathered for longer. */
const RELEASE_MS = 100;
/** Pause between two steps of background work. */
const TIDY_MS = 20;
/** While there are requests, the pause is this multiple of a step: a tenth of the time is used. */
const TIDY_PAUSE = 9;
/** Pause before a release that failed for lack of disk space is retried. */
const RETRY_MS = 250;

class StoreThread {
  readonly #store: SqliteStore;
  readonly #file: string;
  readonly #gatherMs: number;
  readonly #send: (report: Report, transfer: ArrayBuffer[]) => void;
  readonly #inbox: Exclude<Request, Read | { kind: "close" }>[] = [];
  #inboxBytes = 0;
  /** By reader: end of the batch that was read last. */
  readonly #readEnds: Map<number, number> = new Map();
  #turn: ReturnType<typeof setImmediate> | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** When `#timer` fires; ms of `performance.now()`. */
  #dueMs = Infinity;
  /** There were requests since the last step of background work. */
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
    // Reads are served at once: they see what is stored already, and do not wait for a transaction.
    if (request.kind === "read") return this.#read(request);
    if (request.kind === "close") this.#closing = request;
    else this.#inbox.push(request);
    if (request.kind === "append") this.#inboxBytes += request.bytes.length;
    const gathers = request.kind === "append" || request.kind === "release";
    if (!gathers || this.#gatherMs === 0 || this.#inboxBytes >= ENOUGH_GATHERED) this.#runSoon();
    else this.#runWithin(request.kind === "append" ? this.#gatherMs : RELEASE_MS);
  }

  #runWithin(ms: number): void {
    const dueMs = performance.now() + Math.min(ms, this.#gatherMs);
    if (dueMs >= this.#dueMs) return;
    this.#dueMs = dueMs;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#runSoon(), dueMs - performance.now());
  }

  /** Runs once all requests received so far are in the inbox. */
  #runSoon(): void {
    this.#turn ??= setImmediate(() => this.#run());
  }

  #run(): void {
    this.#turn = undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#dueMs = Infinity;
    if (this.#inbox.length > 0) this.#apply(this.#takeChanges());
    if (this.#inbox.length > 0) this.#runSoon();
    else if (this.#closing !== undefined) this.#close();
  }

  #takeChanges(): RequestedChange[] {
    const changes: RequestedChange[] = [];
    let bytes = 0;
    for (const request of this.#inbox) {
      if (request.kind === "append") bytes += request.bytes.length;
      if (changes.length > 0 && bytes > MOST_GATHERED) break;
      changes.push(
        request.kind === "append" ? { ...request, bytes: fromPosted(request.bytes) } : request,
      );
    }
    this.#inbox.splice(0, changes.length);
    for (const change of changes) {
      if (change.kind === "append") this.#inboxBytes -= change.bytes.length;
    }
    return changes;
  }

  #read({ id, reader, offset = this.#readEnds.get(reader) ?? 0, into }: Request & Read): void {
    let answer: Answer;
    let transfer: ArrayBuffer[] = [];
    try {
      const batch = this.#store.read(reader, offset, into);
      const bytes = batch === null ? undefined : toPosted(batch.bytes as Uint8Array<ArrayBuffer>);
      answer = { id, batch: bytes === undefined ? null : { ...batch!, bytes } };
      if (bytes !== undefined) transfer = [bytes.buffer];
      this.#readEnds.set(reader, batch === null ? offset : batch.offset + batch.bytes.length);
    } catch (error) {
      answer = { id, failure: toFailure(explain(this.#file, error)) };
    }
    const unused = into === undefined || into === transfer[0] ? [] : [into];
    this.#report([answer], [reader], transfer, unused);
  }

  #apply(changes: RequestedChange[]): void {
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

  /** Retries a failed release: to delete batches needs space too, and the disk may be full. */
  #retry(change: RequestedChange & { kind: "release" }): void {
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
      // The file of an empty queue shrinks without pauses.
      const pause = this.#store.empty ? 0 : TIDY_MS;
      this.#tidyLater(this.#busy ? Math.max(pause, TIDY_PAUSE * tookMs) : pause);
      this.#busy = false;
    } catch {
      // The disk has no space even for shrinking the file: the next release tries again.
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
  // Before the first await: the listener keeps the worker alive.
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
