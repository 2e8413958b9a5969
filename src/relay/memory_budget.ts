/** The memory that all streams of a server may take together. */
import type { Gate } from "./gate.ts";

export class MemoryBudget {
  /** Bytes. */
  readonly limit: number;
  #used = 0;
  readonly #waiting: Set<Gate> = new Set();

  constructor(limit: number) {
    this.limit = limit;
  }

  get used(): number {
    return this.#used;
  }

  /** Bytes were taken, or given back where negative. */
  take(bytes: number): void {
    this.#used += bytes;
    if (bytes >= 0 || this.#waiting.size === 0) return;
    for (const gate of this.#waiting) if (gate.recheck()) this.#waiting.delete(gate);
  }

  /** This gate may open once bytes are given back. */
  notify(gate: Gate): void {
    this.#waiting.add(gate);
  }
}
