/** What one reader has drained: acknowledged bytes less its receive queue, from the kernel. */
import { connectionState, kernelSource } from "../kernel/kernel.ts";
import type { SocketState } from "../kernel/socket_state.ts";
import type { Flood } from "../send/flood.ts";

/** How the receive queue is seen: the reader's own socket, its advertised window, or not at all. */
export type QueueSource = "socket" | "window" | "none";

/** One reading of a meter. */
export interface Reading {
  /** In ms of `performance.now()`. */
  nowMs: number;
  /** Bytes that the reader's program has taken since the connection began. */
  drained: number;
  /** Our end: its receive queue holds replies that we have not read. */
  near: SocketState;
  /** The reader's end; undefined when it is on another host. */
  far: SocketState | undefined;
}

/**
 * A window breathes by this much without any queue behind it, because the kernel charges small
 * segments more than their bytes (measured: 58 to 115 KB at 500 kB/s, 10 KB around 1 MB at 15 MB/s).
 */
const WINDOW_SLACK = 131_072;

export class Meter {
  readonly #flood: Flood;
  #widestWindow = 0;
  #window = 0;
  queueSource: QueueSource = "none";

  constructor(flood: Flood) {
    this.#flood = flood;
  }

  /**
   * The reader is known to have drained all there is: what its window is now is what it is with an
   * empty receive queue. Only a reader on another host needs to be told.
   */
  assumeEmpty(): void {
    this.#widestWindow = this.#window;
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
      this.#window = sendWindow;
      this.#widestWindow = Math.max(this.#widestWindow, sendWindow);
      const slack = Math.min(0.75 * this.#widestWindow, WINDOW_SLACK);
      drained = bytesAcked - Math.max(0, this.#widestWindow - sendWindow - slack);
    } else {
      this.queueSource = "none";
      drained = accepted - near.sendQueue;
    }
    return { nowMs, drained, near, far };
  }
}

/** How often a reading is worth its cost: ms. */
export const SAMPLE_EVERY_MS = kernelSource === "sock_diag" ? 10 : 50;
