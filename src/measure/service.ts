/**
 * The service rate of a reader that always has something to read: the mean of what it drains, with a
 * confidence interval that holds for readers that pause, work in batches, or vary slowly.
 *
 * The method is that of batch means. Batches that are too short are correlated, which would make the
 * interval too narrow; so the interval is computed from batches of several lengths, the widest one
 * counts, and what correlation is left between neighbours widens it further.
 *
 * Sources: C. Alexopoulos, A. F. Seila, Output Data Analysis, in J. Banks, Handbook of Simulation,
 * Wiley 1998 (batch means); A. M. Law, Simulation Modeling and Analysis, 5th ed. 2015, section 9.5.3;
 * C. E. Bonferroni, Teoria statistica delle classi e calcolo delle probabilità, 1936 (the probabilities of
 * several errors add up at most); K. K. G. Lan, D. L. DeMets, Biometrika 70, 1983 (error that is spent over
 * several looks: see stretch.ts).
 */
import { studentT } from "./statistics.ts";

/** Two of these neighbours become one when all are used: the memory is bounded, whatever the time. */
const MOST_BATCHES = 128;
/**
 * A variance is computed from 8 to 31 batches. Fewer say too little; of more, so short ones, the
 * correlation says too little.
 */
const FEWEST_BATCHES = 8;
const MOST_FOR_VARIANCE = 31;

export interface ServiceEstimate {
  /** Bytes a second. */
  mean: number;
  /** Half of the confidence interval, bytes a second; Infinity: too little was seen. */
  halfWidth: number;
  /** Seconds that were observed. */
  seconds: number;
}

/** A rate that changes. */
export interface Drift {
  /** In the first and in the last quarter of the time; bytes a second. */
  first: number;
  last: number;
  /** Observed, and read meanwhile. */
  seconds: number;
  bytes: number;
}

interface Batch {
  seconds: number;
  bytes: number;
}

/** Gathers what a backlogged reader drains. Times in seconds, in rising order. */
export class ServiceRate {
  #batches: Batch[] = [];
  /** The shortest duration of a batch. */
  #shortest: number;
  #from: { time: number; drained: number } | undefined;
  #last: number | undefined;

  /** `shortest`: of the first batches; seconds. */
  constructor(shortest = 0.05) {
    this.#shortest = shortest;
  }

