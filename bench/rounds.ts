/**
 * What the benchmarks share in method: rounds in which every cell runs once, in an order that is
 * shuffled anew, the first ones dropped, and the middle of what is left.
 */

/** One thing to measure; `run` measures it once. */
export interface Cell<T> {
  name: string;
  run: () => Promise<T>;
}

export interface RoundOptions {
  /** Rounds that count. */
  runs: number;
  /** Rounds before them, which do not. */
  warmUps: number;
  /** Called before each run. */
  onRun?: (what: { round: number; rounds: number; name: string }) => void;
}

/**
 * Runs all cells, one at a time, in each round; the results of each by its name, in the order of the
 * rounds. Rejects as the first run that fails does: a run that dies is no low number.
 */
export async function runRounds<T>(
  cells: readonly Cell<T>[],
  { runs, warmUps, onRun }: RoundOptions,
): Promise<Map<string, T[]>> {
  const results = new Map<string, T[]>(cells.map(({ name }) => [name, []]));
  for (let round = 1; round <= warmUps + runs; round++) {
    for (const { name, run } of shuffled(cells)) {
      onRun?.({ round, rounds: warmUps + runs, name });
      const result = await run();
      if (round > warmUps) results.get(name)!.push(result);
    }
  }
  return results;
}

/** The same in a random order (Fisher and Yates). */
export function shuffled<T>(items: readonly T[]): T[] {
  const result = [...items];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [result[i], result[j]] = [result[j]!, result[i]!];
  }
  return result;
}
