/** Estimates how long a benchmark takes: first from constants, then from the runs made so far. */
import type { BenchCell, BenchRun } from "../src/report/bench_result.ts";
import { nameCell } from "./bench_cells.ts";

/** A run that has not been made yet. */
export interface Pending {
  /** Index into the header's cells. */
  cell: number;
  round: number;
}

/** Seconds of a run, as measured on two cores; used before similar runs have been made. */
const GUESS = {
  quick: { first: 10, reader: 6.5, sender: 0.4, iperf3: 1.1 },
  full: { first: 18, reader: 12, sender: 1.1, iperf3: 1.1 },
};

export class BenchTime {
  readonly #cells: readonly BenchCell[];
  readonly #guess: typeof GUESS.quick;
  /** The first counted round, in which each reader's run also records two trials. */
  readonly #firstRound: number;
  /** Totals of the runs made, by kind. */
  readonly #made = new Map<string, { runs: number; seconds: number; guessed: number }>();

  constructor(cells: readonly BenchCell[], { quick, firstRound }: {
    quick: boolean;
    firstRound: number;
  }) {
    this.#cells = cells;
    this.#guess = quick ? GUESS.quick : GUESS.full;
    this.#firstRound = firstRound;
  }

  /** Adds a run that was made. */
  add({ cell, round, seconds }: BenchRun): void {
    const kinds = this.#kinds({ cell, round });
    for (const kind of kinds) {
      const made = this.#made.get(kind) ?? { runs: 0, seconds: 0, guessed: 0 };
      made.runs++;
      made.seconds += seconds;
      made.guessed += this.#guessOf({ cell, round });
      this.#made.set(kind, made);
    }
  }

  /** Estimated duration of all these runs together. Seconds. */
  left(pending: readonly Pending[]): number {
    return pending.reduce((sum, run) => sum + this.#expect(run), 0);
  }

  #expect(run: Pending): number {
    const guess = this.#guessOf(run);
    for (const kind of this.#kinds(run)) {
      const made = this.#made.get(kind);
      if (made !== undefined) return guess * made.seconds / made.guessed;
    }
    return guess;
  }

  /** The groups of similar runs, the most similar first: the same cell, then the same kind. */
  #kinds({ cell }: Pending): string[] {
    const { kind } = this.#cells[cell]!;
    return [nameCell(this.#cells[cell]!), kind === "reader" || kind === "iperf3" ? kind : "flood"];
  }

  #guessOf({ cell, round }: Pending): number {
    const { kind } = this.#cells[cell]!;
    if (kind === "iperf3") return this.#guess.iperf3;
    if (kind !== "reader") return this.#guess.sender;
    return round === this.#firstRound ? this.#guess.first : this.#guess.reader;
  }
}

/** Formats a duration roughly: `4 min`, `50 s`. */
export function formatMinutes(seconds: number): string {
  return seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
}
