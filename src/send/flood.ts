/**
 * Room: sending at a planned rate, and what happens when the kernel takes no more bytes.
 * In: a `Connection`, a `Message`, a rate, an overflow policy.
 * Out: bytes offered to the kernel on schedule; counts of accepted bytes, dropped messages, overflows.
 */
import { LONGEST_WRITE, type Message } from "../message/message.ts";
import { closeSoon, discardReplies, linger } from "../net/linger.ts";
import type { Closed, Connection } from "../net/net.ts";
import { type Deadlines, DeadlineWatch, hasDeadline, type Passed } from "./deadlines.ts";
import { type FloodPolicy, FULL_AFTER_MS, type Overflowing, policyOf } from "./overflow.ts";
import { openGate, type Unread, type UnreadEvent, type UnreadGate } from "./unread.ts";
import { nextTurn, Schedule, type Ticker, TURN_BYTES } from "./pacer.ts";

/** The reader's replies: `ignore` never reads them, like the article's server; `drain` discards them. */
export type Replies = "ignore" | "drain";

export interface FloodOptions extends Deadlines {
  connection: Connection;
  message: Message;
  ticker: Ticker;
  /** Default: block. */
  policy?: FloodPolicy;
  /**
   * The largest backlog without overflow: bytes, rounded down to whole messages; default 0, with a deadline
   * none.
   */
  bound?: number;
  /** How much may lie unread at the reader; default: as much as the kernel takes. */
  unread?: Unread;
  onUnread?: (event: UnreadEvent) => void;
  /** The most that one write offers to the kernel: bytes, default and maximum 1 MiB. */
  writeSize?: number;
  /** Default: ignore. */
  replies?: Replies;
  /** Called once, before the policy acts for the first time; `passed`: the deadline that has passed. */
  onOverflow?: (flood: Flood, passed: Passed | undefined) => void;
}

/**
 * Sends one message again and again over one connection: offers the kernel what is due, and calls the
 * overflow policy when the kernel takes no more.
 *
 * The bytes of the stream are a function of the offset. So the backlog is a number and takes no memory,
 * and a partial write needs no copy.
 */
export class Flood implements Overflowing {
  readonly connection: Connection;
  readonly message: Message;
  /** Bytes that the kernel took. */
  accepted = 0;
  /** Messages that a policy dropped. */
  dropped = 0;
  /** Number of overflows. Consecutive ticks of overflow count as one. */
  overflows = 0;
  /** Settles when the flood has ended: by `finish`, by the policy, or by the peer. */
  readonly done: Promise<Closed>;
  readonly #ticker: Ticker;
  readonly #policy: FloodPolicy;
  readonly #bound: number;
  readonly #writeSize: number;
  readonly #gate: UnreadGate | undefined;
  readonly #deadlines: DeadlineWatch | undefined;
  readonly #onOverflow: FloodOptions["onOverflow"];
  /** Settles when the peer has sent its last reply; undefined when replies are ignored. */
  readonly #replies: Promise<void> | undefined;
  /** Messages due before the current schedule began. Those of the schedule are added to it. */
  #dueBefore = 0;
  #schedule: Schedule | undefined;
  /** Messages due at the last tick. */
  #due = 0;
  #wake: (() => void) | undefined;
  #finishing = false;
  /** Bytes of the current write. */
  #inFlight = 0;
  #overflowing = false;

