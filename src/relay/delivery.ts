/**
 * Sends one reader its part of a stream, in order, on one connection after the other: a reader that
 * reconnects is first sent what it has missed.
 */
import type { Ack, DeliveryOptions } from "./delivery_options.ts";
import { LONGEST_WRITE } from "../message/message.ts";
import type { Connection } from "../net/net.ts";
import { endOf } from "../queue/queue.ts";
import { DeadlineWatch, hasDeadline, type Passed } from "../send/deadlines.ts";
import { FULL_AFTER_MS, type Overflowing, policyOf } from "../send/overflow.ts";
import { nextTurn, TURN_BYTES } from "../send/pacer.ts";
import { openGate, type UnreadGate } from "../send/unread.ts";
import type { ReaderFigures } from "./figures.ts";
import { ReaderConnection } from "./reader_connection.ts";
import type { Piece, Stream } from "./stream.ts";
import type { StreamCursor } from "./stream_cursor.ts";

export class Delivery implements Overflowing {
  readonly stream: Stream;
  readonly cursor: StreamCursor;
  /** Bytes that the kernel accepted, over all connections, and the messages that ended in them. */
  accepted = 0;
  messages = 0;
  overflows = 0;
  readonly #options: DeliveryOptions;
  #reader: ReaderConnection | undefined;
  /** Of its connection; undefined: the reader is sent as much as the kernel takes. */
  #gate: UnreadGate | undefined;
  #deadlines: DeadlineWatch | undefined;
  #ack: Ack = "none";
  #wake: (() => void) | undefined;
  #overflowing = false;
  #finishing = false;
  #stopped = false;

  constructor(stream: Stream, cursor: StreamCursor, options: DeliveryOptions) {
    this.stream = stream;
    this.cursor = cursor;
    this.#options = options;
  }

  /** The reader's current connection, if any. */
  get connection(): Connection | undefined {
    return this.#reader?.connection;
  }

  /** Messages dropped: by the policy, by a full queue, or because the reader was not connected. */
  get dropped(): number {
    return this.cursor.dropped;
  }

  get hasUndelivered(): boolean {
    return this.cursor.delivered < this.stream.tail;
  }

  /** When the reader has last taken or acknowledged something on this connection; ms of `performance.now()`. */
  get progressAtMs(): number | undefined {
    return this.#reader?.progressAtMs;
  }

