/**
 * Delivers one reader's stream in order: from the source into memory, through the disk if the
 * overflow policy says so, and to the reader's current connection. It outlives connections: a reader
 * that reconnects is first sent what it has missed.
 */
import type { Ack, DeliveryOptions } from "./delivery_options.ts";
import { StreamBuffer } from "./stream_buffer.ts";
import { LONGEST_WRITE } from "../message/message.ts";
import type { Connection } from "../net/net.ts";
import {
  FULL_AFTER_MS,
  type Overflowing,
  type OverflowPolicy,
  policyOf,
} from "../send/overflow.ts";
import { nextTurn, TURN_BYTES } from "../send/pacer.ts";
import { endOf } from "./read_ahead.ts";
import type { ReaderFigures } from "./figures.ts";
import { Gate } from "./gate.ts";
import { ReaderConnection } from "./reader_connection.ts";

export type { Ack, DeliveryEvent } from "./delivery_options.ts";

/** Bytes above the bound that may wait in memory for the disk before the source is blocked. */
const DISK_LAG = 16 * LONGEST_WRITE;
/** Limit of bytes sent but not acknowledged: above it the stream is spilled, or the source blocked. */
const MOST_UNACKED = 64 * LONGEST_WRITE;
/** Step in which stream offsets are reserved; bytes. */
const RESERVE = 2 ** 30;

export class Delivery implements Overflowing {
  /** Offset up to which everything has been delivered. */
  delivered: number;
  /** Offset up to which the current connection's kernel has accepted the stream. */
  sent: number;
  /** Bytes that the kernel accepted, over all connections, and the messages that ended in them. */
  accepted = 0;
  messages = 0;
  /** Messages dropped: by the policy, by a full queue, or because no reader was connected. */
  dropped = 0;
  overflows = 0;
  gaps = 0;
  readonly #options: DeliveryOptions;
  readonly #policy: OverflowPolicy;
  readonly #buffer: StreamBuffer;
  #wake: (() => void) | undefined;
  readonly #gate: Gate = new Gate(() => this.#hasRoom());
  #inFlight = 0;
  #overflowing = false;
  /** `dropped` when the queue last became full, or had room again. */
  #droppedBefore = 0;
  #finishing = false;
  #stopped = false;
  #ack: Ack = "none";
  #reader: ReaderConnection | undefined;

