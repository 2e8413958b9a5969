/** The burst that a reader survives at one base rate, by bisection. Over readers, real or simulated. */
import type { CellResult } from "./cell.ts";
import type { Tries } from "./survival.ts";

export interface Tolerance {
  /**
   * It survived `lower` each time, and `upper` never; bytes. `lower` is 0 where it survived none, `upper`
   * is null where it survived the largest.
   */
  lower: number;
  upper: number | null;
  /** What it drained after it had collapsed, bytes a second: the median; null: it never collapsed. */
  collapsed: number | null;
  cells: CellResult[];
  /** The tries by burst, the smallest first. */
  tries: Tries[];
}

export interface ToleranceOptions {
  /** The first burst, and the smallest and largest one. Bytes. */
  first: number;
  least: number;
  most: number;
  /** upper / lower is at most 1 + precision. */
  precision: number;
  /** Each bound holds in so many tries. */
  repeats: number;
  /** The most tries. */
  tries: number;
  attempt: (burst: number) => Promise<CellResult>;
}

/** From one burst to the next, while only one bound is known. */
const STEP = 4;
const WIDE = 1.5;

/**
 * Searches for the tolerance. Where chance decides, the bounds go apart until each holds in `repeats`
 * tries.
 */
export async function findTolerance(options: ToleranceOptions): Promise<Tolerance> {
  const { least, most, precision, repeats } = options;
  const cells: CellResult[] = [];
  const tries = new Map<number, Tries>();
  const of = (burst: number) => tries.get(burst) ?? { burst, tried: 0, survived: 0 };
  /** The largest burst that was survived each time, with all smaller ones; the smallest that never was. */
  const bounds = () => {
    const sorted = [...tries.values()].sort((a, b) => a.burst - b.burst);
    const failed = sorted.findIndex(({ tried, survived }) => survived < tried);
    const survived = sorted.findLastIndex((each) => each.survived > 0);
    const lower = failed < 0 ? sorted.at(-1) : sorted[failed - 1];
    const upper = sorted[survived + 1];
    return { lower, upper };
  };
  const next = (): number | undefined => {
    const { lower, upper } = bounds();
    if (lower === undefined && upper === undefined && tries.size === 0) return options.first;
    if (upper === undefined) {
      const largest = Math.max(...tries.keys());
      if (largest < most) return Math.min(most, largest * STEP);
      return of(most).tried < repeats ? most : undefined;
    }
    if (lower === undefined) {
      const smallest = Math.min(...tries.keys());
      if (smallest > least) return Math.max(least, smallest / STEP);
      return of(least).tried < repeats ? least : undefined;
    }
    const inside = [...tries.keys()].filter((burst) => burst > lower.burst && burst < upper.burst);
    const middle = (from: number, to: number) => Math.round(Math.sqrt(from * to));
    if (inside.length === 0 && upper.burst / lower.burst > 1 + precision) {
      return middle(lower.burst, upper.burst);
    }
    // Chance decides between the bounds. A bound that is this close to such a burst is close enough.
    const [above, below] = [Math.min(...inside), Math.max(...inside)];
    if (inside.length > 0 && above / lower.burst > WIDE) return middle(lower.burst, above);
    if (inside.length > 0 && upper.burst / below > WIDE) return middle(below, upper.burst);
    if (lower.tried < repeats) return lower.burst;
    if (upper.tried < repeats) return upper.burst;
    return undefined;
  };
  while (cells.length < options.tries) {
    const burst = next();
    if (burst === undefined) break;
    const cell = await options.attempt(burst);
    cells.push(cell);
    const { tried, survived } = of(burst);
    tries.set(burst, {
      burst,
      tried: tried + 1,
      survived: survived + (cell.outcome === "survives" ? 1 : 0),
    });
  }
  const { lower, upper } = bounds();
  const slow = cells.filter(({ outcome }) => outcome === "collapses")
    .map(({ drained }) => drained).sort((a, b) => a - b);
  return {
    lower: lower?.burst ?? 0,
    upper: upper?.burst ?? null,
    collapsed: slow.length === 0 ? null : slow[slow.length >> 1]!,
    cells,
    tries: [...tries.values()].sort((a, b) => a.burst - b.burst),
  };
}

/** Stable only if each burst was survived each time; collapsed if even the smallest never was. */
export function stateOf({ lower, upper, tries }: Tolerance): "stable" | "vulnerable" | "collapsed" {
  if (upper !== null) return lower === 0 ? "collapsed" : "vulnerable";
  return tries.every(({ tried, survived }) => survived === tried) ? "stable" : "vulnerable";
}
