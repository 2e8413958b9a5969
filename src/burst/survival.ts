/** The chance that a reader survives a burst, from several tries at several bursts. */

/** Tries at one burst. */
export interface Tries {
  /** Bytes. */
  burst: number;
  tried: number;
  survived: number;
}

/** The interval of the chance to survive a burst. */
export interface Chance extends Tries {
  lower: number;
  upper: number;
}

/**
 * The interval of each burst's chance, at `confidence`. A larger burst is not survived more often than a
 * smaller one: so all tries with at least this burst give a lower bound, and all with at most this burst
 * an upper one (each that of Clopper and Pearson, 1934).
 */
export function chances(tries: readonly Tries[], confidence: number): Chance[] {
  const sorted = [...tries].sort((a, b) => a.burst - b.burst);
  const alpha = (1 - confidence) / 2;
  return sorted.map((each, i) => {
    const larger = total(sorted.slice(i));
    const smaller = total(sorted.slice(0, i + 1));
    return {
      ...each,
      lower: Math.max(
        lowerBound(each.survived, each.tried, alpha),
        lowerBound(larger.survived, larger.tried, alpha),
      ),
      upper: Math.min(
        upperBound(each.survived, each.tried, alpha),
        upperBound(smaller.survived, smaller.tried, alpha),
      ),
    };
  });
}

function total(tries: readonly Tries[]): { survived: number; tried: number } {
  return tries.reduce((sum, { survived, tried }) => ({
    survived: sum.survived + survived,
    tried: sum.tried + tried,
  }), { survived: 0, tried: 0 });
}

/** The chance for which `survived` or more of `tried` has the probability `alpha`. */
function lowerBound(survived: number, tried: number, alpha: number): number {
  if (survived === 0) return 0;
  return solve((chance) => 1 - atMost(survived - 1, tried, chance) >= alpha);
}

/** The chance for which `survived` or fewer of `tried` has the probability `alpha`. */
function upperBound(survived: number, tried: number, alpha: number): number {
  if (survived === tried) return 1;
  return solve((chance) => atMost(survived, tried, chance) < alpha);
}

/** The lowest chance from which on it holds. */
function solve(holds: (chance: number) => boolean): number {
  let low = 0;
  let high = 1;
  for (let i = 0; i < 40; i++) {
    const middle = (low + high) / 2;
    if (holds(middle)) high = middle;
    else low = middle;
  }
  return (low + high) / 2;
}

/** The probability of at most k successes in n tries. */
function atMost(k: number, n: number, chance: number): number {
  let term = (1 - chance) ** n;
  let sum = term;
  for (let i = 1; i <= k; i++) {
    term *= (n - i + 1) / i * chance / (1 - chance);
    sum += term;
  }
  return Math.min(1, sum);
}
