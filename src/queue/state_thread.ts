/**
 * The thread that writes the database of a queue. It serves one queue at a time; the next one that is
 * opened takes it over, as a new thread costs some 50 ms, and on Deno (2.9.5) two descriptors for good.
 *
 * The worker is started from this module's own URL. In a bundle that is the bundle's URL, and the
 * worker must not run the code after this module: so in the worker the module's evaluation never ends.
 */
import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { QueueError, QueueFull } from "./queue.ts";
import { explainSqlite, loadSqlite } from "./sqlite.ts";
import { type State, type StateChange, StateDatabase } from "./state_database.ts";

/** An error as it is posted between threads. */
interface Failure {
  message: string;
  /** Of a QueueFull; undefined: a QueueError. */
  reason?: "max" | "disk";
}

/** `open` first, then changes, `close` last. */
export type Request = { open: { folder: string; durable: boolean } } | { change: StateChange } | {
  close: true;
};

/** One to each request, in order. */
export type Answer = { failure: QueueError | QueueFull } | { opened: State } | {
  changed: true;
  seconds: number;
} | { closed: true };

type PostedAnswer = Exclude<Answer, { failure: unknown }> | { failure: Failure };

/** Receives what the thread says. */
export interface Owner {
  receive: (answer: Answer) => void;
  /** The thread has ended; `what` completes the sentence "its worker thread ...". */
  failed: (what: string) => void;
}

const MARK = "speedlimitQueue";

export class StateThread {
  static readonly #idle: StateThread[] = [];
  readonly #worker: Worker;
  #owner: Owner | undefined;
  /** Requests without an answer. */
  #pending = 0;

  private constructor() {
    this.#worker = startWorker();
    this.#worker.on("message", (answer: PostedAnswer) => {
      // A request keeps the process alive; a queue that is only open does not.
      if (--this.#pending === 0) this.#worker.unref();
      this.#owner?.receive("failure" in answer ? { failure: fromFailure(answer.failure) } : answer);
    });
    this.#worker.on("error", (error) => this.#ended(`failed: ${(error as Error).message}`));
    this.#worker.on("exit", () => this.#ended("ended unexpectedly"));
  }

  /** A thread that is idle, or a new one. Throws a QueueError if permissions forbid it. */
  static take(owner: Owner): StateThread {
    const thread = StateThread.#idle.pop() ?? new StateThread();
    thread.#owner = owner;
    return thread;
  }

  send(request: Request): void {
    if (this.#pending++ === 0) this.#worker.ref();
    this.#worker.postMessage(request);
  }

  /** To be called once `close` was answered: another queue may use it from now on. */
  release(): void {
    this.#owner = undefined;
    StateThread.#idle.push(this);
  }

  async terminate(): Promise<void> {
    this.#owner = undefined;
    await this.#worker.terminate();
  }

  #ended(what: string): void {
    const at = StateThread.#idle.indexOf(this);
    if (at >= 0) StateThread.#idle.splice(at, 1);
    this.#owner?.failed(what);
  }
}

function startWorker(): Worker {
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
  return new Worker(own, { workerData: MARK, env: {} });
}

function toFailure(error: QueueError | QueueFull): Failure {
  const { message } = error;
  return error instanceof QueueFull ? { message, reason: error.reason } : { message };
}

function fromFailure({ message, reason }: Failure): QueueError | QueueFull {
  return reason === undefined ? new QueueError(message) : new QueueFull(message, reason);
}

/** The worker thread: does what it is told, in order. */
async function serve(): Promise<void> {
  const port = parentPort!;
  const early: Request[] = [];
  let folder = "";
  let database: StateDatabase | undefined;
  let sqlite: Awaited<ReturnType<typeof loadSqlite>> | QueueError | undefined = undefined;
  const answerTo = (request: Request): PostedAnswer => {
    if ("open" in request) {
      folder = request.open.folder;
      if (sqlite instanceof QueueError) throw sqlite;
      database = new StateDatabase(sqlite!, folder, request.open.durable);
      database.begin();
      return { opened: database.initial };
    }
    if ("close" in request) {
      database!.close();
      return { closed: true };
    }
    const startMs = performance.now();
    database!.change(request.change);
    return { changed: true, seconds: (performance.now() - startMs) / 1000 };
  };
  const take = (request: Request) => {
    let answer: PostedAnswer;
    try {
      answer = answerTo(request);
    } catch (error) {
      answer = { failure: toFailure(explainSqlite(folder, error)) };
    }
    port.postMessage(answer);
  };
  // Before the first await: the listener keeps the worker alive.
  port.on("message", (request) => sqlite === undefined ? early.push(request) : take(request));
  sqlite = await loadSqlite().catch((error: QueueError) => error);
  early.forEach(take);
}

if (!isMainThread && workerData === MARK) {
  void serve();
  await new Promise<never>(() => {});
}
