/**
 * Records the state of a queue in a worker thread, so that no wait for the disk stops the server.
 *
 * The worker is started from this module's own URL. In a bundle that is the bundle's URL, and the
 * worker must not run the code after this module: so in the worker the module's evaluation never ends.
 */
import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { QueueError, QueueFull } from "./queue.ts";
import { explainSqlite, loadSqlite } from "./sqlite.ts";
import { type CursorState, type LogState, type State, StateDatabase } from "./state_database.ts";
import type { StateChange } from "./state_database.ts";

/** An error as it is posted between threads. */
interface Failure {
  message: string;
  /** Of a QueueFull; undefined: a QueueError. */
  reason?: "max" | "disk";
}

/** From the worker: to the opening, to each change in order, and to the close. */
type Answer = { failure: Failure } | { opened: State } | { changed: true; seconds: number } | {
  closed: true;
};

interface WorkerData {
  speedlimitQueue: { folder: string; durable: boolean };
}

/** Pause before a change that failed for lack of disk space is tried again; ms. */
const RETRY_MS = 250;
/** How long changes that nobody waits for are gathered; ms. */
const GATHER_MS = 50;

const keyOf = (key: string, name: string): string => `${name}\n${key}`;

export class QueueState {
  readonly #folder: string;
  readonly #worker: Worker;
  readonly #onFailed: (error: Error) => void;
  readonly #onTime: (seconds: number) => void;
  readonly #opened = Promise.withResolvers<State>();
  readonly #closed = Promise.withResolvers<void>();
  /** Changes that are not recorded yet: the latest of each row. */
  #logs: Map<string, LogState> = new Map();
  #cursors: Map<string, CursorState> = new Map();
  #forgotten: Map<string, { key: string; name: string }> = new Map();
  #posted: StateChange | undefined;
  /** Who waits for the changes that are gathered, and for those that were posted. */
  #waiting: PromiseWithResolvers<void>[] = [];
  #waitingPosted: PromiseWithResolvers<void>[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerMs = Infinity;
  #closing = false;
  #over: Error | undefined;

  /**
   * `onFailed`: the state cannot be recorded any more. `onTime`: how long a change took; seconds.
   * Throws a QueueError if permissions forbid the worker.
   */
  constructor(
    folder: string,
    durable: boolean,
    onFailed: (error: Error) => void,
    onTime: (seconds: number) => void,
  ) {
    this.#folder = folder;
    this.#onFailed = onFailed;
    this.#onTime = onTime;
    this.#worker = startWorker(folder, durable);
    this.#opened.promise.catch(() => {});
    this.#closed.promise.catch(() => {});
    const failed = (what: string) =>
      this.#end(new QueueError(`the queue ${folder}: its worker thread ${what}`));
    this.#worker.on("message", (answer: Answer) => this.#receive(answer));
    this.#worker.on("error", (error) => failed(`failed: ${(error as Error).message}`));
    this.#worker.on("exit", () => failed("ended unexpectedly"));
  }

  /** What is recorded at the opening. Rejects with a QueueError or QueueFull. */
  get opened(): Promise<State> {
    return this.#opened.promise;
  }

  putLog(log: LogState): void {
    this.#logs.set(log.key, log);
    this.#later();
  }

  putCursor(cursor: CursorState): void {
    const id = keyOf(cursor.key, cursor.name);
    this.#forgotten.delete(id);
    this.#cursors.set(id, cursor);
    this.#later();
  }

  forget(key: string, name: string): void {
    const id = keyOf(key, name);
    this.#cursors.delete(id);
    this.#forgotten.set(id, { key, name });
    this.#later();
  }

