/**
 * What a reader processes that takes more than it works on: it is offered more for a while, several
 * times, and the time that it then works on is counted.
 */
import { type HiddenBacklog, isBehind, processingRate } from "./hidden_backlog.ts";

/** How many trials count, and how many there are at most. */
const ENOUGH = 3;
const MOST = 8;
const FEWEST = 2;
/** The length of a trial: at least so many seconds, and so many messages. */
const SECONDS = 2.5;
const MESSAGES = 40;
/** Offered, by the estimate of the limit: enough to be behind, so that it works all the time. */
export const ABOVE_PROCESSING = 1.5;
/** A trial counts that left at least this share of its duration to work on. */
const BEHIND = 0.15;
/** Or of which the kernel took at most this share: its buffers were full. */
export const BLOCKED = 0.95;
/** Where it must not be behind, by the lower bound. */
const BELOW = 0.97;

/** What was offered, for how long, and how long the reader then went on working. */
export interface WorkTrial {
  bytes: number;
  seconds: number;
  hidden: HiddenBacklog;
}

/**
 * The interval, bytes a second, and whether the reader was not behind just below it. Undefined where the
 * end of its work was not seen. `capacity`: an estimate, bytes a second. `work` offers a rate for so many
 * seconds and looks; undefined: it could not look. `pause`: see `isBehind`.
 */
export async function measureProcessing(
  capacity: number,
  { messageSize, confidence, pause }: { messageSize: number; confidence: number; pause: number },
  work: (rate: number, seconds: number) => Promise<WorkTrial | undefined>,
): Promise<{ lower: number; upper: number; confirmed: boolean } | undefined> {
  const length = Math.max(SECONDS, MESSAGES * messageSize / capacity);
  const trials: { bytes: number; seconds: number; worked: number }[] = [];
  let rate = ABOVE_PROCESSING * capacity;
  for (let run = 0; run < MOST && trials.length < ENOUGH; run++) {
    const found = await work(rate, length);
    if (found === undefined) break;
    const { bytes, seconds, hidden: { seconds: worked, quiet } } = found;
    if (!quiet) rate = Math.min(rate, ABOVE_PROCESSING * bytes / (seconds + worked)) / 1.2;
    else if (worked < BEHIND * seconds && bytes > BLOCKED * rate * seconds) {
      rate *= ABOVE_PROCESSING;
    } else trials.push({ bytes, seconds, worked });
  }
  if (trials.length < FEWEST) return undefined;
  const { lower, upper } = processingRate(trials, confidence);
  const below = await work(BELOW * lower, length);
  const confirmed = below !== undefined && !isBehind(below.hidden, { ...below, pause });
  return { lower, upper, confirmed };
}
