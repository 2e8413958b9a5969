/**
 * What the kernel tells of a reader's connection in one trial. A figure is one field of
 * `TrialFigures` and one entry of `TRIAL_FIGURES`: it is then in every trial of the JSON, in the
 * progress lines and in the table of trials.
 */
import type { Reading } from "./meter.ts";

interface TrialFigure {
  /** From the first and the last reading of a trial; undefined: the kernel does not tell. */
  readonly of: (first: Reading, last: Reading) => number | undefined;
  /** For people, with its name: `stalled 95 %`. Undefined: not worth a word. */
  readonly format: (value: number) => string | undefined;
}

/** By name; null where the kernel does not tell. */
export type TrialFigures = {
  /** Share of the time in which the reader's window, or our send buffer, kept us from sending. */
  stalled: number | null;
};

const TRIAL_FIGURES: { readonly [Name in keyof TrialFigures]: TrialFigure } = {
  stalled: {
    of(first, last) {
      const before = stalledUs(first);
      const after = stalledUs(last);
      if (before === undefined || after === undefined) return undefined;
      const us = (last.nowMs - first.nowMs) * 1000;
      return us <= 0 ? 0 : Math.min(1, (after - before) / us);
    },
    format: (share) => `stalled ${Math.round(share * 100)} %`,
  },
};

const ENTRIES = Object.entries(TRIAL_FIGURES) as [keyof TrialFigures, TrialFigure][];

/** The figures of a trial; without readings none is known. */
export function trialFigures(first: Reading | undefined, last: Reading | undefined): TrialFigures {
  const known = first !== undefined && last !== undefined;
  return Object.fromEntries(
    ENTRIES.map(([name, { of }]) => [name, known ? of(first, last) ?? null : null]),
  ) as TrialFigures;
}

/** Those that are known and worth a word: `stalled 95 %, ...`. */
export function formatTrialFigures(figures: TrialFigures): string {
  return ENTRIES.flatMap(([name, { format }]) => {
    const value = figures[name];
    return (value === null ? undefined : format(value)) ?? [];
  }).join(", ");
}

function stalledUs({ near: { info } }: Reading): number | undefined {
  return info && info.receiveWindowLimitedUs + info.sendBufferLimitedUs;
}
