/** The drain client's loop: read, work, hand on, acknowledge or reply, one chunk at a time. */
import { setImmediate } from "node:timers";
import { BUSY_READ_BYTES, BusyPoll } from "../net/busy_poll.ts";
import { ACK_BYTES, type Acknowledger } from "./acknowledger.ts";
import type { Forward } from "./forward.ts";
import type { Connection } from "../net/net.ts";
import { TURN_BYTES, TURN_READS } from "../send/pacer.ts";
import { formatBytes } from "../text/units.ts";

/**
 * The caller's own code. The chunk is a view that is valid until the handler has returned, or its
 * promise has settled: copy what is to be kept. What it returns goes to `forward`.
 */
export type DrainHandler = (
  chunk: Uint8Array,
) => Uint8Array | void | Promise<Uint8Array | void>;

/** How long it may work before timers and signals get their turn. */
const TURN_MS = 20;

/** What is done with each chunk. */
export interface Work {
  /** The most that one read takes: bytes. */
  readSize: number;
  /** Bytes to read, and then to stop; default: no end. */
  count?: number | undefined;
  workMs?: number | undefined;
  handler?: DrainHandler | undefined;
  forward?: Forward | undefined;
  acks?: Acknowledger | undefined;
  reply: string | null;
}

/** What has been read so far. */
export interface ReadCounts {
  bytes: number;
  reads: number;
  replies: number;
}

/** The loop: no clock and no allocation a read, but what the runtime itself makes of it. */
export class Reading {
  /** Set from outside; seen before the next chunk. */
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

  /** The counts are kept up to date. */
  constructor(connection: Connection, counts: ReadCounts, work: Work) {
    this.#connection = connection;
    this.#counts = counts;
    this.#readSize = work.readSize;
    this.#count = work.count ?? Infinity;
    this.#workMs = work.workMs ?? 0;
    this.#reply = work.reply === null ? undefined : new TextEncoder().encode(work.reply);
    this.#handler = work.handler;
    this.#forward = work.forward;
    this.#acks = work.acks;
  }

  /** Until the count is reached, or undefined: the connection has ended, or `stopped` is set. */
  async run(): Promise<"count" | undefined> {
    const counts = this.#counts;
    const works = this.#workMs > 0 || this.#handler !== undefined;
    // Storing needs a turn to begin and one for each wait; what comes meanwhile is not acknowledged.
    const mostBytes = this.#acks === undefined ? TURN_BYTES : ACK_BYTES;
    let turnReads = 0;
    let turnBytes = 0;
    let turnStart = performance.now();
    const busyPoll = new BusyPoll();
    while (!this.stopped) {
      const size = Math.min(this.#readSize, this.#count - counts.bytes);
      const answer = this.#connection.read(size);
      const chunk = answer instanceof Promise ? await answer : answer;
      if (chunk === null || this.stopped) return undefined;
      counts.bytes += chunk.length;
      counts.reads++;
      if (chunk.length === size && size >= BUSY_READ_BYTES) busyPoll.extend();
      if (works || this.#forward !== undefined) {
        const working = this.#work(chunk);
        if (working instanceof Promise) await working;
      }
      const storing = this.#acks?.handled(chunk.length);
      if (storing instanceof Promise) await storing;
      if (this.#reply !== undefined) {
        const answer = this.#connection.write(this.#reply);
        const taken = typeof answer === "number" ? answer : await answer;
        if (taken < this.#reply.length && !(await this.#finishReply(taken))) return undefined;
        counts.replies++;
      }
      if (counts.bytes >= this.#count) return "count";
      turnBytes += chunk.length;
      if (
        ++turnReads >= TURN_READS || turnBytes >= mostBytes ||
        (works && performance.now() - turnStart >= TURN_MS)
      ) {
        // Where reads are answered at once, nothing else gives the event loop a turn.
        await new Promise<void>((resolve) => setImmediate(resolve));
        turnReads = turnBytes = 0;
        turnStart = performance.now();
      }
    }
    return undefined;
  }

  /** The rest of a reply: the article's blocking send. False: the connection has ended. */
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
    if (this.#handler === undefined) return this.#pass(chunk);
    let answer: ReturnType<DrainHandler>;
    try {
      answer = this.#handler(chunk);
    } catch (error) {
      throw this.#handlerFailed(error);
    }
    if (!(answer instanceof Promise)) return this.#pass(answer);
    return answer.then(
      (later) => this.#pass(later),
      (error) => Promise.reject(this.#handlerFailed(error)),
    );
  }

  #pass(chunk: Uint8Array | void): void | Promise<void> {
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
