/** The result of a search for a limit: what `limit --json` prints. */
import type { Environment } from "../kernel/environment.ts";
import type { Effort } from "./search.ts";
import type { SeriesAround } from "./series.ts";

/** What a trial is for: an effort of the search, or a look beyond the limit. */
export type Purpose = Effort | "overload" | "recovery";

/** One trial in a result. Rates in bytes a second. */
export interface Trial {
  offered: number;
  kept: number;
  drained: number;
  backlogSlope: number;
  /** 0 to 1; null where the kernel does not tell. */
  stalled: number | null;
  seconds: number;
  verdict: "keeps-up" | "falls-behind" | "irregular";
  purpose: Purpose;
  /** How the reader's connection ended, if it did. */
  ended?: string;
}

/** "speedlimit/limit@1". Rates in bytes a second, durations in seconds. */
export interface LimitResult {
  schema: "speedlimit/limit@1";
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
