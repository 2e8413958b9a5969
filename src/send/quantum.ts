/**
 * How large the quanta of a reader are: those with which it is fastest. Decides by what each quantum took, and
 * knows neither clock nor connection.
 */

/** The sizes are FIRST, twice that, and so on up to the largest; bytes. */
const FIRST = 16 << 10;
const SIZES = 15;
/** So many quanta of one size, and so many ms, are measured before a decision. */
const MEASURED = { quanta: 6, ms: 5 };
/**
 * One quantum is enough to end a trial where it took so long, and less than half of the usual rate; ms. Of the size
 * that is used, two in a row: one may be a pause of the reader. Then it all begins anew with the first size, because
 * a reader that has once been sent too much may need far less than half of that to become fast again.
 */
const COLLAPSED = { share: 0.5, ms: 20 };
/** After a collapse the reader is left alone after so many quanta, each time no longer than this. */
const PAUSE = { quanta: 3, mostMs: 1000 };
/** How the server notices that a reader has read a quantum: it looks, or the reader acknowledges. */
export type Noticed = "closely" | "by-ticks" | "by-acknowledgement";
/**
 * Between two quanta the reader has nothing to read until the server notices. Quanta that take longer than
 * this cost less than 2 % of the reader's time, so larger ones are not tried: where the server looks in
 * each turn of its event loop, and where at each tick; ms. When a reader acknowledges is its own affair.
 */
const WORTH = { "closely": 5, "by-ticks": 50, "by-acknowledgement": Infinity };
/** A larger size is kept with which the reader takes at least this share of its rate with a smaller one. */
const KEPT = 0.95;
/** Where it takes less than this share of its rate with a smaller size, that one is tried again. */
const SLOWER = 0.9;
/** The smaller size is kept if it is faster by this. */
const FASTER = 1.1;
/** How much a new measurement changes the rate that is known of a size. */
const WEIGHT = 0.3;
/**
 * After a trial that did not help, the next one waits: for as long as was lost, and if the size had not helped
 * before either, for so many times that. So trials cost at most 2 %. At least and at most, ms.
 */
const WAIT = { times: 50, least: 20, most: 60_000 };

export class QuantumSearch {
  readonly #fixed: number | undefined;
  /** The index of the size that is used, and of the one that is tried instead of it. */
  #home = 0;
  #tried: number | undefined;
  /** By size: the rate of the reader with it, bytes a second (0: not known), and how often it did not help. */
  readonly #rates = new Float64Array(SIZES);
  readonly #failures = new Uint32Array(SIZES);
  /** The quanta that are measured together. */
  #bytes = 0;
  #ms = 0;
  #quanta = 0;
  /** All that was measured, and by size: no trial before that; ms. */
  #clockMs = 0;
  readonly #notBeforeMs = new Float64Array(SIZES);
  /** The last quantum took far too long. */
  #wasSlow = false;
  /** What it took before it collapsed, bytes a second; and after how many more quanta it is left alone. */
  #before = 0;
  #pauses = 0;
  /** What the last quantum took; ms. */
  #lastMs = 0;
  /** What a quantum should take; 0: not known. ms. */
  usualMs = 0;

  /** `fixed`: the size, if it is given; bytes. */
  constructor(fixed?: number) {
    this.#fixed = fixed;
  }

  /** Of the next quantum; bytes. */
  get size(): number {
    return this.#fixed ?? FIRST * 2 ** (this.#tried ?? this.#home);
  }

  /**
   * How long the reader is left alone once it has read a quantum: after a collapse as long as it took for that. It
   * still works on what it has read, and must find nothing when it looks for more, or it goes on gathering. ms.
   */
  get pauseMs(): number {
    return this.#pauses === 0 ? 0 : Math.min(PAUSE.mostMs, this.#lastMs);
  }

  /** What the reader usually takes; bytes a second, 0: not known. */
  get rate(): number {
    return this.#rates[this.#home]!;
  }

