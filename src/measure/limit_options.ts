/** The options of a search for a speed limit, and its events. */
import type { Trial, TrialPurpose } from "./limit_result.ts";
import type { ReaderPoolEvent, ReaderPoolOptions } from "./reader_pool.ts";

export interface LimitOptions extends ReaderPoolOptions {
  /** The reader's name in the result; default: its command. */
  name?: string;
  /** upper / lower of the result is at most 1 + precision, if there is time; default 0.01. */
  precision?: number;
  /** Bytes a second; defaults 1000 and Infinity. */
  minRate?: number;
  maxRate?: number;
  /**
   * The first rate offered, bytes a second; default 500 kB/s. Choose it well below the limit: above
   * it, the reader may collapse.
   */
  startRate?: number;
  /**
   * What keeping up means: `worked`, the reader finishes its work on what it was sent; `taken`, it only
   * takes it from its socket, and may queue it in its own memory. Default `worked` where the reader's
   * processes can be seen on this host, else `taken`.
   */
  until?: "worked" | "taken";
  /** Of the interval; default 0.95. */
  confidence?: number;
  /**
   * How long it may take; seconds, default 60; with less than 20 it says little. A reader whose speed varies needs more time for the same
   * precision: the search ends with the interval that it has by then.
   */
  timeSeconds?: number;
  /** @deprecated `timeSeconds`; accepted until 1.0 */
  longestSeconds?: number;
  /** Ends the search early; the result contains what was measured until then. */
  signal?: AbortSignal;
  onEvent?: (event: LimitEvent) => void;
}

/** What happens during a search, in order. */
export type LimitEvent =
  | ReaderPoolEvent
  | { event: "trial-begins"; rate: number; purpose: TrialPurpose }
  | { event: "trial"; purpose: TrialPurpose; trial: Trial }
  /** Where the limit is, as far as is known (bytes a second), and the time left, seconds. */
  | { event: "interval"; lower: number; upper: number; secondsLeft: number }
  /** The readers are being replaced; `reason` is a clause about the previous one ("its ..."). */
  | { event: "fresh-reader"; reason: string };
