/** What one reader has drained: acknowledged bytes less its receive queue, from the kernel. */
import { connectionState, kernelSource } from "./kernel.ts";
import type { Flood } from "./flood.ts";

/** How the receive queue is seen: the reader's own socket, its advertised window, or not at all. */
export type QueueSource = "socket" | "window" | "none";

/** One reading of a meter. */
export interface Reading {
  /** In ms of `performance.now()`. */
  nowMs: number;
  /** Bytes that the reader's program has taken since the connection began. */
  drained: number;
  /** Bytes accepted by our kernel and not drained yet. */
  queued: number;
  /** Time in which the reader's window or our send buffer was what limited sending; microseconds. */
  stalledUs: number | undefined;
  /** Replies that arrived here and were not read. Bytes. */
  unreadReplies: number;
}

export class Meter {
  readonly #flood: Flood;
  #widestWindow = 0;
  queueSource: QueueSource = "none";

  constructor(flood: Flood) {
    this.#flood = flood;
  }

  /** Undefined: the kernel knows the connection no more, or tells nothing here. */
  read(): Reading | undefined {
    const { connection, accepted } = this.#flood;
    const nowMs = performance.now();
    const { near, far } = connectionState(connection.local, connection.remote);
    if (near === undefined) return undefined;
    let drained: number;
    if (far !== undefined) {
      this.queueSource = "socket";
      drained = far.info === undefined
        ? accepted - near.sendQueue - far.receiveQueue
        : far.info.bytesReceived - far.receiveQueue;
    } else if (near.info?.sendWindow !== undefined) {
      // A reader on another host: what its window shrank by is what lies in its receive queue.
      this.queueSource = "window";
      const { sendWindow, bytesAcked } = near.info;
      this.#widestWindow = Math.max(this.#widestWindow, sendWindow);
      drained = bytesAcked - (this.#widestWindow - sendWindow);
    } else {
      this.queueSource = "none";
      drained = accepted - near.sendQueue;
    }
    return {
      nowMs,
      drained,
      queued: Math.max(0, accepted - drained),
      stalledUs: near.info === undefined
        ? undefined
        : near.info.receiveWindowLimitedUs + near.info.sendBufferLimitedUs,
      unreadReplies: near.receiveQueue,
    };
  }
}

/** How often a reading is worth its cost: ms. */
export const SAMPLE_EVERY_MS = kernelSource === "sock_diag" ? 10 : 50;
