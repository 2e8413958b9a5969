/** The result of a search for a limit: what `limit --json` prints. */
import type { Environment } from "../kernel/environment.ts";
import type { SearchPhase } from "./search.ts";
import type { TrialFigures } from "./trial_figures.ts";
import type { SeriesAround } from "./series.ts";

/** What a trial is for: an effort of the search, or a look beyond the limit. */
export type TrialPurpose = SearchPhase | "overload" | "recovery";

/** One trial in a result. Rates in bytes a second. */
export interface Trial extends TrialFigures {
  offered: number;
  achieved: number;
  drained: number;
  backlogSlope: number;
  seconds: number;
  verdict: "keeps-up" | "falls-behind" | "inconclusive";
  purpose: TrialPurpose;
  /** How the reader's connection ended, if it did. */
  ended?: string;
}

/** The schema of one result, and of several together. */
export const LIMIT_SCHEMA = "speedlimit/limit@2";
export const LIMITS_SCHEMA = "speedlimit/limits@2";

/** `LIMIT_SCHEMA`. Rates in bytes a second, durations in seconds. */
export interface LimitResult {
  schema: typeof LIMIT_SCHEMA;
  /** The command, or `attached`. */
  reader: string;
  readers: number;
  outcome: "found" | "generator-limited" | "irregular" | "reader-failed" | "below-range";
  /** One line: what it means, and what to do about it. */
  message: string;
  limit: { lower: number; upper: number; messagesPerSecond: number } | null;
  overload: { offered: number; drained: number; collapsed: boolean } | null;
  recovery: { recovered: boolean; seconds: number } | null;
  trials: Trial[];
  /** One trial below the limit and one above it, where they were recorded: see series.ts. */
  series?: SeriesAround;
  /** Which of several readers fell behind first, from 0. */
  firstBehind?: number;
  interrupted: boolean;
  /** How the reader's receive queue was seen: its own socket, its window, or not at all. */
  queueSource: string;
  messageSize: number;
  precision: number;
  seconds: number;
  environment: Environment;
}