  constructor(options: DeliveryOptions) {
    this.#options = options;
    this.#policy = policyOf(options.policy);
    this.delivered = this.sent = options.queue?.delivered ?? 0;
    this.#buffer = new StreamBuffer(options, {
      onStored: () => {
        this.#releaseStored();
        this.#onProgress();
        options.onSafe?.();
      },
      onFull: (why) => {
        const { whenFull: then, onEvent } = options;
        const dropped = this.dropped - this.#droppedBefore;
        this.#droppedBefore = this.dropped;
        onEvent(
          why === undefined ? { event: "queue-room", dropped } : { event: "queue-full", why, then },
        );
        this.#onProgress();
      },
      onError: options.onError,
    });
  }

  /** The reader's current connection, if any. */
  get connection(): Connection | undefined {
    return this.#reader?.connection;
  }

  /** End of the stream. */
  get tail(): number {
    return this.#buffer.tail;
  }

  /** Position of the source at the tail. */
  get position(): number {
    return this.#buffer.position;
  }

  /** For a new stream of a source that is already running: the position it starts at. */
  set position(position: number) {
    this.#buffer.position = position;
  }

  /** Bytes in memory that neither the kernel has accepted nor the disk stored. */
  get pendingBytes(): number {
    return Math.max(0, this.tail - Math.max(this.sent, this.#buffer.storedEnd));
  }

  /** Offset up to which the kernel may have accepted bytes, including a write in flight. */
  get offered(): number {
    return this.sent + this.#inFlight;
  }

  get hasUndelivered(): boolean {
    return this.delivered < this.tail;
  }

  /** Bytes of messages in memory. */
  get memoryBytes(): number {
    return this.#buffer.blocks.bytes;
  }

  figures(): Omit<ReaderFigures, "name"> {
    const { connection, accepted: acceptedBytes, delivered, tail, gaps, dropped } = this;
    // A reader may have acknowledged what this server does not have.
    const lagBytes = Math.max(0, tail - delivered);
    const oldest = lagBytes > 0 ? this.#buffer.blocks.at(delivered) : undefined;
    const { bytes, messages } = this.#options.queue?.stored ?? { bytes: 0, messages: 0 };
    // The average of what is there: of a message on disk, only its batch's count is known.
    const each = oldest === undefined ? messages / bytes : oldest.messages / oldest.length;
    const lagMs = oldest === undefined ? NaN : performance.now() - oldest.sinceMs;
    return {
      connected: connection !== undefined,
      acceptedBytes,
      deliveredOffset: delivered,
      lagBytes,
      lagMessages: lagBytes > 0 ? Math.ceil(lagBytes * each) || 0 : 0,
      lagSeconds: lagBytes > 0 ? lagMs / 1000 : 0,
      gaps,
      dropped,
      duplicatesAvoided: 0,
    };
  }

  /** Source position up to which everything is delivered or on disk: the source may discard it. */
  get safePosition(): number {
    const end = Math.max(this.delivered, this.#buffer.storedEnd);
    return this.#buffer.positionAt(Math.min(end, this.tail));
  }

  /** Accepts whole messages from the source. If it returns a promise, the source must await it. */
  push(bytes: Uint8Array, messages: number, position: number): void | Promise<void> {
    const { positionPerByte } = this.#options;
    if (positionPerByte > 0 && position < this.position) {
      // A shared source restarted at an earlier position, which another reader needs.
      const repeated = Math.round((this.position - position) / positionPerByte);
      if (repeated >= bytes.length) return;
      messages = Math.round(messages * (1 - repeated / bytes.length));
      bytes = bytes.subarray(repeated);
    }
    if (positionPerByte > 0 && position > this.position) this.#buffer.skipTo(position);
    if (this.#refuses()) {
      this.dropped += messages;
      this.#buffer.advance(bytes.length);
      if (this.#policy.dropsNewest) this.#overflow();
      return;
    }
    this.#buffer.push(bytes, messages);
    if (this.tail <= this.delivered) this.#buffer.blocks.release(this.delivered);
    if (this.connection === undefined) this.spill();
    this.#buffer.spiller?.appendReady();
    this.#wakeUp();
    if (this.#gate.free) return;
    if (this.#policy.needsQueue) this.spill();
    return this.#gate.wait();
  }

  /** Whether new messages are dropped: no reader is connected, or the backlog is above the bound. */
  #refuses(): boolean {
    const { bound, whenFull } = this.#options;
    const { keepsForAbsentReaders, dropsNewest, needsQueue } = this.#policy;
    const absent = this.connection === undefined;
    if (absent && !keepsForAbsentReaders) return true;
    if (dropsNewest) {
      return this.pendingBytes > bound && (absent || this.connection!.blockedSince !== undefined);
    }
    return needsQueue === true && whenFull === "drop" && this.#buffer.spiller?.full !== undefined &&
      this.pendingBytes > bound;
  }

  /** Unblocks a waiting source for good: the server is shutting down. */
  unblockSource(): void {
    this.#gate.open();
  }

  #hasRoom(): boolean {
    const { bound } = this.#options;
    const most = this.#policy.makesSourceWait ? Math.max(bound, LONGEST_WRITE) : bound + DISK_LAG;
    return this.pendingBytes <= most && this.#buffer.blocks.bytes <= most + MOST_UNACKED;
  }

  /**
   * Sends the stream on a connection from offset `at` on (default: the first undelivered message).
   * Resolves with true once the finished stream is delivered completely, with false if the
   * connection ends before that. Rejects where the queue fails. The caller closes the connection.
   * `hangUp` ends it in order, after `stopSending`: what the reader acknowledges meanwhile counts.
   */
  async feed(
    connection: Connection,
    ack: Ack,
    hangUp: () => Promise<void>,
    at?: number,
  ): Promise<boolean> {
    this.#ack = ack;
    if (at !== undefined) this.acknowledge(at);
    const cursor = at ?? await this.#buffer.startOfMessage(this.delivered);
    const reader = this.#reader = new ReaderConnection(connection, cursor);
    this.sent = cursor;
    let ended = false;
    void connection.closed.then(() => {
      ended = true;
      this.#wakeUp();
    });
    const stopTicking = this.#options.ticker.add((nowMs) => {
      try {
        this.#tick(nowMs);
      } catch (error) {
        this.#options.onError(error as Error);
      }
    });
    try {
      await this.#send(reader, cursor, ack, () => ended || this.#stopped);
      // Node and Bun close a connection once both ends have sent FIN: TCP then no longer tells what was
      // acknowledged.
      while (this.#stopped && !ended && ack === "tcp" && this.delivered < this.sent) {
        await new Promise<void>((resolve) => this.#wake = resolve);
      }
      if (this.#stopped && !ended) await hangUp();
      this.#pollAcknowledged();
      return !ended && !this.#stopped && this.#finishing && this.delivered >= this.tail;
    } finally {
      // Also where the queue has failed: the reader can come back.
      stopTicking();
      this.#detach();
    }
  }

  /** Sends until the connection has ended, or sending is to end, or everything is delivered. */
  async #send(
    reader: ReaderConnection,
    cursor: number,
    ack: Ack,
    ended: () => boolean,
  ): Promise<void> {
    const { connection } = reader;
    const { queue, replayable } = this.#options;
    let turn = 0;
    while (!ended()) {
      const finding = this.#buffer.find(cursor);
      const piece = finding instanceof Promise ? await finding : finding;
      if (piece === undefined) {
        if (cursor < this.tail) {
          const next = await this.#buffer.available(cursor);
          if (next === cursor) continue;
          this.gaps++;
          this.#options.onEvent({ event: "gap", from: cursor, to: next });
          // This reader counts bytes: only the handshake of a new connection can tell it the offset
          // after the gap.
          if (ack === "reader") break;
          reader.skip(cursor, next);
          cursor = this.sent = next;
          continue;
        }
        if (this.#finishing && this.delivered >= this.tail) break;
        turn = 0;
        if (!ended()) await new Promise<void>((resolve) => this.#wake = resolve);
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
      const accepted = typeof write === "number" ? write : await write;
      if (block !== undefined) block.pinned = false;
      this.#inFlight = 0;
      if (accepted === 0) break;
      this.accepted += accepted;
      cursor = this.sent = cursor + accepted;
      if (cursor === endOf(piece.whole)) this.messages += reader.count(piece.whole);
      if (accepted < bytes.length) this.#overflow();
      if (ack === "none") this.acknowledge(cursor);
      this.#onProgress();
      turn += accepted;
      if (turn >= TURN_BYTES) {
        turn = 0;
        await nextTurn();
      }
    }
  }

  #detach(): void {
    this.#reader = undefined;
    this.#buffer.resetReadAhead();
    this.#overflowing = false;
    // The next connection sends unacknowledged bytes again.
    this.sent = this.delivered;
    if (!this.#policy.keepsForAbsentReaders) {
      this.#discard();
    } else {
      this.spill();
      this.#releaseStored();
    }
    this.#onProgress();
  }

  /** Drops and counts all undelivered messages in memory. */
  #discard(): void {
    for (let block; (block = this.#buffer.blocks.after(this.delivered)) !== undefined;) {
      this.dropped += block.messages;
      this.acknowledge(block.end);
    }
  }

  /** Everything before `offset` has been delivered. */
  acknowledge(offset: number): void {
    if (offset <= this.delivered) return;
    this.delivered = offset;
    if (this.#reader !== undefined) this.#reader.progressAtMs = performance.now();
    this.#buffer.release(offset);
    this.#options.onSafe?.();
    this.#onProgress();
    this.#wakeUp();
  }

  /** The source has ended: `feed` returns once everything is delivered. */
  finish(): void {
    this.#finishing = true;
    this.#wakeUp();
  }

  /** The server is shutting down: nothing more is sent once the write in flight has settled. */
  stopSending(): void {
    this.#stopped = true;
    this.#wakeUp();
  }

  /** Stores everything in memory on disk; without a queue it is dropped. */
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

  /** From now on messages are stored on disk; without a queue, or when they are already, no effect. */
  spill(): void {
    const { spiller } = this.#buffer;
    if (spiller === undefined || spiller.on) return;
    this.#options.onEvent({ event: "spilling", backlog: this.tail - this.delivered });
    spiller.start();
  }

  /** Bytes were accepted, stored or acknowledged: delivery from memory may resume, the source too. */
  #onProgress(): void {
    const { spiller } = this.#buffer;
    if (
      spiller?.on && !this.#finishing && this.connection !== undefined &&
      this.tail - this.sent <= this.#options.resumeBelow &&
      this.#buffer.blocks.bytes <= MOST_UNACKED
    ) {
      spiller.stop();
      this.#options.onEvent({ event: "caught-up", spilled: spiller.stored });
    }
    this.#gate.recheck();
    if (this.#wake !== undefined) this.#wakeUp();
  }

  /**
   * Frees memory that has been stored on disk. It is kept for a reader that has paused only briefly,
   * whose next bytes are still in memory: it then resumes from memory and does not wait for the disk.
   * A reader whose next bytes are no longer in memory has to read from the disk anyway.
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
    const { blockedSince } = reader.connection;
    if (this.#awaitsKernel(blockedSince) && reader.isPollDue(nowMs)) this.#pollAcknowledged();
    if (blockedSince === undefined || nowMs - blockedSince < FULL_AFTER_MS) {
      this.#overflowing = false;
      return;
    }
    this.#overflow();
    const { zeroWindowTimeoutMs, onEvent } = this.#options;
    const stalledMs = reader.stalledMs(nowMs);
    if (stalledMs < zeroWindowTimeoutMs || !reader.windowMayBeZero()) return;
    onEvent({ event: "dead", why: "window", seconds: stalledMs / 1000 });
    reader.connection.reset();
  }

  /**
   * Whether the reader's kernel has something to tell: bytes that it has not acknowledged, or whether
   * a reader that blocks makes progress. Thousands of readers that have everything are not asked.
   */
  #awaitsKernel(blockedSince: number | undefined): boolean {
    if (this.#ack === "tcp" && this.delivered < this.sent) return true;
    return blockedSince !== undefined && this.#options.zeroWindowTimeoutMs < Infinity;
  }

  #overflow(): void {
    const { policy, bound, onEvent } = this.#options;
    const backlog = this.pendingBytes;
    if (backlog === 0 || backlog <= bound || this.#stopped) return;
    if (!this.#overflowing) {
      this.#overflowing = true;
      this.overflows++;
      if (this.overflows === 1) {
        onEvent({ event: "overflow", policy, messages: this.messages, backlog });
      }
    }
    this.#policy.act(this);
  }

  #pollAcknowledged(): void {
    const acknowledged = this.#reader?.acknowledged();
    // Not only when the value has changed: bytes of a write in flight can be acknowledged before the
    // write returns, and `sent` limits what counts.
    if (acknowledged === undefined || this.#ack !== "tcp") return;
    this.acknowledge(Math.min(acknowledged, this.sent));
  }

  /** The first offset at or after `offset` that can be sent, now or later. */
  available(offset: number): Promise<number> {
    return this.#buffer.available(offset);
  }
}
