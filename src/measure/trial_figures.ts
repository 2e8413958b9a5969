/**
 * Figures that the kernel reports on a reader's connection during one trial. To add one, add a
 * field to `TrialFigures` and its entry to `TRIAL_FIGURES`: it then appears in every trial of the
 * JSON and in the progress lines.
 */
import type { Reading } from "./meter.ts";

interface TrialFigure {
  /**
   * Computes it from a trial's first and last reading; undefined: the kernel does not report it.
   */
  readonly compute: (first: Reading, last: Reading) => number | undefined;
  /** As text with its name: `stalled 95 %`. Undefined: not worth showing. */
  readonly format: (value: number) => string | undefined;
}

/** Values by name; null where the kernel does not report them. */
export type TrialFigures = {
  /** Share of the time in which the reader's window or our send buffer kept us from sending. */
  stalled: number | null;
};

const TRIAL_FIGURES: { readonly [Name in keyof TrialFigures]: TrialFigure } = {
  stalled: {
    compute(first, last) {
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

/** The figures of a trial; all null without readings. */
export function trialFigures(first: Reading | undefined, last: Reading | undefined): TrialFigures {
  const known = first !== undefined && last !== undefined;
  return Object.fromEntries(
    ENTRIES.map(([name, { compute }]) => [name, known ? compute(first, last) ?? null : null]),
  ) as TrialFigures;
}

/** The figures that are known and worth showing: `stalled 95 %, ...`. */
export function formatTrialFigures(figures: TrialFigures): string {
  return ENTRIES.flatMap(([name, { format }]) => {
    const value = figures[name];
    return (value === null ? undefined : format(value)) ?? [];
  }).join(", ");
}

function stalledUs({ near: { info } }: Reading): number | undefined {
  return info && info.receiveWindowLimitedUs + info.sendBufferLimitedUs;
}
