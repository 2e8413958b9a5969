/** How long to wait before connecting again to a peer that was not there, or has gone. */

const FIRST_MS = 100;
const LONGEST_MS = 5000;
/** A connection that lasted so long shows that the peer is well: the next pause is the first again. */
const STEADY_MS = 1000;

/** 100 ms, doubling to 5 s. */
export class ReconnectPause {
  #ms = FIRST_MS;

  /** A connection has ended that lasted so long; ms. */
  connectedFor(ms: number): void {
    if (ms >= STEADY_MS) this.#ms = FIRST_MS;
  }

  /** The pause before the next attempt; ms. */
  next(): number {
    const ms = this.#ms;
    this.#ms = Math.min(2 * ms, LONGEST_MS);
    return ms;
  }
}
