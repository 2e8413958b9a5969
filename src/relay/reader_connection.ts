/** One connection of a reader: what was sent on it, and how much of that was acknowledged by TCP. */
import type { Block } from "./blocks.ts";
import { tcpInfo } from "../kernel/tcp_info.ts";
import type { Connection } from "../net/net.ts";
import type { Batch } from "../queue/queue.ts";

/** How often the server's kernel is asked how much the reader's kernel has acknowledged. */
const ACK_EVERY_MS = 10;

export class ReaderConnection {
  readonly connection: Connection;
  /** Time of the last progress; ms of `performance.now()`. */
  progressAtMs: number;
  /** Stream offset of the first byte on this connection. */
  readonly #start: number;
  /** `#start` plus the length of all gaps up to the last acknowledged byte. */
  #base: number;
  /** Gaps after the last acknowledged byte. */
  readonly #skipped: { from: number; to: number }[] = [];
  /** Bytes that the reader's kernel acknowledged. */
  #acked = 0;
  #polledAtMs = 0;
  /** The block counted last, and its messages at that time: it may have grown since. */
  #counted = { offset: -1, messages: 0 };

  /** `start`: stream offset of the first byte to be sent. */
  constructor(connection: Connection, start: number) {
    this.connection = connection;
    this.progressAtMs = performance.now();
    this.#start = this.#base = start;
  }

  /** The next byte sent has offset `to` instead of `from`. */
  skip(from: number, to: number): void {
    this.#skipped.push({ from, to });
  }

  /**
   * Messages to add to the count once a block has been sent to its end. A block that grew, or was
   * stored as a batch with the same offset, is counted once.
   */
  count({ offset, bytes, messages }: Block | Batch): number {
    if (this.#counted.offset !== offset) {
      // The connection may have started within this block.
      const share = Math.max(0, this.#start - offset) / bytes.length;
      this.#counted = { offset, messages: Math.round(messages * share) };
    }
    const fresh = messages - this.#counted.messages;
    this.#counted.messages = messages;
    return fresh;
  }

  /** Whether it is time to poll the kernel again; true at most once in `ACK_EVERY_MS`. */
  isPollDue(nowMs: number): boolean {
    if (nowMs - this.#polledAtMs < ACK_EVERY_MS) return false;
    this.#polledAtMs = nowMs;
    return true;
  }

  /** Stream offset up to which the reader's kernel acknowledged; undefined where it is unknown. */
  acknowledged(): number | undefined {
    const { fd } = this.connection;
    const acked = fd === undefined ? undefined : tcpInfo(fd)?.bytesAcked;
    if (acked === undefined) return undefined;
    if (acked !== this.#acked) {
      this.#acked = acked;
      this.progressAtMs = performance.now();
    }
    // The byte after a gap was sent only after all bytes before the gap.
    while (this.#base + acked >= (this.#skipped[0]?.from ?? Infinity)) {
      const { from, to } = this.#skipped.shift()!;
      this.#base += to - from;
    }
    return this.#base + acked;
  }

  /** How long the connection has been blocked without any progress; ms. */
  stalledMs(nowMs: number): number {
    return nowMs - Math.max(this.connection.blockedSince ?? nowMs, this.progressAtMs);
  }

  /** Whether the reader's last advertised window is zero; true where the kernel does not report it. */
  windowMayBeZero(): boolean {
    const { fd } = this.connection;
    return fd === undefined || (tcpInfo(fd)?.sendWindow ?? 0) === 0;
  }
}
