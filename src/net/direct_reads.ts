/**
 * Reads from a connection's descriptor directly into one buffer, bypassing the runtime, while reads
 * return full. The runtime still waits for the first bytes, for the end and for errors.
 *
 * Only Bun needs this: it reads 512 KiB into a buffer of its own, copies that into a new one, and
 * sleeps in between. Compared with the same reader in C in one run, its drain rate rose from 0.5x to
 * 0.9x. On Node it made no difference, and Deno reads into our buffer anyway.
 */
import { setImmediate } from "node:timers";
import { receiveNow, waitingBytes } from "../kernel/socket_calls.ts";
import { BUSY_READ_BYTES } from "./busy_poll.ts";

/** Polls of the receive queue before the event loop gets a turn: some 10 µs, 64 KiB at 5 GB/s. */
const MAX_POLLS = 50;
/** Turns of the event loop without a byte until the runtime waits for the next: some 0.2 ms. */
const MAX_TURNS = 200;

export class DirectReads {
  readonly #allowed: boolean;
  #active = false;
  #buffer = new Uint8Array(0);

  /** `allowed` false: never becomes active. */
  constructor(allowed: boolean) {
    this.#allowed = allowed;
  }

  /** Whether data arrives fast enough to read directly. Meanwhile the runtime must not read. */
  get active(): boolean {
    return this.#active;
  }

  /** Call this for each chunk that the runtime has read: a full one activates direct reads. */
  runtimeRead(bytes: number, limit: number): void {
    this.#active = this.#allowed && limit >= BUSY_READ_BYTES && bytes >= limit;
  }

  /** `limit` bytes in a view that is valid until the next read; undefined if fewer have arrived. */
  readNow(fd: number, limit: number): Uint8Array | undefined {
    for (let poll = 0; poll < MAX_POLLS; poll++) {
      if (waitingBytes(fd) >= limit) return this.#take(fd, limit);
    }
    return undefined;
  }

  /**
   * Waits for `limit` bytes, or for fewer when no more follow. Undefined, and no longer active, when
   * nothing arrived for 0.2 ms or the connection is closed: the runtime must do the next read.
   */
  async waitAndRead(fd: () => number | undefined, limit: number): Promise<Uint8Array | undefined> {
    let before = 0;
    for (let turn = 0; turn < MAX_TURNS; turn++) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      const descriptor = fd();
      if (descriptor === undefined) break;
      const waiting = waitingBytes(descriptor);
      // While the queue still grows, wait for a full piece.
      if (waiting >= limit || (waiting > 0 && waiting === before)) {
        const chunk = this.#take(descriptor, limit);
        if (chunk !== undefined) return chunk;
      }
      before = waiting;
    }
    this.#active = false;
    return undefined;
  }

  #take(fd: number, limit: number): Uint8Array | undefined {
    if (this.#buffer.length < limit) this.#buffer = new Uint8Array(limit);
    const taken = receiveNow(fd, this.#buffer, limit);
    return taken === undefined ? undefined : this.#buffer.subarray(0, taken);
  }
}
