/** How long a benchmark takes: a guess at first, then what its runs have taken so far. */
import type { BenchCell, BenchRun } from "../src/report/bench_result.ts";
import { nameCell } from "./bench_cells.ts";

/** A run that is still to come. */
export interface Pending {
  /** Place in the header's cells. */
  cell: number;
  round: number;
}

/** Seconds of a run, before any was seen: measured on two cores. */
const GUESS = {
  quick: { first: 10, reader: 6.5, sender: 0.4, iperf3: 1.1 },
  full: { first: 18, reader: 12, sender: 1.1, iperf3: 1.1 },
};

export class BenchTime {
  readonly #cells: readonly BenchCell[];
  readonly #guess: typeof GUESS.quick;
  /** The first round that counts: it records the two trials as well. */
  readonly #firstRound: number;
  /** By the kind of run. */
  readonly #seen = new Map<string, { runs: number; seconds: number; guessed: number }>();

  constructor(cells: readonly BenchCell[], { quick, firstRound }: {
    quick: boolean;
    firstRound: number;
  }) {
    this.#cells = cells;
    this.#guess = quick ? GUESS.quick : GUESS.full;
    this.#firstRound = firstRound;
  }

  saw({ cell, round, seconds }: BenchRun): void {
    const kinds = this.#kinds({ cell, round });
    for (const kind of kinds) {
      const seen = this.#seen.get(kind) ?? { runs: 0, seconds: 0, guessed: 0 };
      seen.runs++;
      seen.seconds += seconds;
      seen.guessed += this.#guessOf({ cell, round });
      this.#seen.set(kind, seen);
    }
  }

  /** Of all these runs, one after the other. Seconds. */
  left(pending: readonly Pending[]): number {
    return pending.reduce((sum, run) => sum + this.#expect(run), 0);
  }

  #expect(run: Pending): number {
    const guess = this.#guessOf(run);
    for (const kind of this.#kinds(run)) {
      const seen = this.#seen.get(kind);
      if (seen !== undefined) return guess * seen.seconds / seen.guessed;
    }
    return guess;
  }

  /** What a run is like, the most alike first: itself, then all of its kind. */
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

/** A time of minutes for people, who need no more than that: `4 min`, `50 s`. */
export function formatMinutes(seconds: number): string {
  return seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
}
