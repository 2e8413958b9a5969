/** Numbers that are missing, for those who count what arrives. */

/** Ranges that a `NumberSet` stores, in 16 KiB. */
const MAX_RANGES = 1024;

/**
 * A set of numbers, stored as a limited number of ranges. A new range replaces the oldest one; if a
 * message of that one still arrives, it counts as a duplicate.
 */
export class NumberSet {
  /** Ring buffers. A range becomes empty when all its numbers have been removed. */
  readonly #from = new Float64Array(MAX_RANGES);
  readonly #to = new Float64Array(MAX_RANGES);
  #added = 0;

  /** Adds the numbers from `from` up to but not including `to`. */
  add(from: number, to: number): void {
    const slot = this.#added++ % MAX_RANGES;
    this.#from[slot] = from;
    this.#to[slot] = to;
  }

  /** Removes a number. Returns false if the set does not contain it. */
  remove(number: number): boolean {
    // The newest range first: a late message usually belongs to a recent one.
    for (let i = this.#added - 1; i >= 0 && i >= this.#added - MAX_RANGES; i--) {
      const slot = i % MAX_RANGES;
      const from = this.#from[slot]!;
      const to = this.#to[slot]!;
      if (number < from || number >= to) continue;
      if (number === from) {
        this.#from[slot] = number + 1;
      } else {
        this.#to[slot] = number;
        if (number + 1 < to) this.add(number + 1, to);
      }
      return true;
    }
    return false;
  }
}
