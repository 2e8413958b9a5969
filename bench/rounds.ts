/**
 * Rounds of a benchmark: in each round every cell runs once, in a new random order; the results of
 * the first rounds are dropped.
 */

/** One thing to measure; `run` measures it once. */
export interface Cell<T> {
  name: string;
  run: () => Promise<T>;
}

export interface RoundOptions {
  /** Counted rounds. */
  runs: number;
  /** Rounds before them that are not counted. */
  warmUps: number;
  /** Called before each run. */
  onRun?: (what: { round: number; rounds: number; name: string }) => void;
}

/**
 * Runs all cells, one at a time, in each round. Resolves to the results of each cell by its name,
 * in the order of the rounds. Rejects with the error of the first run that fails.
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

/** A copy in random order (Fisher-Yates). */
export function shuffled<T>(items: readonly T[]): T[] {
  const result = [...items];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [result[i], result[j]] = [result[j]!, result[i]!];
  }
  return result;
}
