/** Where the messages of an endless stream begin, whose sizes repeat from lap to lap. */
export class Layout {
  /** Messages of a lap. */
  readonly count: number;
  /** Bytes of a lap. */
  readonly lap: number;
  /** Size of a message: bytes, the mean. */
  readonly size: number;
  /** Size of the longest message: bytes. */
  readonly longest: number;
  /** Where each message of a lap begins, and then where the lap ends. */
  readonly #starts: Float64Array;

  /** `starts`: where each message of the first lap begins, from 0 on, and then where the lap ends; bytes. */
  constructor(starts: Float64Array) {
    this.#starts = starts;
    this.count = starts.length - 1;
    this.lap = starts[this.count]!;
    this.size = this.lap / this.count;
    let longest = 0;
    for (let i = 0; i < this.count; i++) longest = Math.max(longest, starts[i + 1]! - starts[i]!);
    this.longest = longest;
  }

  /** Messages of the same size; bytes. */
  static equal(size: number): Layout {
    return new Layout(Float64Array.of(0, size));
  }

  /** Messages of these sizes; bytes. */
  static of(sizes: readonly number[]): Layout {
    const starts = new Float64Array(sizes.length + 1);
    sizes.forEach((size, i) => starts[i + 1] = starts[i]! + size);
    return new Layout(starts);
  }

  /** The offset at which message number `index`, counted from 0, begins. */
  offsetOf(index: number): number {
    if (this.count === 1 || index === Infinity) return index * this.lap;
    const laps = Math.floor(index / this.count);
    return laps * this.lap + this.#starts[index - laps * this.count]!;
  }

  /** How many messages begin before `offset`. */
  begunBefore(offset: number): number {
    if (this.count === 1 || offset === Infinity) return Math.ceil(offset / this.lap);
    const laps = Math.floor(offset / this.lap);
    const rest = offset - laps * this.lap;
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#starts[middle]! < rest) low = middle + 1;
      else high = middle;
    }
    return laps * this.count + low;
  }
}