  constructor(options: FloodOptions) {
    this.connection = options.connection;
    this.message = options.message;
    this.#ticker = options.ticker;
    this.#policy = options.policy ?? "block";
    const timed = hasDeadline(options);
    const bound = options.bound ?? (timed ? Infinity : 0);
    this.#bound = Math.floor(bound / options.message.size);
    this.#deadlines = timed ? new DeadlineWatch(options) : undefined;
    this.#writeSize = Math.min(options.writeSize ?? LONGEST_WRITE, LONGEST_WRITE);
    this.#onOverflow = options.onOverflow;
    const { connection, unread, onUnread } = options;
    if (unread !== undefined) {
      this.#gate = openGate({
        ...{ connection, unread, wake: () => this.#wakeUp() },
        ...(onUnread === undefined ? {} : { onEvent: onUnread }),
      });
    }
    if (options.replies === "drain") this.#replies = discardReplies(this.connection);
    this.done = this.#run();
  }

  /**
   * Starts a schedule, in place of the current one. `rate`: messages per second, Infinity for as fast
   * as the kernel takes them. Times are in ms of `performance.now()`.
   */
  start(rate: number, nowMs: number = performance.now(), endMs: number = Infinity): void {
    this.stop(nowMs);
    this.#schedule = new Schedule(rate, nowMs, endMs);
  }

  /** Ends the schedule. Messages that are already due are still sent. */
  stop(nowMs: number = performance.now()): void {
    if (this.#schedule === undefined) return;
    this.#dueBefore = this.#schedule.rate === Infinity
      ? this.#begunMessages()
      : this.#dueBefore + this.#schedule.due(nowMs);
    this.#schedule = undefined;
    this.#tick(nowMs);
  }

  /** Makes so many more messages due at once, beside the schedule. */
  burst(messages: number, nowMs: number = performance.now()): void {
    this.#dueBefore += messages;
    this.#tick(nowMs);
  }

  /** Ends the schedule and discards the backlog, except for the rest of a partly sent message. */
  forget(): void {
    this.stop();
    this.#dueBefore = this.#due = this.#begunMessages();
  }

  /** Ends the schedule, and closes the connection once the kernel has accepted all due messages. */
  finish(atMs: number = performance.now()): void {
    this.stop(atMs);
    this.#finishing = true;
    this.#wakeUp();
  }

  /**
   * Ends at once, but in order: completes a partly sent message, sends FIN and discards replies until
   * the peer's FIN, for at most 1 s. When replies are ignored, closes the connection.
   */
  hangUp(): void {
    if (this.#replies === undefined) return this.connection.close();
    this.forget();
    this.finish();
    closeSoon(this.connection);
  }

  /** Bytes offered until then, without those of dropped messages. Infinity at an unlimited rate. */
  offeredAt(nowMs: number): number {
    return this.#dueAt(nowMs) * this.message.size;
  }

  /** Messages that are due and of which no byte has been accepted. */
  get pendingMessages(): number {
    return Math.max(0, this.#due - this.#begunMessages());
  }

  drop(): void {
    // The kernel may already have taken the bytes of the current write.
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
    this.#gate?.tick(nowMs);
    const fullSince = this.connection.blockedSince ?? this.#gate?.waitsSinceMs;
    if (fullSince !== undefined && nowMs - fullSince >= FULL_AFTER_MS) this.#onKernelFull();
    else this.#overflowing = false;
    const size = this.message.size;
    const passed = this.#deadlines?.check(this.pendingMessages * size, this.accepted, nowMs);
    if (passed !== undefined) this.#overflow(passed);
    if (this.#due > this.#begunMessages()) this.#wakeUp();
  }

  #onKernelFull(): void {
    const pending = this.pendingMessages;
    if (pending > this.#bound) this.#overflow(undefined);
  }

  #overflow(passed: Passed | undefined): void {
    if (!this.#overflowing) {
      this.#overflowing = true;
      this.overflows++;
      if (this.overflows === 1) this.#onOverflow?.(this, passed);
    }
    policyOf(this.#policy).act(this);
  }

  async #run(): Promise<Closed> {
    const { connection, message } = this;
    const gate = this.#gate;
    const stopTicking = this.#ticker.add((nowMs) => this.#tick(nowMs));
    let ended = false;
    void connection.closed.then(() => {
      ended = true;
      this.#wakeUp();
    });
    let turn = 0;
    while (!ended) {
      // A partly sent message is always completed, even when the schedule has ended.
      const owed = Math.max(this.#due, this.#begunMessages()) * message.size - this.accepted;
      const room = owed > 0 ? gate?.room() ?? owed : 0;
      if (room === 0) {
        if (owed <= 0 && this.#finishing) break;
        if (owed <= 0) gate?.idle();
        turn = 0;
        await new Promise<void>((resolve) => this.#wake = resolve);
        continue;
      }
      const bytes = message.slice(this.accepted, Math.min(owed, room, this.#writeSize));
      this.#inFlight = bytes.length;
      const write = connection.write(bytes);
      const taken = typeof write === "number" ? write : await write;
      this.#inFlight = 0;
      if (taken === 0) break;
      this.accepted += taken;
      gate?.took(taken);
      // A partial write means that the kernel's buffer is full.
      if (taken < bytes.length) this.#onKernelFull();
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