  /** The reader has read a quantum of `bytes` in `ms`, and there was more to send. */
  measure(bytes: number, ms: number, noticed: Noticed): void {
    this.#bytes += bytes;
    this.#ms += ms;
    this.#clockMs += ms;
    this.#quanta++;
    this.#lastMs = ms;
    const last = bytes / ms * 1000;
    if (this.#pauses > 0) this.#pauses--;
    if (last >= COLLAPSED.share * this.#before) this.#pauses = 0;
    const rate = this.#bytes / this.#ms * 1000;
    const enough = this.#quanta >= MEASURED.quanta && this.#ms >= MEASURED.ms;
    const isSlow = ms >= COLLAPSED.ms && last < COLLAPSED.share * this.rate;
    const collapsed = isSlow && (this.#wasSlow || this.#tried !== undefined);
    this.#wasSlow = isSlow;
    if (!enough && !collapsed) return;
    const meanMs = this.#ms / this.#quanta;
    const { size } = this;
    if (this.#tried !== undefined) this.#compare(this.#tried, rate);
    else this.#judge(rate, meanMs, { noticed, collapsed });
    this.usualMs = meanMs * this.size / size;
    this.#bytes = this.#ms = this.#quanta = 0;
  }

  /** The reader needs at least so much at once. */
  grow(bytes: number): void {
    if (this.#fixed !== undefined || bytes <= FIRST * 2 ** this.#home) return;
    this.#home = Math.min(SIZES - 1, Math.ceil(Math.log2(bytes / FIRST)));
    this.#tried = undefined;
    // What is known of smaller sizes stays: if this one is slower, they are tried again.
    this.#rates.fill(0, this.#home);
    this.usualMs = 0;
  }

  /** A rate with the size that is used: is another one worth a trial? */
  #judge(
    rate: number,
    meanMs: number,
    { noticed, collapsed }: { noticed: Noticed; collapsed: boolean },
  ): void {
    const home = this.#home;
    const before = this.#rates[home]!;
    const slow = collapsed || rate < COLLAPSED.share * before;
    this.#rates[home] = before === 0 || slow ? rate : before + WEIGHT * (rate - before);
    if (this.#fixed !== undefined) return;
    if (slow && home > 0) {
      this.#failures[home]!++;
      this.#before = before;
      this.#pauses = PAUSE.quanta;
      this.#home = 0;
      this.#rates.fill(0);
      return;
    }
    const now = this.#clockMs;
    const smaller = this.#fastest(home - 1);
    const isDue = (size: number) => size >= 0 && size < SIZES && now >= this.#notBeforeMs[size]!;
    if (this.rate < SLOWER * smaller && isDue(home - 1)) this.#tried = home - 1;
    else if (meanMs < WORTH[noticed] && isDue(home + 1)) {
      this.#tried = home + 1;
    }
  }

  /** A rate with the size that is tried. */
  #compare(tried: number, rate: number): void {
    const home = this.#home;
    const usual = this.rate;
    this.#tried = undefined;
    this.#rates[tried] = rate;
    if (tried > home) {
      if (rate >= KEPT * this.#fastest(home)) {
        this.#home = tried;
        this.#failures[tried] = 0;
      } else this.#wait(tried, this.#ms * (1 - rate / usual));
    } else if (rate > FASTER * usual) {
      this.#home = tried;
      this.#wait(home, WAIT.least);
    } else {
      // It is slower for another reason: what is known of smaller sizes is out of date.
      this.#rates.fill(0, 0, tried);
      this.#wait(tried, this.#ms * (1 - rate / usual));
    }
  }

  #wait(size: number, lostMs: number): void {
    const times = ++this.#failures[size]! === 1 ? 1 : WAIT.times;
    this.#notBeforeMs[size] = this.#clockMs +
      Math.min(WAIT.most, Math.max(WAIT.least, times * lostMs));
  }

  /** The highest rate with a size up to this one. */
  #fastest(size: number): number {
    let rate = 0;
    for (let i = 0; i <= size; i++) rate = Math.max(rate, this.#rates[i]!);
    return rate;
  }
}
