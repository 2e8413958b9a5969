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
import type { Interjecting } from "./conversation.ts";
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
  /** Reads what the reader says until its FIN, instead of discarding it. */
  listen?: (flood: Flood) => Promise<void>;
  /** Called once, before the policy acts for the first time; `passed`: the deadline that has passed. */
  onOverflow?: (flood: Flood, passed: Passed | undefined) => void;
}

/**
 * Sends an endless stream of messages over one connection: offers the kernel what is due, and calls the
 * overflow policy when the kernel takes no more.
 *
 * The bytes of the stream are a function of the offset. So the backlog is a number and takes no memory,
 * and a partial write needs no copy.
 */
export class Flood implements Overflowing, Interjecting {
  readonly connection: Connection;
  readonly message: Message;
  /** Bytes that the kernel took. */
  accepted = 0;
  /** Bytes that the kernel took and that are no messages: see `interject`. */
  interjected = 0;
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
  /** The schedule counts bytes. */
  #inBytes = false;
  /** Messages due at the last tick. */
  #due = 0;
  #wake: (() => void) | undefined;
  /** What is to be said before the next message begins. */
  readonly #interjections: Uint8Array[] = [];
  #finishing = false;
  /** Bytes of the current write. */
  #inFlight = 0;
  #overflowing = false;

  constructor(options: FloodOptions) {
    this.connection = options.connection;
    this.message = options.message.forConnection?.() ?? options.message;
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
    if (options.listen !== undefined) this.#replies = options.listen(this);
    else if (options.replies === "drain") this.#replies = discardReplies(this.connection);
    this.done = this.#run();
  }

  /**
   * Starts a schedule, in place of the current one. `rate`: messages per second, Infinity for as fast
   * as the kernel takes them. Times are in ms of `performance.now()`.
   */
  start(rate: number, nowMs: number = performance.now(), endMs: number = Infinity): void {
    this.stop(nowMs);
    this.#inBytes = false;
    this.#schedule = new Schedule(rate, nowMs, endMs);
  }

  /**
   * The same with a rate in bytes a second: a message is due once all its bytes are. Where messages have
   * different sizes, that is another schedule.
   */
  startBytes(rate: number, nowMs: number = performance.now(), endMs: number = Infinity): void {
    this.stop(nowMs);
    this.#inBytes = true;
    this.#schedule = new Schedule(rate, nowMs, endMs);
  }

  /** Ends the schedule. Messages that are already due are still sent. */
  stop(nowMs: number = performance.now()): void {
    if (this.#schedule === undefined) return;
    this.#dueBefore = this.#schedule.rate === Infinity ? this.#begunMessages() : this.#dueAt(nowMs);
    this.#schedule = undefined;
    this.#tick(nowMs);
  }

  /** Makes so many more bytes due at once, rounded up to whole messages, beside the schedule. */
  burst(bytes: number, nowMs: number = performance.now()): void {
    const { message } = this;
    const due = this.#dueAt(nowMs);
    this.#dueBefore += message.begunBefore(message.offsetOf(due) + bytes) - due;
    this.#tick(nowMs);
  }

  /** Sends these bytes before the next message begins; they must not change. */
  interject(bytes: Uint8Array): void {
    this.#interjections.push(bytes);
    this.#wakeUp();
  }

  get interjecting(): boolean {
    return this.#interjections.length > 0;
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
    return this.message.offsetOf(this.#dueAt(nowMs));
  }

  /** Messages that are due and of which no byte has been accepted. */
  get pendingMessages(): number {
    return Math.max(0, this.#due - this.#begunMessages());
  }

  /** Their bytes. */
  get pendingBytes(): number {
    const { message } = this;
    const begun = this.#begunMessages();
    return this.#due <= begun ? 0 : message.offsetOf(this.#due) - message.offsetOf(begun);
  }

  /** Messages of which the kernel has accepted all bytes. */
  get sentMessages(): number {
    return this.message.begunBefore(this.accepted + 1) - 1;
  }

  drop(): void {
    // The kernel may already have taken the bytes of the current write.
    const begun = this.message.begunBefore(this.accepted + this.#inFlight);
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
    return this.message.begunBefore(this.accepted);
  }

  #dueAt(nowMs: number): number {
    const due = this.#schedule?.due(nowMs) ?? 0;
    if (!this.#inBytes || due === Infinity) return this.#dueBefore + due;
    const { message } = this;
    return message.begunBefore(message.offsetOf(this.#dueBefore) + due + 1) - 1;
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
    const passed = this.#deadlines?.check(this.pendingBytes, this.accepted, nowMs);
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

  get #isBetweenMessages(): boolean {
    return this.accepted === this.message.offsetOf(this.#begunMessages());
  }

  /** Bytes of the message that was begun. */
  get #restOfMessage(): number {
    return this.message.offsetOf(this.#begunMessages()) - this.accepted;
  }

  /** False: the connection has ended. */
  async #say(bytes: Uint8Array): Promise<boolean> {
    for (let at = 0; at < bytes.length;) {
      const taken = await this.connection.write(bytes.subarray(at));
      if (taken === 0) return false;
      at += taken;
      this.interjected += taken;
    }
    return true;
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
      if (this.#interjections.length > 0 && this.#isBetweenMessages) {
        if (!await this.#say(this.#interjections[0]!)) break;
        this.#interjections.shift();
        continue;
      }
      // A partly sent message is always completed, even when the schedule has ended.
      const owed = message.offsetOf(Math.max(this.#due, this.#begunMessages())) - this.accepted;
      const room = owed > 0 ? gate?.room() ?? owed : 0;
      if (room === 0) {
        if (owed <= 0 && this.#finishing) break;
        if (owed <= 0) gate?.idle();
        turn = 0;
        await new Promise<void>((resolve) => this.#wake = resolve);
        continue;
      }
      // Where something is to be said, this message is the last one before it.
      const most = this.#interjections.length > 0 ? this.#restOfMessage : this.#writeSize;
      const bytes = message.slice(this.accepted, Math.min(owed, room, most));
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
