/**
 * Room: measures the speed limit of a reader, and how it behaves beyond that limit.
 * In: `LimitOptions`: a command that starts the reader, or the address where readers connect.
 * Out: `LimitResult`: the limit, and the trials that it is based on. From the bottom up: meter,
 * verdict, trial, experiment, search, limit.
 */
import { environment } from "../kernel/environment.ts";
import { kernelSource, kernelSourceReason } from "../kernel/kernel.ts";
import { printable } from "../text/printable.ts";
import { formatByteRate, formatSeconds } from "../text/units.ts";
import { Experiment, Hoards } from "./experiment.ts";
import type { LimitOptions } from "./limit_options.ts";
import { CONFIRMED, LIMIT_SCHEMA, type LimitResult } from "./limit_result.ts";
import { Interrupted, ReaderPool } from "./reader_pool.ts";
import { ReaderFailed } from "./reader_process.ts";
import { searchLimit, type SearchResult } from "./search.ts";
import { DEFAULT_TOLERANCE } from "./verdict.ts";

/** First rate of the ramp; for a slower reader the search goes down from here. Bytes a second. */
const START_RATE = 500_000;
const USUAL_SECONDS = 30;

/**
 * Finds the highest rate at which a reader keeps up, what it drains when twice that is offered, and
 * whether it recovers at half of it.
 *
 * Whatever the reader does becomes an outcome with a message, never a rejection. Rejects with a
 * NetError where it cannot listen, and with an Error where the kernel gives no figures of
 * connections.
 */
export async function findLimit(options: LimitOptions): Promise<LimitResult> {
  if (kernelSource === "none") {
    throw new Error(
      `cannot measure a reader here: ${
        kernelSourceReason ?? "no kernel figures"
      }, and there is no ` +
        `/proc/net/tcp either`,
    );
  }
  const { precision = 0.01, minRate = 1000, maxRate = Infinity, message } = options;
  const { startRate = START_RATE, usualSeconds = USUAL_SECONDS } = options;
  const { longestSeconds = Infinity } = options;
  const tolerance = Math.min(DEFAULT_TOLERANCE, precision / 4);
  const startMs = performance.now();
  const pool = new ReaderPool({ ...options, watchWork: options.until !== "taken" });
  const experiment = new Experiment(pool, options, tolerance);
  const result: LimitResult = {
    schema: LIMIT_SCHEMA,
    reader: printable(options.name ?? options.command?.join(" ") ?? "attached"),
    readers: options.readers ?? 1,
    outcome: "irregular",
    message: "",
    limit: null,
    until: "taken",
    intake: null,
    hoards: false,
    hidden: null,
    overload: null,
    recovery: null,
    trials: experiment.trials,
    interrupted: false,
    queueSource: "none",
    messageSize: message.size,
    precision,
    seconds: 0,
    environment: environment(),
  };
  await pool.open();
  try {
    const search = await searchLimit((rate, phase) => experiment.trial(rate, phase), {
      startRate,
      minRate,
      maxRate,
      precision,
      tolerance,
      isSlow: () => performance.now() - startMs > usualSeconds * 1000,
      isOutOfTime: () => performance.now() - startMs > longestSeconds * 1000,
    });
    addSearchResult(result, search, message.size);
    // Also where only a wide interval is known: the behaviour beyond it is then even more useful.
    if (result.limit !== null) {
      if (experiment.firstBehind !== undefined && result.readers > 1) {
        result.firstBehind = experiment.firstBehind;
      }
      Object.assign(result, await experiment.measureOverload(search.lower, search.upper));
    }
  } catch (error) {
    if (error instanceof Hoards) {
      await addProcessing(result, experiment, error.capacity);
    } else if (error instanceof Interrupted) {
      result.interrupted = true;
      result.message ||= "interrupted before the limit was found";
    } else if (error instanceof ReaderFailed) {
      result.outcome = "reader-failed";
      result.message = error.message;
    } else {
      throw error;
    }
  } finally {
    result.until = pool.works.length > 0 ? "worked" : "taken";
    await pool.close();
    result.queueSource = experiment.queueSource;
    result.seconds = (performance.now() - startMs) / 1000;
  }
  return result;
}

/** For a reader that takes more than it works on: the limit is what it processes. */
async function addProcessing(
  result: LimitResult,
  experiment: Experiment,
  capacity: number,
): Promise<void> {
  const intake = experiment.intake;
  const { lower, upper, confirmed, hidden } = await experiment.measureProcessing(capacity);
  result.outcome = confirmed ? "found" : "irregular";
  result.limit = { lower, upper, messagesPerSecond: lower / result.messageSize };
  result.message = confirmed ? CONFIRMED : "the reader was also behind just below the interval";
  if (hidden === null) {
    Object.assign(result, await experiment.measureOverload(lower, upper));
    return;
  }
  const { offered, seconds, memoryBytesPerSecond: growth } = hidden;
  const queues = "it takes more from its socket than it works on, and queues the rest in its own " +
    `memory: offered ${formatByteRate(offered)}, it was ${formatSeconds(seconds)} behind at the ` +
    "end of a trial" + (growth > 0 ? `, and its memory grew by ${formatByteRate(growth)}` : "");
  result.intake = { lower: intake, upper: null };
  result.hoards = true;
  result.hidden = hidden;
  result.message = confirmed ? queues : `${result.message}; ${queues}`;
}

function addSearchResult(result: LimitResult, search: SearchResult, messageSize: number): void {
  const { outcome, lower, upper, reason } = search;
  result.outcome = outcome;
  result.message = reason ?? CONFIRMED;
  // An irregular search may have a wide interval; the other outcomes have no limit at all.
  if (outcome === "found" || (outcome === "irregular" && lower > 0 && upper < Infinity)) {
    result.limit = { lower, upper, messagesPerSecond: lower / messageSize };
  }
}
