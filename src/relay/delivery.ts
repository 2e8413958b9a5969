/**
 * The way of one reader's stream: from the source into what is kept for it, through the disk when
 * the policy says so, and to whichever connection the reader has just now, in order: a reader that
 * comes back is first sent what it missed.
 */
import { StreamBuffer, type StreamBufferOptions } from "./stream_buffer.ts";
import { LONGEST_WRITE } from "../message/message.ts";
import type { Connection } from "../net/net.ts";
import {
  FULL_AFTER_MS,
  type Overflowing,
  type OverflowPolicy,
  type Policy,
  policyOf,
} from "../send/overflow.ts";
import { nextTurn, type Ticker, TURN_BYTES } from "../send/pacer.ts";
import { endOf } from "./read_ahead.ts";
import { Gate } from "./gate.ts";
import { ReaderConnection } from "./reader_connection.ts";

/**
 * What counts as delivered: `none`, the kernel took it; `tcp`, the reader's kernel acknowledged it;
 * `reader`, the reader said so (see ack.ts).
 */
export type Ack = "none" | "tcp" | "reader";

export type DeliveryEvent =
  | { event: "overflow"; policy: Policy; messages: number; backlog: number }
  /** From now on its messages go to disk; they come from memory again. */
  | { event: "spilling"; backlog: number }
  | { event: "caught-up"; spilled: number }
  /** The queue takes no more (its bound, or the disk's); it does again, `dropped` messages later. */
  | { event: "queue-full"; why: "max" | "disk"; then: "block" | "drop" }
  | { event: "queue-room"; dropped: number }
  /** Bytes that nobody has any more: a batch was damaged, or an earlier server was killed. */
  | { event: "gap"; from: number; to: number }
  /** What was in memory at the end and found no room on disk; its source cannot give it again. */
  | { event: "lost"; bytes: number }
  /** Zero window, and nothing moved for so long: it is hung up on. */
  | { event: "dead"; seconds: number };

export interface DeliveryOptions extends StreamBufferOptions {
  policy: Policy;
  /** Bytes that may wait in memory before the policy acts. */
  bound: number;
  /** Bytes that wait when a spilling stream comes from memory again. */
  resumeBelow: number;
  whenFull: "block" | "drop";
  /** Infinity: never. */
  zeroWindowTimeoutMs: number;
  ticker: Ticker;
  onEvent: (event: DeliveryEvent) => void;
  /** `safePosition` may have moved. */
  onSafe?: (() => void) | undefined;
  /** The queue cannot go on. */
  onError: (error: Error) => void;
}

/** Beyond the bound, so much waits in memory for the disk before the source has to wait. */
const DISK_LAG = 16 * LONGEST_WRITE;
/** Sent and not acknowledged: beyond this the source has to wait, or it goes to disk. */
const MOST_UNACKED = 64 * LONGEST_WRITE;
/** Offsets are reserved in steps of so many bytes. */
const RESERVE = 2 ** 30;

export class Delivery implements Overflowing {
  /** All before this has been delivered. */
  delivered: number;
  /** End of what was offered to the kernel. */
  sent: number;
  /** Bytes that the kernel took, and messages that ended in them, over all connections. */
  accepted = 0;
  messages = 0;
  /** Messages that were dropped: by the policy, by a full queue, or for want of a reader. */
  dropped = 0;
  overflows = 0;
  readonly #options: DeliveryOptions;
  readonly #policy: OverflowPolicy;
  readonly #buffer: StreamBuffer;
  #wake: (() => void) | undefined;
  readonly #gate: Gate = new Gate(() => this.#hasRoom());
  #inFlight = 0;
  #overflowing = false;
  /** Up to when the queue was full, or had room again. */
  #droppedBefore = 0;
  #finishing = false;
  #ack: Ack = "none";
  #reader: ReaderConnection | undefined;

