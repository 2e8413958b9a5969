/** The map of a reader: what `map --json` prints. */
import type { Environment } from "../kernel/environment.ts";
import type { CellResult } from "./cell.ts";
import type { Chance } from "./survival.ts";

export const MAP_SCHEMA = "speedlimit/map@1";

/** One base rate. Rates in bytes a second, bursts in bytes. */
export interface MapRate {
  rate: number;
  /** Of the limit. */
  share: number;
  /**
   * `stable`: it survived the largest burst that was tried. `vulnerable`: it survives bursts up to
   * `tolerance`. `collapsed`: it does not even survive the smallest one.
   */
  state: "stable" | "vulnerable" | "collapsed";
  /**
   * The largest burst that it survived each time, and the smallest that it never survived; null: it
   * survived the largest one.
   */
  tolerance: { lower: number; upper: number | null };
  /** What it drained after a collapse, the median; null: it never collapsed at this rate. */
  collapsedRate: number | null;
  /** The chance to survive each burst that was tried, the smallest first. */
  chances: Chance[];
  cells: CellResult[];
}

/** Of a reader that had collapsed at the base rate `collapsedAt`; rates in bytes a second. */
export interface Hysteresis {
  collapsedAt: number;
  /**
   * The highest rate at which it came back by itself, after `seconds`. 0: only when nothing was sent; null:
   * not even then.
   */
  returns: number | null;
  seconds: number | null;
  /** The lowest rate at which it did not come back. */
  staysAt: number;
}

/** `MAP_SCHEMA`. Rates in bytes a second, bursts in bytes, times in seconds. */
export interface MapResult {
  schema: typeof MAP_SCHEMA;
  /** The command, or `attached`. */
  reader: string;
  /** The limit that the rates are shares of. */
  limit: number;
  outcome: "stable" | "vulnerable" | "reader-failed";
  /** One line: what the map says. */
  message: string;
  /** By base rate, the lowest first. */
  rates: MapRate[];
  /** Whether it comes back once less is offered; null: it did not collapse at any rate. */
  hysteresis: Hysteresis | null;
  /**
   * The largest burst that it took faster than its limit explains: it queues so much in its own memory.
   * 0: hardly any.
   */
  absorbs: number;
  /** The largest burst that was tried. */
  largestBurst: number;
  /** Of the chances. */
  confidence: number;
  messageSize: number;
  interrupted: boolean;
  seconds: number;
  environment: Environment;
}
