/** Statistics for verdicts and reports: pure functions of numbers. */

/**
 * The value that Student's t exceeds, in either direction, with this probability.
 *
 * Hill's expansion (G. W. Hill, Algorithm 396, Communications of the ACM 13(10), 1970), without its term for
 * less than five degrees of freedom: six digits from three on, seven from ten on, four with less.
 * `probability` is above 0 and below 1.
 */
export function studentT(probability: number, degreesOfFreedom: number): number {
  const n = degreesOfFreedom;
  if (!(n >= 1)) return Infinity;
  if (n > 1e6) return -normalQuantile(probability / 2);
  if (n === 2) return Math.sqrt(2 / (probability * (2 - probability)) - 2);
  if (n < 2) {
    const angle = probability * Math.PI / 2;
    return Math.cos(angle) / Math.sin(angle);
  }
  const a = 1 / (n - 0.5);
  const b = 48 / (a * a);
  let c = ((20700 * a / b - 98) * a - 16) * a + 96.36;
  const d = ((94.5 / (b + c) - 3) / b + 1) * Math.sqrt(a * Math.PI / 2) * n;
  let x = d * probability;
  let y = x ** (2 / n);
  if (y > 0.05 + a) {
    x = normalQuantile(probability / 2);
    y = x * x;
    c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c;
    y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x;
    y = Math.expm1(a * y * y);
  } else {
    y = ((1 / (((n + 6) / (n * y) - 0.089 * d - 0.822) * (n + 2) * 3) + 0.5 / (n + 4)) * y - 1) *
        (n + 1) / (n + 2) + 1 / y;
  }
  return Math.sqrt(n * y);
}

/**
 * The standard normal quantile (P. J. Acklam's rational approximation, relative error 1.2e-9).
 * `probability` is above 0 and below 1.
 */
export function normalQuantile(probability: number): number {
  const tail = Math.min(probability, 1 - probability);
  if (tail < 0.02425) {
    const q = Math.sqrt(-2 * Math.log(tail));
    const x = (((((-7.784894002430293e-3 * q - 0.3223964580411365) * q - 2.400758277161838) * q -
              2.549732539343734) * q + 4.374664141464968) * q + 2.938163982698783) /
      ((((7.784695709041462e-3 * q + 0.3224671290700398) * q + 2.445134137142996) * q +
            3.754408661907416) * q + 1);
    return probability < 0.5 ? x : -x;
  }
  const q = probability - 0.5;
  const r = q * q;
  return (((((-39.69683028665376 * r + 220.9460984245205) * r - 275.9285104469687) * r +
            138.3577518672690) * r - 30.66479806614716) * r + 2.506628277459239) *
    q /
    (((((-54.47609879822406 * r + 161.5858368580409) * r - 155.6989798598866) * r +
              66.80131188771972) * r - 13.28068155288572) * r + 1);
}

/** The middle value, or the mean of the middle two. Throws a RangeError without values. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("cannot take the median of no values");
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The smallest and the largest value. Throws a RangeError without values. */
export function spread(values: readonly number[]): { min: number; max: number } {
  if (values.length === 0) throw new RangeError("cannot take the spread of no values");
  return { min: Math.min(...values), max: Math.max(...values) };
}
