/** What goes on in a trial, over time: of one reader, below its limit and above it. */
import { FedReaders, type FedReadersOptions, Interrupted } from "./fed_readers.ts";
import { ReaderFailed } from "./reader_process.ts";
import { runTrial } from "./trial.ts";
import type { TrialSample } from "./trial_watch.ts";

/** A trial over time; all arrays are of one length. */
export interface TrialSeries {
  /** The rate asked for; bytes a second. */
  rate: number;
  /** Seconds since the first sample. */
  time: number[];
  /** Since the first sample; bytes. */
  offered: number[];
  drained: number[];
  /** Bytes. */
  backlog: number[];
  /** What the reader advertised last: bytes; null where the kernel does not tell. */
  window: (number | null)[];
}

interface SeriesOptions extends Omit<FedReadersOptions, "readers"> {
  /** Bytes a second, one trial each, with a fresh reader. */
  rates: readonly number[];
  /** Of each trial. */
  seconds: number;
  /** The shortest time between two samples that are kept; seconds. */
  every: number;
}

/** One trial on each side of a limit. */
export interface SeriesAround {
  /** At 0.9 of the lower bound. */
  below: TrialSeries;
  /** At 1.2 of the upper one. */
  above: TrialSeries;
}

const BELOW = 0.9;
const ABOVE = 1.2;
/** Two recorded samples are this far apart. Seconds. */
const EVERY = 0.02;

/**
 * Records a trial below a limit and one above it. Null: it was interrupted. Undefined: there was no
 * reader to record; its limit was measured all the same.
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
 * Records one trial at each rate. Null: it was interrupted. Rejects with a ReaderFailed when there
 * is no reader to record; one that goes in the middle of a trial ends its series early.
 */
async function recordSeries(options: SeriesOptions): Promise<TrialSeries[] | null> {
  const { rates, seconds, every, signal } = options;
  const readers = new FedReaders(options);
  const recorded: TrialSeries[] = [];
  try {
    await readers.open();
    for (const rate of rates) {
      await readers.renew();
      const samples: TrialSample[] = [];
      await runTrial(readers.feeds, {
        rate,
        minSeconds: seconds,
        maxSeconds: seconds,
        full: true,
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
    await readers.close();
  }
  return recorded;
}
