/** The loop of the drain client. For each chunk: read, work, forward, acknowledge, reply. */
import { setImmediate } from "node:timers";
import { BUSY_READ_BYTES, BusyPoll } from "../net/busy_poll.ts";
import type { Connection } from "../net/net.ts";
import { TURN_BYTES, TURN_READS } from "../send/pacer.ts";
import { formatBytes } from "../text/units.ts";
import { ACK_BYTES, type Acknowledger } from "./acknowledger.ts";
import type { Forward } from "./forward.ts";

/**
 * The caller's own code, called with each chunk. The chunk is a view that is valid until the handler
 * has returned or its promise has settled: copy what you keep. With `forward`, the returned bytes are
 * sent on.
 */
export type DrainHandler = (
  chunk: Uint8Array,
) => Uint8Array | void | Promise<Uint8Array | void>;

/** Work for this long without a pause, then let the event loop handle timers and signals. */
const TURN_MS = 20;

export interface ReadLoopOptions {
  /** The most that one read returns: bytes. */
  readSize: number;
  /** Stops after this many bytes; default: no limit. */
  count?: number | undefined;
  /** Time spent computing after each read: ms, default 0. */
  workMs?: number | undefined;
  handler?: DrainHandler | undefined;
  forward?: Forward | undefined;
  acks?: Acknowledger | undefined;
  /** Sent after each read; null: nothing. */
  reply: string | null;
}

/** Totals so far. */
export interface ReadCounts {
  bytes: number;
  reads: number;
  replies: number;
}

/** The loop. It neither reads the clock nor allocates for a read, apart from what the runtime does. */
export class ReadLoop {
  /** The caller sets this to end the loop before the next chunk. */
  stopped = false;
  readonly #connection: Connection;
  readonly #counts: ReadCounts;
  readonly #readSize: number;
  readonly #count: number;
  readonly #workMs: number;
  readonly #reply: Uint8Array | undefined;
  readonly #handler: DrainHandler | undefined;
  readonly #forward: Forward | undefined;
  readonly #acks: Acknowledger | undefined;

  /** `counts` is updated after each chunk. */
  constructor(connection: Connection, counts: ReadCounts, options: ReadLoopOptions) {
    this.#connection = connection;
    this.#counts = counts;
    this.#readSize = options.readSize;
    this.#count = options.count ?? Infinity;
    this.#workMs = options.workMs ?? 0;
    this.#reply = options.reply === null ? undefined : new TextEncoder().encode(options.reply);
    this.#handler = options.handler;
    this.#forward = options.forward;
    this.#acks = options.acks;
  }

  /** Returns `count` when the count is reached; undefined when the connection ended or was stopped. */
  async run(): Promise<"count" | undefined> {
    const counts = this.#counts;
    const works = this.#workMs > 0 || this.#handler !== undefined;
    // Storing an offset needs turns of the event loop, and nothing is acknowledged until it is done.
    // So with acknowledgements the loop yields more often.
    const mostBytes = this.#acks === undefined ? TURN_BYTES : ACK_BYTES;
    let turnReads = 0;
    let turnBytes = 0;
    let turnStart = performance.now();
    const busyPoll = new BusyPoll();
    while (!this.stopped) {
      const size = Math.min(this.#readSize, this.#count - counts.bytes);
      const pending = this.#connection.read(size);
      const chunk = pending instanceof Promise ? await pending : pending;
      if (chunk === null || this.stopped) return undefined;
      counts.bytes += chunk.length;
      counts.reads++;
      if (chunk.length === size && size >= BUSY_READ_BYTES) busyPoll.extend();
      if (works || this.#forward !== undefined) {
        const working = this.#work(chunk);
        if (working instanceof Promise) await working;
      }
      const storing = this.#acks?.processed(chunk.length);
      if (storing instanceof Promise) await storing;
      if (this.#reply !== undefined) {
        const pending = this.#connection.write(this.#reply);
        const taken = typeof pending === "number" ? pending : await pending;
        if (taken < this.#reply.length && !(await this.#finishReply(taken))) return undefined;
        counts.replies++;
      }
      if (counts.bytes >= this.#count) return "count";
      turnBytes += chunk.length;
      if (
        ++turnReads >= TURN_READS || turnBytes >= mostBytes ||
        (works && performance.now() - turnStart >= TURN_MS)
      ) {
        // When reads return without a wait, nothing else lets the event loop run.
        await new Promise<void>((resolve) => setImmediate(resolve));
        turnReads = turnBytes = 0;
        turnStart = performance.now();
      }
    }
    return undefined;
  }

  /** Sends the rest of a reply, like the article's blocking send. False: the connection has ended. */
  async #finishReply(taken: number): Promise<boolean> {
    let rest = this.#reply!.subarray(taken);
    while (rest.length > 0) {
      if (taken === 0) return false;
      taken = await this.#connection.write(rest);
      rest = rest.subarray(taken);
    }
    return true;
  }

  #work(chunk: Uint8Array): void | Promise<void> {
    if (this.#workMs > 0) {
      const end = performance.now() + this.#workMs;
      while (performance.now() < end);
    }
    if (this.#handler === undefined) return this.#forwardChunk(chunk);
    let result: ReturnType<DrainHandler>;
    try {
      result = this.#handler(chunk);
    } catch (error) {
      throw this.#handlerFailed(error);
    }
    if (!(result instanceof Promise)) return this.#forwardChunk(result);
    return result.then(
      (later) => this.#forwardChunk(later),
      (error) => Promise.reject(this.#handlerFailed(error)),
    );
  }

  #forwardChunk(chunk: Uint8Array | void): void | Promise<void> {
    if (this.#forward === undefined || chunk === undefined || chunk === null) return;
    if (chunk instanceof Uint8Array) return this.#forward.send(chunk);
    throw new Error(
      `the handler must return a Uint8Array or nothing to forward, not a ${typeof chunk}`,
    );
  }

  #handlerFailed(cause: unknown): Error {
    const text = cause instanceof Error ? cause.message || cause.name : String(cause);
    const after = formatBytes(this.#counts.bytes);
    return new Error(`the handler failed after ${after}: ${text}`, { cause });
  }
}