  constructor(options: DeliveryOptions) {
    this.#options = options;
    this.#policy = policyOf(options.policy);
    this.delivered = this.sent = options.queue?.delivered ?? 0;
    this.#buffer = new StreamBuffer(options, {
      onStored: () => {
        this.#releaseStored();
        this.#moved();
        options.onSafe?.();
      },
      onFull: (why) => {
        const { whenFull: then, onEvent } = options;
        const dropped = this.dropped - this.#droppedBefore;
        this.#droppedBefore = this.dropped;
        onEvent(
          why === undefined ? { event: "queue-room", dropped } : { event: "queue-full", why, then },
        );
        this.#moved();
      },
      onError: options.onError,
    });
  }

  /** The one that it has just now. */
  get connection(): Connection | undefined {
    return this.#reader?.connection;
  }

  /** End of the stream. */
  get tail(): number {
    return this.#buffer.tail;
  }

  /** Where the source stands at the tail. */
  get position(): number {
    return this.#buffer.position;
  }

  /** A stream that is new to a source which is under way begins there. */
  set position(position: number) {
    this.#buffer.position = position;
  }

  /** Bytes that wait in memory for the kernel or for the disk. */
  get waiting(): number {
    return Math.max(0, this.tail - Math.max(this.sent, this.#buffer.storedEnd));
  }

  /** End of what the kernel may have taken: a write that is under way is known only later. */
  get offered(): number {
    return this.sent + this.#inFlight;
  }

  /** Not all has been delivered. */
  get owes(): boolean {
    return this.delivered < this.tail;
  }

  /** Up to where the source need not keep what it sent: it is on disk, or delivered. */
  get safePosition(): number {
    const end = Math.max(this.delivered, this.#buffer.storedEnd);
    return this.#buffer.positionAt(Math.min(end, this.tail));
  }

  /** Takes whole messages in. A promise: the source has to wait for it. */
  push(bytes: Uint8Array, messages: number, position: number): void | Promise<void> {
    const { positionPerByte } = this.#options;
    if (positionPerByte > 0 && position < this.position) {
      // The source went back further than this reader needs: another one did.
      const known = Math.round((this.position - position) / positionPerByte);
      if (known >= bytes.length) return;
      messages = Math.round(messages * (1 - known / bytes.length));
      bytes = bytes.subarray(known);
    }
    if (positionPerByte > 0 && position > this.position) this.#buffer.skipTo(position);
    if (this.#refuses()) {
      this.dropped += messages;
      this.#buffer.pass(bytes.length);
      if (this.#policy.dropsNewest) this.#overflow();
      return;
    }
    this.#buffer.push(bytes, messages);
    if (this.tail <= this.delivered) this.#buffer.blocks.release(this.delivered);
    if (this.connection === undefined) this.spill();
    this.#buffer.spiller?.pump();
    this.#wakeUp();
    if (this.#gate.free) return;
    if (this.#policy.needsQueue) this.spill();
    return this.#gate.wait();
  }

  /** Nobody is there to have them, or a bound is reached that says drop. */
  #refuses(): boolean {
    const { bound, whenFull } = this.#options;
    const { keepsForAbsentReaders, dropsNewest, needsQueue } = this.#policy;
    const gone = this.connection === undefined;
    if (gone && !keepsForAbsentReaders) return true;
    if (dropsNewest) {
      return this.waiting > bound && (gone || this.connection!.blockedSince !== undefined);
    }
    return needsQueue === true && whenFull === "drop" && this.#buffer.spiller?.full !== undefined &&
      this.waiting > bound;
  }

  /** Whoever waits with more is let go: nobody will take it. */
  letGo(): void {
    this.#gate.open();
  }

  #hasRoom(): boolean {
    const { bound } = this.#options;
    const most = this.#policy.makesSourceWait ? Math.max(bound, LONGEST_WRITE) : bound + DISK_LAG;
    return this.waiting <= most && this.#buffer.blocks.bytes <= most + MOST_UNACKED;
  }

  /**
   * Feeds a connection from `at` on (default: from the first message that was not delivered) until
   * it ends (false), or all there will ever be has been delivered (true). It does not close it.
   */
  async feed(connection: Connection, ack: Ack, at?: number): Promise<boolean> {
    this.#ack = ack;
    if (at !== undefined) this.acknowledge(at);
    let cursor = at ?? await this.#buffer.startOfMessage(this.delivered);
    const reader = this.#reader = new ReaderConnection(connection, cursor);
    this.sent = cursor;
    let ended = false;
    void connection.closed.then(() => {
      ended = true;
      this.#wakeUp();
    });
    const stopTicking = this.#options.ticker.add((nowMs) => this.#tick(nowMs));
    const { queue, replayable } = this.#options;
    let turn = 0;
    while (!ended) {
      const finding = this.#buffer.find(cursor);
      const piece = finding instanceof Promise ? await finding : finding;
      if (piece === undefined) {
        if (cursor < this.tail) {
          const next = await this.#buffer.available(cursor);
          if (next === cursor) continue;
          this.#options.onEvent({ event: "gap", from: cursor, to: next });
          // Its reader counts bytes: only a new connection can tell it where they go on.
          if (ack === "reader") break;
          reader.skip(cursor, next);
          cursor = this.sent = next;
          continue;
        }
        if (this.#finishing && this.delivered >= this.tail) break;
        turn = 0;
        if (!ended) await new Promise<void>((resolve) => this.#wake = resolve);
        continue;
      }
      const { block } = piece;
      const bytes = piece.bytes.length > LONGEST_WRITE
        ? piece.bytes.subarray(0, LONGEST_WRITE)
        : piece.bytes;
      if (ack === "reader" && !replayable && queue !== undefined) {
        if (cursor + bytes.length > queue.reserved) await queue.reserve(cursor + RESERVE);
      }
      this.#inFlight = bytes.length;
      if (block !== undefined) block.pinned = true;
      const write = connection.write(bytes);
      const taken = typeof write === "number" ? write : await write;
      if (block !== undefined) block.pinned = false;
      this.#inFlight = 0;
      if (taken === 0) break;
      this.accepted += taken;
      cursor = this.sent = cursor + taken;
      if (cursor === endOf(piece.whole)) this.messages += reader.count(piece.whole);
      if (taken < bytes.length) this.#overflow();
      if (ack === "none") this.acknowledge(cursor);
      this.#moved();
      turn += taken;
      if (turn >= TURN_BYTES) {
        turn = 0;
        await nextTurn();
      }
    }
    this.#pollAcked();
    stopTicking();
    const finished = !ended && this.#finishing && this.delivered >= this.tail;
    this.#detach();
    return finished;
  }

  #detach(): void {
    this.#reader = undefined;
    this.#buffer.forgetReading();
    this.#overflowing = false;
    // What was not acknowledged is sent again.
    this.sent = this.delivered;
    if (!this.#policy.keepsForAbsentReaders) {
      this.#discard();
    } else {
      this.spill();
      this.#releaseStored();
    }
    this.#moved();
  }

  #discard(): void {
    for (let block; (block = this.#buffer.blocks.after(this.delivered)) !== undefined;) {
      this.dropped += block.messages;
      this.acknowledge(block.end);
    }
  }

  /** All before `offset` has been delivered. */
  acknowledge(offset: number): void {
    if (offset <= this.delivered) return;
    this.delivered = offset;
    if (this.#reader !== undefined) this.#reader.movedAtMs = performance.now();
    this.#buffer.release(offset);
    this.#options.onSafe?.();
    this.#moved();
    this.#wakeUp();
  }

  /** There will be no more: `feed` ends once all of it is delivered. */
  finish(): void {
    this.#finishing = true;
    this.#wakeUp();
  }

  /** Puts all that is in memory on disk, where there is a queue. */
  async store(): Promise<void> {
    if (this.#buffer.spiller === undefined) return this.#discard();
    await this.#buffer.store();
    const end = Math.max(this.#buffer.storedEnd, this.delivered);
    if (end >= this.tail || this.#options.replayable || this.connection !== undefined) return;
    this.#options.onEvent({ event: "lost", bytes: this.tail - end });
  }

  end(how: "close" | "reset"): void {
    this.connection?.[how]();
  }

  spill(): void {
    const { spiller } = this.#buffer;
    if (spiller === undefined || spiller.on) return;
    this.#options.onEvent({ event: "spilling", backlog: this.tail - this.delivered });
    spiller.start();
  }

  /** Something went on: perhaps there is room again, or the disk has been emptied. */
  #moved(): void {
    const { spiller } = this.#buffer;
    if (
      spiller?.on && !this.#finishing && this.connection !== undefined &&
      this.tail - this.sent <= this.#options.resumeBelow &&
      this.#buffer.blocks.bytes <= MOST_UNACKED
    ) {
      spiller.stop();
      this.#options.onEvent({ event: "caught-up", spilled: spiller.stored });
    }
    this.#gate.look();
    if (this.#wake !== undefined) this.#wakeUp();
  }

  /**
   * What is on disk stays in memory, too, for a reader that stood still for a moment: it goes on from
   * there, and need not come after all that the disk still has to do. One whose next bytes are not there
   * has to, and then the rest is of no use.
   */
  #releaseStored(): void {
    const { blocks, storedEnd } = this.#buffer;
    const near = this.connection !== undefined &&
      blocks.bytes <= this.#options.bound + DISK_LAG &&
      (blocks.first?.offset ?? Infinity) <= this.sent;
    if (!near) blocks.release(storedEnd);
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  #tick(nowMs: number): void {
    const reader = this.#reader;
    if (reader === undefined) return;
    if (reader.isDue(nowMs)) this.#pollAcked();
    const { blockedSince } = reader.connection;
    if (blockedSince === undefined || nowMs - blockedSince < FULL_AFTER_MS) {
      this.#overflowing = false;
      return;
    }
    this.#overflow();
    const { zeroWindowTimeoutMs, onEvent } = this.#options;
    const stillMs = reader.stillMs(nowMs);
    if (stillMs < zeroWindowTimeoutMs || !reader.isShut()) return;
    onEvent({ event: "dead", seconds: stillMs / 1000 });
    reader.connection.reset();
  }

  #overflow(): void {
    const { policy, bound, onEvent } = this.#options;
    if (this.waiting === 0 || this.waiting <= bound) return;
    if (!this.#overflowing) {
      this.#overflowing = true;
      this.overflows++;
      if (this.overflows === 1) {
        onEvent({ event: "overflow", policy, messages: this.messages, backlog: this.waiting });
      }
    }
    this.#policy.act(this);
  }

  #pollAcked(): void {
    const acknowledged = this.#reader?.acknowledged();
    // Even if it is the same: of a write that is under way it may be acknowledged before we know that
    // it was sent.
    if (acknowledged === undefined || this.#ack !== "tcp") return;
    this.acknowledge(Math.min(acknowledged, this.sent));
  }

  /** The first offset from `offset` on that can be sent, now or later. */
  available(offset: number): Promise<number> {
    return this.#buffer.available(offset);
  }
}
