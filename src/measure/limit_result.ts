/** The result of a search for a speed limit: what `limit --json` prints. */
import type { Environment } from "../kernel/environment.ts";
import type { SearchPhase } from "./lab.ts";
import type { SeriesAround } from "./series.ts";
import type { TrialFigures } from "./trial_figures.ts";

/** What a trial is for: a phase of the search, or a measurement beyond the limit. */
export type TrialPurpose = SearchPhase | "overload" | "recovery";

/** One trial in a result. Rates in bytes a second. */
export interface Trial extends TrialFigures {
  offered: number;
  /** The part of the offered rate that the sender really offered. */
  achieved: number;
  drained: number;
  /** Growth of the lowest backlog, or what was achieved less what was drained. */
  backlogSlope: number;
  seconds: number;
  verdict: "keeps-up" | "falls-behind" | "inconclusive";
  purpose: TrialPurpose;
  /**
   * How long the reader went on working after the last message was sent, where that was seen; null
   * where it was not looked at.
   */
  workedOn: number | null;
  /** CPU time of the reader's processes, and of ours, by elapsed time: 1 is one core. Null: unknown. */
  readerCpu: number | null;
  senderCpu: number;
  /** How the reader's connection ended, if it did. */
  ended?: string;
  /** Messages that did not come out, where the output has numbers; absent: none. */
  lost?: number;
}

/** See `LimitResult.output`. */
export interface OutputResult {
  /** Where it was counted: `file:PATH`, `stdout`. */
  place: string;
  /** The output has numbers; without them nothing is known of losses. */
  numbered: boolean;
  lost: number;
  duplicated: number;
  reordered: number;
  /** The lowest rate at which messages were lost; bytes a second. Null: none was. */
  firstLossAt: number | null;
}

/** The schema of one result, and of several together. */
export const LIMIT_SCHEMA = "speedlimit/limit@2";
export const LIMITS_SCHEMA = "speedlimit/limits@2";

/** The message of a limit that was found as precisely as requested: it needs no explanation. */
export const CONFIRMED = "the limit was found and confirmed by longer trials";

/** See `LimitResult.drift`. */
export interface Drifting {
  first: number;
  last: number;
  seconds: number;
  messages: number;
  perMinute: number;
  perMillionMessages: number;
}

/** `LIMIT_SCHEMA`. Rates in bytes a second, durations in seconds. */
export interface LimitResult {
  schema: typeof LIMIT_SCHEMA;
  /** The command, or `attached`. */
  reader: string;
  readers: number;
  outcome:
    | "found"
    | "generator-limited"
    | "path-limited"
    | "irregular"
    | "reader-failed"
    | "below-range";
  /** One line: what the outcome means here; `CONFIRMED` where there is nothing to explain. */
  message: string;
  limit: { lower: number; upper: number; messagesPerSecond: number } | null;
  /** `limit.lower`, or without a limit the highest rate at which the reader kept up; 0: none. */
  keepsUpAt: number;
  /** What `limit` is the highest rate of: see `LimitOptions.until`. */
  until: "worked" | "taken" | "output";
  /**
   * A reader that hoards: the highest rate at which its socket was drained, bytes a second. It may be
   * higher. Null for other readers.
   */
  intake: { lower: number; upper: number | null } | null;
  /** It takes more than it works on, and queues the rest in its own memory. */
  hoards: boolean;
  /**
   * Its hidden backlog at `offered`, a rate above the limit: the seconds of work that were left after a
   * trial, in bytes as well, and the growth of its resident memory meanwhile, bytes a second.
   */
  hidden:
    | { offered: number; seconds: number; bytes: number; memoryBytesPerSecond: number }
    | null;
  /** Of a reader that was measured by its output; null: it was not. */
  output: OutputResult | null;
  /**
   * A reader whose speed changes the longer it runs has no single limit: what it drained at first and last
   * (bytes a second) while it always had a backlog, for how long, how many messages it read meanwhile, and
   * the change as a share: -0.1 is 10 % slower.
   */
  drift: Drifting | null;
  overload: { offered: number; drained: number; collapsed: boolean } | null;
  recovery: { recovered: boolean; seconds: number } | null;
  trials: Trial[];
  /** One trial below the limit and one above it, where they were recorded: see series.ts. */
  series?: SeriesAround;
  /** Which of several readers fell behind first, from 0. */
  firstBehind?: number;
  interrupted: boolean;
  /**
   * Where the size of the reader's receive queue came from: `socket` (its own socket), `window`
   * (its advertised window) or `none`.
   */
  queueSource: string;
  messageSize: number;
  precision: number;
  confidence: number;
  /** Mean time between two samples of a reader, in the trial in which it was longest. */
  sampleSeconds: number;
  seconds: number;
  environment: Environment;
}

/** The highest rate at which the reader kept up, unless a longer trial contradicts it; 0: none. */
export function highestKeptUp(trials: readonly Trial[]): number {
  const firm = ["confirm", "bound", "saturate"];
  const failed = Math.min(
    ...trials.filter(({ verdict, purpose }) => verdict !== "keeps-up" && firm.includes(purpose))
      .map(({ offered }) => offered),
  );
  const kept = trials.filter(({ verdict, purpose, offered }) =>
    verdict === "keeps-up" && (purpose !== "ramp" || offered < failed)
  );
  return Math.max(0, ...kept.map(({ offered }) => offered));
}
