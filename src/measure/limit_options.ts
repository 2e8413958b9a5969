/** What a limit is asked for, and what happens while it is searched for. */
import type { FedReadersEvent, FedReadersOptions } from "./fed_readers.ts";
import type { Trial, TrialPurpose } from "./limit_result.ts";

export interface LimitOptions extends FedReadersOptions {
  /** What to call the reader in the result; default: its command. */
  name?: string;
  /** upper / lower of the result is at most 1 + precision; default 0.01. */
  precision?: number;
  /** Bytes a second; defaults 1000 and Infinity. */
  minRate?: number;
  maxRate?: number;
  /** Where the search begins: well below the limit, or it may collapse. Default 500 kB/s. */
  startRate?: number;
  /** The shortest time of each trial of the search, as a share of the usual one; default 1. */
  trialScale?: number;
  /** The longest that one trial may take to be clear; seconds, default 6. */
  maxTrialSeconds?: number;
  /** A search that takes longer than this pays with precision; seconds, default 30. */
  usualSeconds?: number;
  /** One that takes longer than this ends, with what is known by then; seconds, default no limit. */
  longestSeconds?: number;
  /** Ends the search early: the result tells what is known by then. */
  signal?: AbortSignal;
  onEvent?: (event: LimitEvent) => void;
}

/** What happens while a limit is searched for, in order. */
export type LimitEvent =
  | FedReadersEvent
  | { event: "trial-begins"; rate: number; purpose: TrialPurpose }
  | { event: "trial"; purpose: TrialPurpose; trial: Trial }
  | { event: "fresh-reader"; reason: string };
