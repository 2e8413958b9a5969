/**
 * Room: which bursts a reader survives, on top of which base rates.
 * In: `MapOptions`: what `limit` takes, and the limit.
 * Out: `MapResult`: for each base rate, the burst up to which the reader comes back by itself. From the
 * bottom up: cell (one rate and one burst), tolerance (bisection), survival (chances), map.
 */
import { environment } from "../kernel/environment.ts";
import { requireKernelFigures } from "../kernel/kernel.ts";
import { waitForClear } from "../measure/clearing.ts";
import { HELD_BACK } from "../measure/hidden_backlog.ts";
import {
  Interrupted,
  ReaderPool,
  type ReaderPoolEvent,
  type ReaderPoolOptions,
} from "../measure/reader_pool.ts";
import { ReaderFailed } from "../measure/reader_process.ts";
import { runTrial } from "../measure/trial.ts";
import { printable } from "../text/printable.ts";
import { formatByteRate, formatBytes } from "../text/units.ts";
import { type CellResult, tryCell } from "./cell.ts";
import { measureHysteresis } from "./hysteresis.ts";
import { MAP_SCHEMA, type MapResult } from "./map_result.ts";
import { chances } from "./survival.ts";
import { findTolerance, stateOf } from "./tolerance.ts";

/** Rates in bytes a second, bursts in bytes. `readers` is 1. */
export interface MapOptions extends Omit<ReaderPoolOptions, "readers" | "watchWork" | "onEvent"> {
  name?: string;
  /** The reader's limit. */
  limit: number;
  /** The base rates, as shares of the limit; default 0.05, 0.1, 0.2, 0.4, 0.6, 0.8. */
  shares?: readonly number[];
  /** The largest burst; default 64 MiB. */
  largestBurst?: number;
  /** Tries only this burst, `repeats` times at each rate; bytes. */
  burst?: number;
  /** The longest time in which the reader reads nothing although it could; seconds, by default it is looked for. */
  pause?: number;
  /** The bounds of a tolerance are at most so far apart, as a share; default 0.1. */
  precision?: number;
  /** Each bound holds in so many tries; default 2. */
  repeats?: number;
  /** Of the chances; default 0.95. */
  confidence?: number;
  onEvent?: (event: MapEvent) => void;
}

export type MapEvent =
  | ReaderPoolEvent
  | { event: "rate"; rate: number; number: number; of: number }
  | { event: "cell"; cell: CellResult }
  | { event: "fresh-reader"; reason: string };

export const SHARES: readonly number[] = [0.05, 0.1, 0.2, 0.4, 0.6, 0.8];
const LARGEST_BURST = 64 << 20;
/** A burst that a reader at its limit needs longer for is not tried; seconds. */
const LONGEST_CLEAR = 8;
/** The first burst that is tried is what comes in this time; seconds. */
const FIRST_SECONDS = 0.1;
/** A burst that comes in less than this is no more than what lies between two looks of the sender. */
const LEAST_SECONDS = 0.004;
/** The most tries at one rate. */
const MOST_TRIES = 24;
/** The reader's pauses are looked for at this share of its limit, for so long; seconds. */
const LOOK = { share: 0.2, seconds: 1.5 };
/** A reader's pause is at least so long, and so many times the longest that was seen; seconds. */
const PAUSE = { least: 0.02, times: 1.2 };
/** How long a reader that has survived may take until it is clear. */
const CLEAR_MS = 2000;

/**
 * Measures the map. Whatever the reader does becomes a result with a message. Rejects as `findLimit`
 * does.
 */
export async function measureMap(options: MapOptions): Promise<MapResult> {
  requireKernelFigures();
  const startMs = performance.now();
  const { limit, message, onEvent, confidence = 0.95, precision = 0.1, repeats = 2 } = options;
  const shares = [...options.shares ?? SHARES].sort((a, b) => a - b);
  const largestBurst = options.largestBurst ?? LARGEST_BURST;
  const pool = new ReaderPool({ ...options, readers: 1, watchWork: false });
  const reader = new PooledReader(pool, options);
  const result: MapResult = {
    schema: MAP_SCHEMA,
    reader: printable(options.name ?? options.command?.join(" ") ?? "attached"),
    limit,
    outcome: "stable",
    message: "",
    rates: [],
    hysteresis: null,
    absorbs: 0,
    largestBurst,
    confidence,
    messageSize: message.size,
    interrupted: false,
    seconds: 0,
    environment: environment(),
  };
  await pool.open();
  try {
    let before: number | undefined;
    for (const [i, share] of shares.entries()) {
      const rate = share * limit;
      onEvent?.({ event: "rate", rate, number: i + 1, of: shares.length });
      const least = Math.max(message.size, LEAST_SECONDS * rate);
      const most = Math.max(4 * least, Math.min(largestBurst, LONGEST_CLEAR * (limit - rate)));
      const { burst } = options;
      // At a higher rate, the tolerance is smaller.
      const first = Math.min(most, Math.max(least, before ?? FIRST_SECONDS * limit));
      const found = await findTolerance({
        ...(burst === undefined
          ? { first, least, most, tries: MOST_TRIES }
          : { first: burst, least: burst, most: burst, tries: repeats }),
        ...{ precision, repeats },
        attempt: (size) => reader.attempt(rate, size),
      });
      before = found.lower === 0 ? least : found.lower;
      result.rates.push({
        ...{ rate, share, tolerance: { lower: found.lower, upper: found.upper } },
        state: stateOf(found),
        collapsedRate: found.collapsed,
        chances: chances(found.tries, confidence),
        cells: found.cells,
      });
      if (options.signal?.aborted) throw new Interrupted();
    }
    const weak = result.rates.filter(({ tolerance }) => tolerance.upper !== null);
    const collapsing = weak.find(({ cells }) =>
      cells.some(({ outcome }) => outcome === "collapses")
    );
    if (collapsing !== undefined && options.burst === undefined) {
      result.hysteresis = await measureHysteresis({
        ...{ rate: collapsing.rate, burst: collapsing.tolerance.upper!, limit },
        attempt: (rate, burst, after) => reader.attempt(rate, burst, after),
      }) ?? null;
    }
  } catch (error) {
    if (error instanceof Interrupted) {
      result.interrupted = true;
      result.message = "interrupted before all rates were measured";
    } else if (error instanceof ReaderFailed) {
      result.outcome = "reader-failed";
      result.message = error.message;
    } else throw error;
  } finally {
    await pool.close();
    result.seconds = (performance.now() - startMs) / 1000;
  }
  conclude(result);
  return result;
}

