/** Records trials of one reader over time: one below its limit and one above it. */
import { Interrupted, ReaderPool, type ReaderPoolOptions } from "./reader_pool.ts";
import { ReaderFailed } from "./reader_process.ts";
import { runTrial } from "./trial.ts";
import type { TrialSample } from "./trial_watch.ts";

/** A trial over time; all arrays have the same length. */
export interface TrialSeries {
  /** The offered rate; bytes a second. */
  rate: number;
  /** Seconds since the first sample. */
  time: number[];
  /** Bytes offered, and bytes drained, since the first sample. */
  offered: number[];
  drained: number[];
  /** Bytes, at the time of the sample. */
  backlog: number[];
  /** The reader's last advertised window: bytes; null where the kernel does not report it. */
  window: (number | null)[];
}

interface SeriesOptions extends Omit<ReaderPoolOptions, "readers"> {
  /** One trial at each rate, each with a new reader. Bytes a second. */
  rates: readonly number[];
  /** The duration of each trial. */
  seconds: number;
  /** The shortest time between two samples that are kept; seconds. */
  every: number;
}

/** One trial on each side of a limit. */
export interface SeriesAround {
  /** At 0.9 of the lower bound. */
  below: TrialSeries;
  /** At 1.2 of the upper bound. */
  above: TrialSeries;
}

const BELOW = 0.9;
const ABOVE = 1.2;
/** Time between two recorded samples. Seconds. */
const EVERY = 0.02;

/**
 * Records a trial below a limit and one above it. Resolves to null where it was interrupted, and to
 * undefined where the reader failed: its limit has been measured all the same.
 */
export async function recordAround(
  limit: { lower: number; upper: number },
  options: Omit<SeriesOptions, "rates" | "every">,
): Promise<SeriesAround | null | undefined> {
  const rates = [BELOW * limit.lower, ABOVE * limit.upper];
  try {
    const series = await recordSeries({ ...options, rates, every: EVERY });
    if (series === null) return null;
    const [below, above] = series;
    return { below: below!, above: above! };
  } catch (error) {
    if (error instanceof ReaderFailed) return undefined;
    throw error;
  }
}

/**
 * Records one trial at each rate. Resolves to null where it was interrupted. Rejects with a
 * ReaderFailed where a reader does not connect or does not read. A connection that ends during a
 * trial shortens that series.
 */
async function recordSeries(options: SeriesOptions): Promise<TrialSeries[] | null> {
  const { rates, seconds, every, signal } = options;
  const pool = new ReaderPool(options);
  const recorded: TrialSeries[] = [];
  try {
    await pool.open();
    for (const rate of rates) {
      await pool.replace();
      const samples: TrialSample[] = [];
      await runTrial(pool.connected, {
        rate,
        longest: seconds,
        onSample(sample) {
          if (sample.time >= samples.length * every) samples.push(sample);
        },
        ...(signal === undefined ? {} : { signal }),
      });
      if (signal?.aborted) return null;
      recorded.push({
        rate,
        time: samples.map(({ time }) => Math.round(time * 1e4) / 1e4),
        offered: samples.map(({ offered }) => Math.round(offered)),
        drained: samples.map(({ drained }) => Math.round(drained)),
        backlog: samples.map(({ backlog }) => Math.round(backlog)),
        window: samples.map(({ window }) => window ?? null),
      });
    }
  } catch (error) {
    if (error instanceof Interrupted) return null;
    throw error;
  } finally {
    await pool.close();
  }
  return recorded;
}