  /**
   * Adds a sample. A batch begins and ends with a sample in which the reader had just read something:
   * one that reads seldom has then not half a read more or less in it.
   */
  add(time: number, drained: number): void {
    const hasRead = this.#last !== undefined && drained > this.#last;
    this.#last = drained;
    if (!hasRead) return;
    if (this.#from === undefined) {
      this.#from = { time, drained };
      return;
    }
    if (time - this.#from.time < this.#shortest) return;
    this.#batches.push({ seconds: time - this.#from.time, bytes: drained - this.#from.drained });
    this.#from = { time, drained };
    if (this.#batches.length < MOST_BATCHES) return;
    this.#batches = paired(this.#batches);
    this.#shortest *= 2;
  }

  /** Seconds from the first batch to the end of the last one. */
  get seconds(): number {
    return total(this.#batches).seconds;
  }

  /** `error`: the probability with which the interval may fail to hold the mean. */
  estimate(error: number): ServiceEstimate {
    let batches = this.#batches;
    const { seconds, bytes } = total(batches);
    const result: ServiceEstimate = {
      mean: seconds === 0 ? 0 : bytes / seconds,
      halfWidth: Infinity,
      seconds,
    };
    if (batches.length < FEWEST_BATCHES) return result;
    result.halfWidth = 0;
    for (; batches.length >= FEWEST_BATCHES; batches = paired(batches)) {
      const { standardError, degreesOfFreedom } = meanError(batches, result.mean);
      const halfWidth = studentT(error, degreesOfFreedom) * standardError;
      if (batches.length <= MOST_FOR_VARIANCE) {
        result.halfWidth = Math.max(result.halfWidth, halfWidth);
      }
    }
    return result;
  }

  /**
   * Change of the rate, bytes a second in each second, where nearly each of 8 to 15 batches is faster, or
   * nearly each is slower, than those before it (Kendall's tau above 0.85); else 0.
   */
  trend(): number {
    let batches = this.#batches;
    while (batches.length >= 2 * FEWEST_BATCHES) batches = paired(batches);
    const n = batches.length;
    if (n < FEWEST_BATCHES) return 0;
    const rates = batches.map(({ seconds, bytes }) => bytes / seconds);
    let rising = 0;
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < i; j++) rising += Math.sign(rates[i]! - rates[j]!);
    }
    if (Math.abs(rising) < 0.85 * n * (n - 1) / 2) return 0;
    const mean = (values: number[]) => values.reduce((sum, each) => sum + each, 0) / values.length;
    const half = n >> 1;
    return (mean(rates.slice(n - half)) - mean(rates.slice(0, half))) / (this.seconds / 2);
  }

  /** The highest mean rate in a part of the time that is at least so long; 0: it was never so long. */
  fastest(seconds: number): number {
    let fastest = 0;
    let part: Batch = { seconds: 0, bytes: 0 };
    let first = 0;
    for (const batch of this.#batches) {
      part = total([part, batch]);
      while (part.seconds - this.#batches[first]!.seconds >= seconds) {
        const { seconds: less, bytes } = this.#batches[first++]!;
        part = { seconds: part.seconds - less, bytes: part.bytes - bytes };
      }
      if (part.seconds >= seconds) fastest = Math.max(fastest, part.bytes / part.seconds);
    }
    return fastest;
  }

  /** How the rate changed from the first quarter of the time to the last one. */
  drift(): Drift {
    const quarter = Math.max(1, this.#batches.length >> 2);
    const first = total(this.#batches.slice(0, quarter));
    const last = total(this.#batches.slice(-quarter));
    const all = total(this.#batches);
    return { first: first.bytes / first.seconds, last: last.bytes / last.seconds, ...all };
  }
}

function total(batches: readonly Batch[]): Batch {
  return batches.reduce(
    (sum, { seconds, bytes }) => ({ seconds: sum.seconds + seconds, bytes: sum.bytes + bytes }),
    { seconds: 0, bytes: 0 },
  );
}

/** Each two neighbours as one batch; of an odd number, the last one is left out. */
function paired(batches: readonly Batch[]): Batch[] {
  return Array.from({ length: batches.length >> 1 }, (_, i) => {
    const [a, b] = [batches[2 * i]!, batches[2 * i + 1]!];
    return { seconds: a.seconds + b.seconds, bytes: a.bytes + b.bytes };
  });
}

/** The standard error of the mean; the correlation of neighbours raises it. */
function meanError(
  batches: readonly Batch[],
  mean: number,
): { standardError: number; degreesOfFreedom: number } {
  const n = batches.length;
  const seconds = batches.reduce((sum, batch) => sum + batch.seconds, 0) / n;
  // A ratio estimate: batches differ a little in length.
  const residuals = batches.map((batch) => (batch.bytes - mean * batch.seconds) / seconds);
  const squares = residuals.reduce((sum, each) => sum + each * each, 0);
  const products = residuals.reduce(
    (sum, each, i) => i === 0 ? 0 : sum + each * residuals[i - 1]!,
    0,
  );
  // The estimate is too low by about 1/n, because the mean comes from the same batches.
  const correlation = squares === 0 ? 0 : Math.max(0, Math.min(0.9, products / squares + 1 / n));
  const inflation = (1 + correlation) / (1 - correlation);
  const standardError = Math.sqrt(squares / (n - 1) / n * inflation);
  return { standardError, degreesOfFreedom: Math.max(1, (n - 1) / inflation) };
}