  /**
   * Sends the stream on a connection, from offset `at` on (default: the first undelivered message).
   * Resolves with true once the finished stream is delivered completely, with false if the connection
   * ends before that. Rejects where the queue fails. The caller closes the connection. `hangUp` ends it
   * in order, after `stopSending` or where bytes are missing for a reader that acknowledges: what it
   * acknowledges meanwhile counts. `written`: bytes that were already written on the connection.
   */
  async feed(
    connection: Connection,
    ack: Ack,
    hangUp: () => Promise<void>,
    at?: number,
    written = 0,
  ): Promise<boolean> {
    const { stream, cursor } = this;
    this.#ack = ack;
    if (at !== undefined) this.acknowledge(at);
    const start = at ?? await stream.startOfMessage(cursor);
    const reader = this.#reader = new ReaderConnection(connection, start);
    stream.attach(cursor, connection, start);
    const { unread, onEvent } = this.#options;
    this.#gate = unread === undefined ? undefined : openGate({
      ...{ connection, unread, written, onEvent, wake: () => this.wake() },
      acknowledges: ack === "reader" ? cursor : undefined,
    });
    this.#deadlines = hasDeadline(this.#options) ? new DeadlineWatch(this.#options) : undefined;
    let ended = false;
    void connection.closed.then(() => {
      ended = true;
      this.wake();
    });
    const stopTicking = this.#options.ticker.add((nowMs) => this.#tick(nowMs));
    try {
      const atGap = await this.#send(reader, () => ended || this.#stopped);
      // Node and Bun close a connection once both ends have sent FIN: TCP then no longer tells what was
      // acknowledged.
      while (this.#stopped && !ended && ack === "tcp" && cursor.delivered < cursor.sent) {
        await new Promise<void>((resolve) => this.#wake = resolve);
      }
      if ((this.#stopped || atGap) && !ended) await hangUp();
      this.#pollAcknowledged();
      return !ended && !this.#stopped && this.#finishing && !this.hasUndelivered;
    } finally {
      // Also where the queue has failed: the reader can come back.
      stopTicking();
      this.#reader = this.#gate = undefined;
      this.#overflowing = false;
      stream.detach(cursor);
    }
  }

  /**
   * Sends until the connection has ended, or sending is to end, or everything is delivered. True: up to a
   * gap that only the handshake of another connection can tell the reader.
   */
  async #send(reader: ReaderConnection, ended: () => boolean): Promise<boolean> {
    const { stream, cursor } = this;
    let turn = 0;
    const gate = this.#gate;
    while (!ended()) {
      const room = gate?.room() ?? LONGEST_WRITE;
      if (room === 0) {
        turn = 0;
        await new Promise<void>((resolve) => this.#wake = resolve);
        continue;
      }
      const answer = stream.next(cursor);
      const next = answer instanceof Promise ? await answer : answer;
      if (next === undefined) {
        if (this.#finishing && !this.hasUndelivered) return false;
        turn = 0;
        gate?.idle();
        if (!ended()) await new Promise<void>((resolve) => this.#wake = resolve);
      } else if (typeof next === "number") {
        if (next <= cursor.sent) continue;
        // This reader counts bytes.
        if (this.#ack === "reader") return true;
        reader.skip(cursor.sent, next);
        stream.skip(cursor, next);
      } else {
        let most = Math.min(room, LONGEST_WRITE);
        if (gate?.wholeMessages) most = stream.wholeMessages(next, cursor.sent, most);
        const write = this.#write(reader, next, most);
        const accepted = typeof write === "number" ? write : await write;
        if (accepted === 0) return false;
        turn += accepted;
        if (turn >= TURN_BYTES) {
          turn = 0;
          await nextTurn();
        }
      }
    }
    return false;
  }

  /** Offers the kernel up to `most` bytes, once; how many it accepted. */
  #write(reader: ReaderConnection, piece: Piece, most: number): number | Promise<number> {
    const { stream, cursor } = this;
    const { block } = piece;
    let { bytes } = piece;
    if (bytes.length > most) bytes = bytes.subarray(0, most);
    const reserving = this.#ack === "reader"
      ? stream.reserve(cursor.sent + bytes.length)
      : undefined;
    if (block !== undefined) block.pins++;
    cursor.inFlight = bytes.length;
    const write = reserving === undefined
      ? reader.connection.write(bytes)
      : reserving.then(() => reader.connection.write(bytes));
    if (typeof write === "number") return this.#wrote(reader, piece, bytes.length, write);
    return write.then((accepted) => this.#wrote(reader, piece, bytes.length, accepted));
  }

  #wrote(
    reader: ReaderConnection,
    { block, whole }: Piece,
    offered: number,
    accepted: number,
  ): number {
    const { stream, cursor } = this;
    if (block !== undefined) block.pins--;
    cursor.inFlight = 0;
    if (accepted === 0) return 0;
    this.accepted += accepted;
    this.#gate?.took(accepted);
    stream.accept(cursor, accepted);
    if (cursor.sent === endOf(whole)) this.messages += reader.count(whole);
    if (accepted < offered) this.#overflow();
    if (this.#ack === "none") this.acknowledge(cursor.sent);
    return accepted;
  }

  /** Everything before `offset` has been delivered. */
  acknowledge(offset: number): void {
    if (this.#reader !== undefined) this.#reader.progressAtMs = performance.now();
    this.stream.acknowledge(this.cursor, offset);
    if (this.#finishing || this.#stopped) this.wake();
  }

  /** The source has ended: `feed` returns once everything is delivered. */
  finish(): void {
    this.#finishing = true;
    this.wake();
  }

  /** The server is shutting down: nothing more is sent once the write in flight has settled. */
  stopSending(): void {
    this.#stopped = true;
    this.wake();
  }

  figures(): ReaderFigures {
    const { cursor, stream, accepted: acceptedBytes } = this;
    const { name, connected, delivered: deliveredOffset, gaps, dropped } = cursor;
    return {
      name,
      connected,
      acceptedBytes,
      deliveredOffset,
      ...stream.lagOf(cursor),
      gaps,
      dropped,
      duplicatesAvoided: stream.duplicates,
    };
  }

  end(how: "close" | "reset"): void {
    this.connection?.[how]();
  }

  /** There may be something to send. */
  wake(): void {
    const wake = this.#wake;
    if (wake === undefined) return;
    this.#wake = undefined;
    wake();
  }

  #tick(nowMs: number): void {
    const reader = this.#reader;
    if (reader === undefined) return;
    const { blockedSince } = reader.connection;
    this.#gate?.tick(nowMs);
    if (this.#awaitsKernel(blockedSince) && reader.isPollDue(nowMs)) this.#pollAcknowledged();
    this.#checkDeadlines(nowMs);
    const fullSince = blockedSince ?? this.#gate?.waitsSinceMs;
    if (fullSince === undefined || nowMs - fullSince < FULL_AFTER_MS) {
      this.#overflowing = false;
      return;
    }
    this.#overflow();
    if (blockedSince === undefined) return;
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
    const { delivered, sent } = this.cursor;
    if (this.#ack === "tcp" && delivered < sent) return true;
    return blockedSince !== undefined && this.#options.zeroWindowTimeoutMs < Infinity;
  }

  #checkDeadlines(nowMs: number): void {
    if (this.#deadlines === undefined) return;
    const backlog = this.stream.pendingOf(this.cursor);
    const passed = this.#deadlines.check(backlog, this.accepted, nowMs);
    if (passed !== undefined) this.#overflow(passed);
  }

  #overflow(passed?: Passed): void {
    const { policy, bound, onEvent } = this.#options;
    const backlog = this.stream.pendingOf(this.cursor);
    if ((passed === undefined && backlog <= bound) || backlog === 0 || this.#stopped) return;
    if (!this.#overflowing) {
      this.#overflowing = true;
      this.overflows++;
      if (this.overflows === 1) {
        onEvent({
          ...{ event: "overflow", policy, messages: this.messages, backlog },
          ...(passed === undefined ? {} : { passed }),
        });
      }
    }
    policyOf(policy).act(this);
  }

  #pollAcknowledged(): void {
    const acknowledged = this.#reader?.acknowledged();
    // Not only when the value has changed: bytes of a write in flight can be acknowledged before the
    // write returns, and `sent` limits what counts.
    if (acknowledged === undefined || this.#ack !== "tcp") return;
    const offset = Math.min(acknowledged, this.cursor.sent);
    if (offset > this.cursor.delivered) this.acknowledge(offset);
  }
}
