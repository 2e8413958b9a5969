/**
 * One connection's flood: offers the kernel what the schedule makes due, and calls the overflow
 * policy when the kernel takes no more.
 *
 * The stream is a function of its offset, so the backlog is a number and not memory, and a partial
 * write needs no copy.
 */
import type { Message } from "../message/message.ts";
import { LONGEST_WRITE } from "../message/message.ts";
import { discardReplies, linger } from "../net/linger.ts";
import type { Closed, Connection } from "../net/net.ts";
import { type FloodPolicy, FULL_AFTER_MS, type Overflowing, policyOf } from "./overflow.ts";
import { nextTurn, Schedule, type Ticker, TURN_BYTES } from "./pacer.ts";

/** What becomes of the reader's replies: nobody reads them (the article's server), or we do. */
export type Replies = "ignore" | "drain";

export interface FloodOptions {
  connection: Connection;
  message: Message;
  ticker: Ticker;
  /** Default: block. */
  policy?: FloodPolicy;
  /** Bytes that may wait for the kernel before the policy acts; default 0. */
  bound?: number;
  /** The longest piece that one write offers; bytes, default and most 1 MiB. */
  writeSize?: number;
  /** Default: ignore. */
  replies?: Replies;
  /** Called once, before the policy acts for the first time. */
  onOverflow?: (flood: Flood) => void;
}

export class Flood implements Overflowing {
  readonly connection: Connection;
  readonly message: Message;
  /** Bytes that the kernel took. */
  accepted = 0;
  /** Messages that a policy dropped. */
  dropped = 0;
  /** Times that the policy had to act: runs of ticks, not ticks. */
  overflows = 0;
  /** Settles when the flood has ended: by `finish`, by its policy, or by the peer. */
  readonly done: Promise<Closed>;
  readonly #ticker: Ticker;
  readonly #policy: FloodPolicy;
  readonly #bound: number;
  readonly #writeSize: number;
  readonly #onOverflow: ((flood: Flood) => void) | undefined;
  /** Settles when the peer has sent its last reply; undefined while nobody reads them. */
  readonly #replies: Promise<void> | undefined;
  /** Messages due before the present schedule began; the schedule adds to it. */
  #dueBefore = 0;
  #schedule: Schedule | undefined;
  #due = 0;
  #wake: (() => void) | undefined;
  #finishing = false;
  /** Bytes of the write that waits for the kernel. */
  #inFlight = 0;
  #overflowing = false;

  constructor(options: FloodOptions) {
    this.connection = options.connection;
    this.message = options.message;
    this.#ticker = options.ticker;
    this.#policy = options.policy ?? "block";
    this.#bound = Math.floor((options.bound ?? 0) / options.message.size);
    this.#writeSize = Math.min(options.writeSize ?? LONGEST_WRITE, LONGEST_WRITE);
    this.#onOverflow = options.onOverflow;
    if (options.replies === "drain") this.#replies = discardReplies(this.connection);
    this.done = this.#run();
  }

  /** Begins a schedule now: messages a second, Infinity for as fast as the kernel takes them. */
  start(rate: number, nowMs: number = performance.now(), endMs: number = Infinity): void {
    this.stop(nowMs);
    this.#schedule = new Schedule(rate, nowMs, endMs);
  }

  /** Ends the schedule now; what is owed stays owed. */
  stop(nowMs: number = performance.now()): void {
    if (this.#schedule === undefined) return;
    this.#dueBefore = this.#schedule.rate === Infinity
      ? this.#begunMessages()
      : this.#dueBefore + this.#schedule.due(nowMs);
    this.#schedule = undefined;
    this.#tick(nowMs);
  }

  /** Ends the schedule and forgets what is owed, but for the rest of a message that was begun. */
  forget(): void {
    this.stop();
    this.#dueBefore = this.#due = this.#begunMessages();
  }

  /** Ends the schedule; once all that is owed has been accepted, closes the connection. */
  finish(atMs: number = performance.now()): void {
    this.stop(atMs);
    this.#finishing = true;
    this.#wakeUp();
  }

  /** Bytes offered by a time: those of dropped messages are not in it. Infinity without a rate. */
  offeredAt(nowMs: number): number {
    return this.#dueAt(nowMs) * this.message.size;
  }

  /** Whole messages that are due and not begun. */
  get pendingMessages(): number {
    return Math.max(0, this.#due - this.#begunMessages());
  }

  dropNewest(): void {
    // What is in flight the kernel may have taken already.
    const begun = Math.ceil((this.accepted + this.#inFlight) / this.message.size);
    const messages = Math.min(this.pendingMessages - this.#bound, this.#due - begun);
    if (messages <= 0 || messages === Infinity) return;
    this.dropped += messages;
    this.#dueBefore -= messages;
    this.#due -= messages;
  }

  end(how: "close" | "reset"): void {
    this.connection[how]();
    this.#wakeUp();
  }

  #begunMessages(): number {
    return Math.ceil(this.accepted / this.message.size);
  }

  #dueAt(nowMs: number): number {
    return this.#dueBefore + (this.#schedule?.due(nowMs) ?? 0);
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  #tick(nowMs: number): void {
    this.#due = this.#dueAt(nowMs);
    const { blockedSince } = this.connection;
    if (blockedSince !== undefined && nowMs - blockedSince >= FULL_AFTER_MS) this.#full();
    else this.#overflowing = false;
    if (this.#due > this.#begunMessages()) this.#wakeUp();
  }

  /** The kernel takes no more. */
  #full(): void {
    const pending = this.pendingMessages;
    if (pending === 0 || pending <= this.#bound) return;
    if (!this.#overflowing) {
      this.#overflowing = true;
      this.overflows++;
      if (this.overflows === 1) this.#onOverflow?.(this);
    }
    policyOf(this.#policy).act(this);
  }

  async #run(): Promise<Closed> {
    const { connection, message } = this;
    const stopTicking = this.#ticker.add((nowMs) => this.#tick(nowMs));
    let ended = false;
    void connection.closed.then(() => {
      ended = true;
      this.#wakeUp();
    });
    let turn = 0;
    while (!ended) {
      // A message that was begun is finished, whatever became of the schedule.
      const owed = Math.max(this.#due, this.#begunMessages()) * message.size - this.accepted;
      if (owed <= 0) {
        if (this.#finishing) break;
        turn = 0;
        await new Promise<void>((resolve) => this.#wake = resolve);
        continue;
      }
      const bytes = message.slice(this.accepted, Math.min(owed, this.#writeSize));
      this.#inFlight = bytes.length;
      const write = connection.write(bytes);
      const taken = typeof write === "number" ? write : await write;
      this.#inFlight = 0;
      if (taken === 0) break;
      this.accepted += taken;
      // A short count is the kernel's word that its buffer is full.
      if (taken < bytes.length) this.#full();
      turn += taken;
      if (turn >= TURN_BYTES) {
        turn = 0;
        await nextTurn();
      }
    }
    stopTicking();
    if (!ended && this.#finishing) await linger(connection, this.#replies);
    connection.close();
    return connection.closed;
  }
}
