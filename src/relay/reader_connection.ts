/** One connection of a reader: what was sent on it, and what of that its kernel acknowledged. */
import type { Block } from "./blocks.ts";
import { tcpInfo } from "../kernel/tcp_info.ts";
import type { Connection } from "../net/net.ts";
import type { Batch } from "../queue/queue.ts";

/** How often the kernel is asked what the reader's kernel acknowledged. */
const ACK_EVERY_MS = 10;

export class ReaderConnection {
  readonly connection: Connection;
  /** When something went on last; ms of `performance.now()`. */
  movedAtMs: number;
  /** The offset that its first byte has; then that less the gaps that were acknowledged past. */
  readonly #start: number;
  #base: number;
  /** Gaps behind what its kernel acknowledged. */
  readonly #skipped: { from: number; to: number }[] = [];
  /** Bytes that its kernel acknowledged. */
  #acked = 0;
  #askedAtMs = 0;
  /** The block that was counted last, and as how many messages: it may have grown since. */
  #counted = { offset: -1, messages: 0 };

  /** `start`: the offset that its first byte will have. */
  constructor(connection: Connection, start: number) {
    this.connection = connection;
    this.movedAtMs = performance.now();
    this.#start = this.#base = start;
  }

  /** It goes on at `to`, where `from` would have been next. */
  skip(from: number, to: number): void {
    this.#skipped.push({ from, to });
  }

  /** New messages in a block that was sent to its end, or in the batch that it has become since. */
  count({ offset, bytes, messages }: Block | Batch): number {
    if (this.#counted.offset !== offset) {
      // It may begin inside of it.
      const share = Math.max(0, this.#start - offset) / bytes.length;
      this.#counted = { offset, messages: Math.round(messages * share) };
    }
    const fresh = messages - this.#counted.messages;
    this.#counted.messages = messages;
    return fresh;
  }

  /** The kernel has not been asked for some ms. */
  isDue(nowMs: number): boolean {
    if (nowMs - this.#askedAtMs < ACK_EVERY_MS) return false;
    this.#askedAtMs = nowMs;
    return true;
  }

  /** End of what its kernel acknowledged; undefined: ours does not tell. */
  acknowledged(): number | undefined {
    const { fd } = this.connection;
    const acked = fd === undefined ? undefined : tcpInfo(fd)?.bytesAcked;
    if (acked === undefined) return undefined;
    if (acked !== this.#acked) {
      this.#acked = acked;
      this.movedAtMs = performance.now();
    }
    // What is behind a gap was sent only after all before it.
    while (this.#base + acked >= (this.#skipped[0]?.from ?? Infinity)) {
      const { from, to } = this.#skipped.shift()!;
      this.#base += to - from;
    }
    return this.#base + acked;
  }

  /** For how long it has been blocked, and nothing has moved; ms. */
  stillMs(nowMs: number): number {
    return nowMs - Math.max(this.connection.blockedSince ?? nowMs, this.movedAtMs);
  }

  /** The window that its kernel advertised last is zero, or ours does not tell. */
  isShut(): boolean {
    const { fd } = this.connection;
    return fd === undefined || (tcpInfo(fd)?.sendWindow ?? 0) === 0;
  }
}