function conclude(result: MapResult): void {
  const { rates, limit } = result;
  const taken = Math.max(0, ...rates.flatMap(({ cells }) => cells.map(({ absorbed }) => absorbed)));
  result.absorbs = taken > HELD_BACK ? taken : 0;
  if (result.message !== "" || rates.length === 0) return;
  const weak = rates.filter(({ state }) => state !== "stable");
  if (weak.length === 0) {
    result.message = `it comes back from each burst that was tried, up to ${
      formatBytes(Math.max(...rates.map(({ chances }) => chances.at(-1)!.burst)))
    }`;
    return;
  }
  result.outcome = "vulnerable";
  const first = weak[0]!;
  const { lower, upper } = first.tolerance;
  const died = weak.flatMap(({ cells }) => cells).find(({ ended }) => ended !== undefined)?.ended;
  const at = `at ${formatByteRate(first.rate)} (${
    Math.round(100 * first.rate / limit)
  } % of its limit)`;
  const how = died === undefined ? "it does not come back" : died;
  if (upper === null) {
    const { burst, tried, survived } = first.chances.find((each) => each.survived < each.tried)!;
    result.message = `${at}, it comes back from a burst of ${
      formatBytes(burst)
    } only sometimes: ${`${survived} of ${tried}`}`;
    return;
  }
  result.message = lower === 0
    ? `${at}, ${how} even after a burst of ${formatBytes(upper)}`
    : `${at}, it survives a burst of ${formatBytes(lower)}; after ${formatBytes(upper)} ${how}`;
}

/** The reader of a pool, replaced by a fresh one where a cell has left it unusable. */
class PooledReader {
  readonly #pool: ReaderPool;
  readonly #options: MapOptions;
  #replace: string | undefined = "";
  #pause: number | undefined;

  constructor(pool: ReaderPool, options: MapOptions) {
    this.#pool = pool;
    this.#options = options;
    this.#pause = options.pause;
  }

  /** Its longest pause; seconds. */
  async #findPause(): Promise<number> {
    const { limit, signal } = this.#options;
    const { connected } = this.#pool;
    const { longestPause } = await runTrial(connected, {
      ...{ rate: LOOK.share * limit, longest: LOOK.seconds },
      ...(signal === undefined ? {} : { signal }),
    });
    await waitForClear(connected, CLEAR_MS, longestPause);
    return Math.max(PAUSE.least, PAUSE.times * longestPause);
  }

  /** Tries one cell. */
  async attempt(
    rate: number,
    burst: number,
    after?: { rate: number; seconds: number },
  ): Promise<CellResult> {
    const { limit, signal, onEvent } = this.#options;
    if (signal?.aborted) throw new Interrupted();
    if (this.#replace !== undefined) {
      if (this.#replace !== "") onEvent?.({ event: "fresh-reader", reason: this.#replace });
      await this.#pool.replace();
      this.#replace = undefined;
    }
    const pause = this.#pause ??= await this.#findPause();
    const [reader] = this.#pool.connected;
    const cell = await tryCell(reader!, {
      ...{ rate, burst, limit, pause },
      ...(after === undefined ? {} : { after }),
      ...(signal === undefined ? {} : { signal }),
    });
    if (signal?.aborted || cell === undefined) throw new Interrupted();
    if (cell.ended !== undefined) {
      cell.ended = await this.#pool.explainEnd(0, { reason: cell.ended });
      this.#replace = "its connection ended";
    } else if (cell.outcome === "collapses") this.#replace = "it had collapsed";
    else {
      const { clear } = await waitForClear(this.#pool.connected, CLEAR_MS, pause);
      if (!clear) this.#replace = "it did not drain its backlog in time";
    }
    onEvent?.({ event: "cell", cell });
    return cell;
  }
}
