/** What goes on in a trial, over time: of one reader, below its limit and above it. */
import { FedReaders, type FedReadersOptions, Interrupted } from "./fed_readers.ts";
import { runTrial, type TrialSample } from "./trial.ts";

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

export interface SeriesOptions extends Omit<FedReadersOptions, "readers"> {
  /** Bytes a second, one trial each, with a fresh reader. */
  rates: readonly number[];
  /** Of each trial. */
  seconds: number;
  /** The shortest time between two samples that are kept; seconds. */
  every: number;
}

/**
 * Records one trial at each rate. Null: it was interrupted. Rejects with a ReaderFailed when there
 * is no reader to record; one that goes in the middle of a trial ends its series early.
 */
export async function recordSeries(options: SeriesOptions): Promise<TrialSeries[] | null> {
  const { rates, seconds, every, signal } = options;
  const readers = new FedReaders(options);
  const recorded: TrialSeries[] = [];
  try {
    await readers.open();
    for (const rate of rates) {
      await readers.renew();
      const kept: TrialSample[] = [];
      await runTrial(readers.feeds, {
        rate,
        minSeconds: seconds,
        maxSeconds: seconds,
        full: true,
        onSample(sample) {
          if (sample.time >= kept.length * every) kept.push(sample);
        },
        ...(signal === undefined ? {} : { signal }),
      });
      if (signal?.aborted) return null;
      recorded.push({
        rate,
        time: kept.map(({ time }) => Math.round(time * 1e4) / 1e4),
        offered: kept.map(({ offered }) => Math.round(offered)),
        drained: kept.map(({ drained }) => Math.round(drained)),
        backlog: kept.map(({ backlog }) => Math.round(backlog)),
        window: kept.map(({ window }) => window ?? null),
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
