/**
 * The state of a queue: what its database has of logs and cursors. Changes are gathered, and recorded by
 * another thread, so that no wait for the disk stops the server.
 */
import { QueueError, QueueFull } from "./queue.ts";
import type { CursorState, LogState, RangeState, State, StateChange } from "./state_database.ts";
import { type Answer, StateThread } from "./state_thread.ts";

/** Pause before a change that failed for lack of disk space is tried again; ms. */
const RETRY_MS = 250;
/** How long changes that nobody waits for are gathered; ms. */
const GATHER_MS = 50;

const keyOf = (key: string, name: string): string => `${name}\n${key}`;

export class QueueState {
  readonly #folder: string;
  readonly #thread: StateThread;
  readonly #onFailed: (error: Error) => void;
  readonly #onTime: (seconds: number) => void;
  readonly #opened = Promise.withResolvers<State>();
  readonly #closed = Promise.withResolvers<void>();
  /** Changes that are not recorded yet: the latest of each row. */
  #logs: Map<string, LogState> = new Map();
  #cursors: Map<string, CursorState> = new Map();
  #ranges: Map<string, RangeState> = new Map();
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
   * Throws a QueueError if permissions forbid the thread.
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
    this.#opened.promise.catch(() => {});
    this.#closed.promise.catch(() => {});
    this.#thread = StateThread.take({
      receive: (answer) => this.#receive(answer),
      failed: (what) => this.#end(new QueueError(`the queue ${folder}: its worker thread ${what}`)),
    });
    this.#thread.send({ open: { folder, durable } });
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

  putRange(range: RangeState): void {
    this.#ranges.set(keyOf(range.key, range.what), range);
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
    const nothing = this.#hasNothing;
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
    this.#thread.send({ close: true });
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

  /** Nothing is gathered. */
  get #hasNothing(): boolean {
    return this.#logs.size + this.#cursors.size + this.#ranges.size + this.#forgotten.size === 0;
  }

  #post(): void {
    if (this.#posted !== undefined || this.#over !== undefined) return;
    if (this.#hasNothing) return;
    this.#posted = {
      logs: [...this.#logs.values()],
      cursors: [...this.#cursors.values()],
      ranges: [...this.#ranges.values()],
      forgotten: [...this.#forgotten.values()],
    };
    this.#logs = new Map();
    this.#cursors = new Map();
    this.#ranges = new Map();
    this.#forgotten = new Map();
    this.#waitingPosted = this.#waiting;
    this.#waiting = [];
    this.#thread.send({ change: this.#posted });
  }

  #receive(answer: Answer): void {
    if ("opened" in answer) {
      this.#opened.resolve(answer.opened);
    } else if ("changed" in answer) {
      this.#onTime(answer.seconds);
      this.#posted = undefined;
      for (const { resolve } of this.#waitingPosted.splice(0)) resolve();
      if (this.#waiting.length > 0) this.#post();
      else this.#later();
    } else if ("closed" in answer) {
      this.#over = new QueueError(`the queue ${this.#folder} is closed`);
      this.#thread.release();
      this.#closed.resolve();
    } else {
      const error = answer.failure;
      const change = this.#posted;
      // Nobody may ever make room: whoever closes the queue does not wait for that.
      if (error instanceof QueueFull && change !== undefined && !this.#closing) {
        setTimeout(() => this.#thread.send({ change }), RETRY_MS);
      } else {
        this.#end(error);
      }
    }
  }

  #end(error: Error): void {
    if (this.#over !== undefined) return;
    this.#over = error;
    clearTimeout(this.#timer);
    void this.#thread.terminate().finally(() => {
      this.#opened.reject(error);
      this.#closed.reject(error);
      for (const { reject } of [...this.#waiting, ...this.#waitingPosted]) reject(error);
      this.#onFailed(error);
    });
  }
}
