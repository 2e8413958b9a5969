/**
 * Room: at which rate a reader falls behind, what it does then, and whether it comes back.
 * In: `LimitOptions`: a command that starts the reader, or where readers connect.
 * Out: `LimitResult`: the limit, and the trials that it rests on. From the bottom up: meter, verdict,
 * trial, experiment, search, limit.
 */
import { environment } from "../kernel/environment.ts";
import { kernelSource, kernelSourceReason } from "../kernel/kernel.ts";
import { Experiment } from "./experiment.ts";
import { FedReaders, Interrupted } from "./fed_readers.ts";
import type { LimitOptions } from "./limit_options.ts";
import { LIMIT_SCHEMA, type LimitResult } from "./limit_result.ts";
import { ReaderFailed } from "./reader_process.ts";
import { searchLimit, type SearchResult } from "./search.ts";
import { DEFAULT_TOLERANCE } from "./verdict.ts";

/** Bytes a second at which the ramp begins; a slower reader is looked for downwards from there. */
const START_RATE = 500_000;
const USUAL_SECONDS = 30;

/**
 * Finds the rate at which a reader falls behind, what it drains past it, and whether it comes back.
 *
 * Never rejects for what the reader does: that is an outcome, with a message. Rejects with a
 * NetError when it cannot listen, and with an Error where the kernel tells nothing of connections.
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
  const readers = new FedReaders(options);
  const experiment = new Experiment(readers, options, tolerance);
  const result: LimitResult = {
    schema: LIMIT_SCHEMA,
    reader: options.name ?? options.command?.join(" ") ?? "attached",
    readers: options.readers ?? 1,
    outcome: "irregular",
    message: "",
    limit: null,
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
  await readers.open();
  try {
    const search = await searchLimit((rate, effort) => experiment.trial(rate, effort), {
      startRate,
      minRate,
      maxRate,
      precision,
      tolerance,
      hurry: () => performance.now() - startMs > usualSeconds * 1000,
      over: () => performance.now() - startMs > longestSeconds * 1000,
    });
    conclude(result, search, message.size);
    // Also where only a wide interval is known: what lies beyond it is all the more worth knowing.
    if (result.limit !== null) {
      if (experiment.firstBehind !== undefined && result.readers > 1) {
        result.firstBehind = experiment.firstBehind;
      }
      Object.assign(result, await experiment.lookBeyond(search.lower, search.upper));
    }
  } catch (error) {
    if (error instanceof Interrupted) {
      result.interrupted = true;
      result.message ||= "interrupted before it was found";
    } else if (error instanceof ReaderFailed) {
      result.outcome = "reader-failed";
      result.message = error.message;
    } else {
      throw error;
    }
  } finally {
    await readers.close();
    result.queueSource = experiment.queueSource;
    result.seconds = (performance.now() - startMs) / 1000;
  }
  return result;
}

function conclude(result: LimitResult, search: SearchResult, messageSize: number): void {
  const { outcome, lower, upper, reason } = search;
  result.outcome = outcome;
  result.message = reason ?? "found and confirmed";
  // An irregular search still knows an interval, a wide one; the others know no limit at all.
  if (outcome === "found" || (outcome === "irregular" && lower > 0 && upper < Infinity)) {
    result.limit = { lower, upper, messagesPerSecond: lower / messageSize };
  }
}
