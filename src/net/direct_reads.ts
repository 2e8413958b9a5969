/**
 * Reads from a connection's descriptor straight into one buffer, past the runtime, while they come
 * back full; the runtime still waits for the first bytes, for the end and for errors.
 *
 * For Bun, which reads 512 KiB into a buffer of its own, copies that into a new one, and sleeps in
 * between: against the same in C in one run, its drain went from 0.5x to 0.9x. On Node it changed
 * nothing, and Deno reads into our buffer anyway.
 */
import { setImmediate } from "node:timers";
import { MUCH } from "./awake.ts";
import { receiveNow, waitingBytes } from "../kernel/socket_calls.ts";

/** Looks at the receive queue before the event loop gets a turn: some 10 us, one piece at 5 GB/s. */
const LOOKS = 50;
/** Turns without a byte before the runtime waits for the next: some 0.2 ms. */
const TURNS = 200;

export class DirectReads {
  readonly #allowed: boolean;
  #active = false;
  #buffer = new Uint8Array(0);

  /** Not allowed: never active. */
  constructor(allowed: boolean) {
    this.#allowed = allowed;
  }

  /** Whether bytes come fast enough to read past the runtime; it must not read meanwhile. */
  get active(): boolean {
    return this.#active;
  }

  /** Told of each chunk of the runtime's: a full one says that more is on its way. */
  runtimeRead(bytes: number, limit: number): void {
    this.#active = this.#allowed && limit >= MUCH && bytes >= limit;
  }

  /** A full piece, valid until the next read; undefined: it is not there. */
  now(fd: number, limit: number): Uint8Array | undefined {
    for (let look = 0; look < LOOKS; look++) {
      if (waitingBytes(fd) >= limit) return this.#take(fd, limit);
    }
    return undefined;
  }

  /**
   * Waits for a piece, full or all that came. Undefined: none came for a while, or the descriptor
   * has gone; then it is the runtime's turn.
   */
  async later(fd: () => number | undefined, limit: number): Promise<Uint8Array | undefined> {
    let before = 0;
    for (let turn = 0; turn < TURNS; turn++) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      const descriptor = fd();
      if (descriptor === undefined) break;
      const waiting = waitingBytes(descriptor);
      // What still grows will soon be a full piece.
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
