/** Statistics for verdicts and reports: pure functions of numbers. */

/** The slope of a straight line fitted to points by least squares. */
export interface Line {
  /** In units of y per unit of x. */
  slope: number;
  /** Half of the slope's 95 % confidence interval; Infinity with fewer than three points. */
  halfWidth: number;
}

/** Student's t, two-sided 95 %, by degrees of freedom from 1; 1.96 beyond. */
const T_95 = [12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];

/** Fits y over x by least squares. */
export function fitLine(points: readonly (readonly [x: number, y: number])[]): Line {
  const n = points.length;
  let meanX = 0;
  let meanY = 0;
  for (const [x, y] of points) {
    meanX += x / n;
    meanY += y / n;
  }
  let sxx = 0;
  let sxy = 0;
  for (const [x, y] of points) {
    sxx += (x - meanX) ** 2;
    sxy += (x - meanX) * (y - meanY);
  }
  if (sxx === 0) return { slope: 0, halfWidth: Infinity };
  const slope = sxy / sxx;
  if (n < 3) return { slope, halfWidth: Infinity };
  let residual = 0;
  for (const [x, y] of points) residual += (y - meanY - slope * (x - meanX)) ** 2;
  const standardError = Math.sqrt(residual / (n - 2) / sxx);
  return { slope, halfWidth: (T_95[n - 3] ?? 1.96) * standardError };
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