  /**
   * Resolves once all changes so far are recorded. Waits for a full disk, until the queue is closed.
   * Rejects with a QueueError, or then with a QueueFull.
   */
  recorded(): Promise<void> {
    if (this.#over !== undefined) return Promise.reject(this.#over);
    const nothing = this.#logs.size + this.#cursors.size + this.#forgotten.size === 0;
    const waiting = Promise.withResolvers<void>();
    if (nothing && this.#posted === undefined) waiting.resolve();
    else if (nothing) this.#waitingPosted.push(waiting);
    else {
      this.#waiting.push(waiting);
      this.#later(0);
    }
    return waiting.promise;
  }

  /** Rejects with a QueueFull if the disk is too full to record the last changes. */
  async close(): Promise<void> {
    if (this.#over !== undefined) return;
    this.#closing = true;
    await this.recorded();
    this.#worker.ref();
    this.#worker.postMessage({ close: true });
    await this.#closed.promise;
  }

  #later(ms = GATHER_MS): void {
    if (ms >= this.#timerMs || this.#over !== undefined) return;
    clearTimeout(this.#timer);
    this.#timerMs = ms;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#timerMs = Infinity;
      this.#post();
    }, ms);
  }

  #post(): void {
    if (this.#posted !== undefined || this.#over !== undefined) return;
    if (this.#logs.size + this.#cursors.size + this.#forgotten.size === 0) return;
    this.#posted = {
      logs: [...this.#logs.values()],
      cursors: [...this.#cursors.values()],
      forgotten: [...this.#forgotten.values()],
    };
    this.#logs = new Map();
    this.#cursors = new Map();
    this.#forgotten = new Map();
    this.#waitingPosted = this.#waiting;
    this.#waiting = [];
    this.#send(this.#posted);
  }

  #send(change: StateChange): void {
    // A change in progress keeps the process alive; an idle queue does not.
    this.#worker.ref();
    this.#worker.postMessage({ change });
  }

  #receive(answer: Answer): void {
    if ("opened" in answer) {
      this.#worker.unref();
      this.#opened.resolve(answer.opened);
    } else if ("changed" in answer) {
      this.#onTime(answer.seconds);
      this.#posted = undefined;
      this.#worker.unref();
      for (const { resolve } of this.#waitingPosted.splice(0)) resolve();
      if (this.#waiting.length > 0) this.#post();
      else this.#later();
    } else if ("closed" in answer) {
      this.#over = new QueueError(`the queue ${this.#folder} is closed`);
      void this.#worker.terminate().finally(() => this.#closed.resolve());
    } else {
      const error = fromFailure(answer.failure);
      const change = this.#posted;
      // Nobody may ever make room: whoever closes the queue does not wait for that.
      if (error instanceof QueueFull && change !== undefined && !this.#closing) {
        setTimeout(() => this.#send(change), RETRY_MS);
      } else {
        this.#end(error);
      }
    }
  }

  #end(error: Error): void {
    if (this.#over !== undefined) return;
    this.#over = error;
    clearTimeout(this.#timer);
    void this.#worker.terminate().finally(() => {
      this.#opened.reject(error);
      this.#closed.reject(error);
      for (const { reject } of [...this.#waiting, ...this.#waitingPosted]) reject(error);
      this.#onFailed(error);
    });
  }
}

function startWorker(folder: string, durable: boolean): Worker {
  const own = new URL(import.meta.url);
  try {
    if (own.protocol === "file:") statSync(fileURLToPath(own));
  } catch (cause) {
    // Deno itself reports this only on standard error. Other errors do not matter: the code of a
    // compiled program is not in a file.
    if ((cause as Error).name === "NotCapable") {
      const program = fileURLToPath(new URL(".", own));
      throw new QueueError(
        `the queue's worker thread cannot read its own program: it needs --allow-read=${program}`,
        { cause },
      );
    }
  }
  const data: WorkerData = { speedlimitQueue: { folder, durable } };
  return new Worker(own, { workerData: data, env: {} });
}

function toFailure(error: QueueError | QueueFull): Failure {
  const { message } = error;
  return error instanceof QueueFull ? { message, reason: error.reason } : { message };
}

function fromFailure({ message, reason }: Failure): QueueError | QueueFull {
  return reason === undefined ? new QueueError(message) : new QueueFull(message, reason);
}

/** The worker thread: does what it is told, in order. */
async function record({ folder, durable }: WorkerData["speedlimitQueue"]): Promise<void> {
  const port = parentPort!;
  const early: { change?: StateChange; close?: true }[] = [];
  let database: StateDatabase | undefined;
  const answer = (make: () => Answer) => {
    let made: Answer;
    try {
      made = make();
    } catch (error) {
      made = { failure: toFailure(explainSqlite(folder, error)) };
    }
    port.postMessage(made);
  };
  const take = ({ change }: { change?: StateChange; close?: true }) =>
    answer(() => {
      if (change === undefined) {
        database!.close();
        return { closed: true };
      }
      const startMs = performance.now();
      database!.change(change);
      return { changed: true, seconds: (performance.now() - startMs) / 1000 };
    });
  // Before the first await: the listener keeps the worker alive.
  port.on("message", (request) => database === undefined ? early.push(request) : take(request));
  const sqlite = await loadSqlite().catch((error: QueueError) => error);
  answer(() => {
    if (sqlite instanceof QueueError) throw sqlite;
    database = new StateDatabase(sqlite, folder, durable);
    return { opened: database.initial };
  });
  if (database !== undefined) early.forEach(take);
}

const given: unknown = isMainThread ? undefined : workerData;
if (typeof given === "object" && given !== null && "speedlimitQueue" in given) {
  void record((given as WorkerData).speedlimitQueue);
  await new Promise<never>(() => {});
}
