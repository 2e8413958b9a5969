/** What the search asks of readers, real or simulated. */
import type { Sample } from "./backlog.ts";
import type { HiddenBacklog } from "./hidden_backlog.ts";

/**
 * What the search uses a trial for: `ramp`, from below, for an estimate; `saturate`, above the estimate,
 * for what a reader drains that always has a backlog; `confirm`, just below the limit, where it must keep
 * up; `bound`, with a fresh reader, for one that collapses; `work`, for how long it goes on working.
 */
export type SearchPhase = "ramp" | "saturate" | "confirm" | "bound" | "work";

/** What a trial says, once the search has looked at it. */
export interface Judged {
  verdict: "keeps-up" | "falls-behind" | "inconclusive";
  /** Growth of the backlog, bytes a second; undefined: what was achieved less what was drained. */
  slope?: number;
}

/** A trial that has ended. */
export interface Offered {
  /** From the first message to the last one. */
  seconds: number;
  /** Bytes that each reader was sent, the fewest. */
  bytes: number;
  /**
   * A reader ended its connection: it was `behind`, or it was not, and the trial says nothing (`lost`). In
   * the second such trial in a row, `offer` rejects.
   */
  ended: "behind" | "lost" | undefined;
}

export interface Lab {
  /** Number of readers. */
  readonly readers: number;
  /**
   * Offers `rate` (bytes a second) to each reader until `add` returns true, or for `longest` seconds. `add`
   * gets one sample of each reader at a time, in the same array.
   */
  offer(
    trial: { rate: number; purpose: SearchPhase; longest: number },
    add: (samples: readonly Sample[]) => boolean,
  ): Promise<Offered>;
  /**
   * How long the readers go on working after that: what they have taken may wait in their own memory.
   * Undefined: their work cannot be seen.
   */
  look(): Promise<HiddenBacklog | undefined>;
  /**
   * Ends the trial, of which this is known, and waits until the readers have cleared their backlog.
   * `fresh`: replaces them by new ones, where there are some.
   */
  settle(judged: Judged, fresh: boolean): Promise<void>;
  /** Seconds since the search began. */
  seconds(): number;
}
