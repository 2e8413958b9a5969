/**
 * Room: measures the speed limit of a reader, and how it behaves beyond that limit.
 * In: `LimitOptions`: a command that starts the reader, or the address where readers connect.
 * Out: `LimitResult`: the limit, and the trials that it is based on. From the bottom up: meter, trial,
 * experiment (readers), backlog, stretch (verdicts), search, limit.
 */
import { formatOutputPlace, type OutputOptions } from "../output/output.ts";
import { environment } from "../kernel/environment.ts";
import { requireKernelFigures } from "../kernel/kernel.ts";
import { printable } from "../text/printable.ts";
import { formatByteRate, formatBytes, formatCount, formatSeconds } from "../text/units.ts";
import { measureBeyond, measureHidden } from "./beyond.ts";
import { Experiment } from "./experiment.ts";
import type { LimitOptions } from "./limit_options.ts";
import { CONFIRMED, highestKeptUp, LIMIT_SCHEMA, type LimitResult } from "./limit_result.ts";
import { Interrupted, ReaderPool } from "./reader_pool.ts";
import { ReaderFailed } from "./reader_process.ts";
import { searchLimit } from "./search.ts";
import { REASONS, type SearchResult } from "./search_result.ts";

/** First rate of the ramp; for a slower reader the search goes down from here. Bytes a second. */
const START_RATE = 500_000;
const TIME_SECONDS = 60;
/**
 * Memory that grows by such a share of what is offered may hold messages; heaps grow by themselves, too, and
 * then also by much more than that. Bytes a second.
 */
const GROWS = { share: 0.5, most: 50, least: 50e6 };
/** Waiting for a core for less than that is usual. */
const CONTENTION = 0.1;
const LONGEST_FORECAST = 3600;
/** Of `timeSeconds`, kept for what the reader does beyond its limit. */
const BEYOND_SECONDS = 4;

/**
 * Finds the highest rate at which a reader keeps up, what it drains when twice that is offered, and
 * whether it recovers at half of it.
 *
 * Whatever the reader does becomes an outcome with a message, never a rejection. Rejects with a
 * NetError where it cannot listen, and with an Error where the kernel gives no figures of
 * connections.
 */
export async function findLimit(options: LimitOptions): Promise<LimitResult> {
  requireKernelFigures();
  const { precision = 0.01, minRate = 1000, maxRate = Infinity, message, signal } = options;
  const { startRate = START_RATE, confidence = 0.95, onEvent } = options;
  const timeSeconds = options.timeSeconds ?? options.longestSeconds ?? TIME_SECONDS;
  const startMs = performance.now();
  const pool = new ReaderPool({ ...options, watchWork: options.until !== "taken" });
  const experiment = new Experiment(pool, options);
  const result: LimitResult = {
    schema: LIMIT_SCHEMA,
    reader: printable(options.name ?? options.command?.join(" ") ?? "attached"),
    readers: options.readers ?? 1,
    outcome: "irregular",
    message: "",
    limit: null,
    keepsUpAt: 0,
    until: "taken",
    intake: null,
    hoards: false,
    hidden: null,
    output: null,
    drift: null,
    overload: null,
    recovery: null,
    trials: experiment.trials,
    interrupted: false,
    queueSource: "none",
    messageSize: message.size,
    precision,
    confidence,
    sampleSeconds: 0,
    seconds: 0,
    environment: environment(),
  };
  let soFar = "";
  await pool.open();
  try {
    const found = await searchLimit(experiment, {
      ...{ startRate, minRate, maxRate, precision, confidence, messageSize: message.size },
      time: timeSeconds - BEYOND_SECONDS,
      onInterval: (interval) => {
        soFar = `; so far between ${formatByteRate(interval.lower)} and ` +
          formatByteRate(interval.upper);
        onEvent?.({ event: "interval", ...interval });
      },
    });
    addSearchResult(result, found, message.size, timeSeconds);
    const { limit } = result;
    if (found.hidden) await addHidden(result, experiment);
    // Also where only a wide interval is known: the behaviour beyond it is then even more useful.
    if (limit !== null && !result.hoards) {
      const { overload, recovery, refutes } = await measureBeyond(experiment, limit, {
        readers: () => pool.connected,
        stops: found.reason === REASONS.stops,
        ...found,
        ...(signal === undefined ? {} : { signal }),
      });
      Object.assign(result, { overload, recovery });
      if (refutes !== undefined) refute(result, refutes);
      else if (found.reason === REASONS.metastable && overload!.drained >= limit.lower) {
        // Overloaded once more it was as fast as from below.
        result.message = REASONS.contradicts;
      }
    }
    if (result.readers > 1 && found.upper < Infinity) result.firstBehind = found.slowest;
    if (options.output !== undefined) addOutput(result, options.output, experiment);
    else addRest(result, experiment.rest);
    addContention(result, experiment.waitShare);
    addMemory(result, experiment.memory);
  } catch (error) {
    if (error instanceof Interrupted) {
      result.interrupted = true;
      result.message ||= `interrupted before the limit was found${soFar}`;
    } else if (error instanceof ReaderFailed) {
      result.outcome = "reader-failed";
      result.message = error.message;
      Object.assign(result, { limit: null, overload: null, recovery: null });
    } else {
      throw error;
    }
  } finally {
    result.until = options.output !== undefined
      ? "output"
      : pool.works.length > 0
      ? "worked"
      : "taken";
    await pool.close();
    result.queueSource = experiment.queueSource;
    result.keepsUpAt = result.limit?.lower ?? highestKeptUp(result.trials);
    result.sampleSeconds = experiment.sampleSeconds;
    result.seconds = (performance.now() - startMs) / 1000;
  }
  return result;
}

function addSearchResult(
  result: LimitResult,
  found: SearchResult,
  messageSize: number,
  timeSeconds: number,
): void {
  const { outcome, lower, upper, reason, drift, needs } = found;
  result.outcome = outcome;
  result.message = reason ?? CONFIRMED;
  if (needs !== undefined && needs > 0.9 * timeSeconds) {
    const share = `${Number((100 * result.precision).toFixed(1))} %`;
    result.message += needs > LONGEST_FORECAST
      ? `; ${share} would take more than an hour`
      : `; ${share} would take about ${formatSeconds(Math.ceil(needs / 10) * 10)} (--time)`;
  }
  if (drift !== undefined) {
    const { first, last, seconds, bytes } = drift;
    const messages = Math.round(bytes / messageSize);
    // The first and the last quarter lie three quarters of the time apart.
    const change = (last / first - 1) / 0.75;
    result.drift = {
      ...{ first, last, seconds, messages },
      perMinute: change / seconds * 60,
      perMillionMessages: change / messages * 1e6,
    };
    result.message =
      `${reason}: ${formatByteRate(first)} at first, ${formatByteRate(last)} after ` +
      `${formatSeconds(seconds)} and ${formatCount(messages)} messages`;
    return;
  }
  // An irregular search may have a wide interval; the other outcomes have no limit at all.
  if (outcome === "found" || (outcome === "irregular" && lower > 0 && upper < Infinity)) {
    result.limit = { lower, upper, messagesPerSecond: lower / messageSize };
  }
}

/** For a reader that takes more than it works on: the limit is what it processes. */
async function addHidden(result: LimitResult, experiment: Experiment): Promise<void> {
  const { limit, outcome, message } = result;
  const { intake, background } = experiment;
  if (limit === null) {
    if (background !== undefined) result.message = `${message}: ${background}`;
    return;
  }
  const hidden = await measureHidden(experiment, (limit.lower + limit.upper) / 2);
  if (hidden === null) return;
  const { offered, seconds, memoryBytesPerSecond: growth } = hidden;
  const queues = "it takes more from its socket than it works on, and queues the rest in its own " +
    `memory: offered ${formatByteRate(offered)}, it was ${formatSeconds(seconds)} behind at the ` +
    "end of a trial" + (growth > 0 ? `, and its memory grew by ${formatByteRate(growth)}` : "");
  result.intake = { lower: intake, upper: null };
  result.hoards = true;
  result.hidden = hidden;
  result.message = outcome === "found" ? queues : `${message}; ${queues}`;
}

/** The overload drained more than the upper bound: the interval does not hold. */
function refute(result: LimitResult, drained: number): void {
  const limit = result.limit!;
  result.outcome = "irregular";
  if (drained > 0.95 * result.overload!.offered) {
    result.limit = null;
    result.message =
      `offered ${formatByteRate(result.overload!.offered)}, twice the limit that was ` +
      "found, the reader drained all of it: it was slower while its limit was measured, or it " +
      "becomes faster only after a while";
    return;
  }
  result.message =
    `offered twice the limit, the reader drained ${formatByteRate(drained)}, more than ` +
    `the upper bound ${formatByteRate(limit.upper)} that was found: its speed varies, or other ` +
    "programs disturbed the search";
  limit.upper = Math.max(limit.upper, drained);
}

/** The reader would be faster with a core of its own. */
function addContention(result: LimitResult, waitShare: number): void {
  if (waitShare < CONTENTION || result.limit === null) return;
  result.message +=
    `; the reader waited for a core for ${Math.round(100 * waitShare)} % of the time: ` +
    "limit itself or other programs used the cores";
}

/** It may queue in its memory what it takes, without a trace of the work on it. */
function addMemory(result: LimitResult, { offered, grown }: Experiment["memory"]): void {
  const { share, most, least } = GROWS;
  if (result.hoards || grown < Math.max(least, share * offered) || grown > most * offered) return;
  result.message += `; the reader's memory grew by ${formatByteRate(grown)} when it was offered ` +
    `${formatByteRate(offered)}: it may queue what it takes, although no work on that was seen`;
}

/** It takes so many times what comes out, and more: it queues the rest, or drops it. */
const MORE_INTAKE = 1.2;

/** Of a reader that is measured by its output. */
function addOutput(
  result: LimitResult,
  { place, numbered }: OutputOptions,
  { intake, duplicated, reordered, rest }: Experiment,
): void {
  const { limit, trials } = result;
  const losing = trials.filter(({ lost = 0 }) => lost > 0);
  const lost = losing.reduce((sum, trial) => sum + trial.lost!, 0);
  const firstLossAt = losing.length === 0
    ? null
    : Math.min(...losing.map(({ offered }) => offered));
  result.output = {
    ...{ place: formatOutputPlace(place), numbered, lost, duplicated, reordered, firstLossAt },
  };
  if (limit !== null && intake > MORE_INTAKE * limit.upper) {
    result.intake = { lower: intake, upper: null };
    result.hoards = true;
    result.message += `; it takes ${formatByteRate(intake)} from its socket, more than comes out`;
  }
  if (firstLossAt !== null) {
    result.message += `; it lost ${formatCount(lost)} messages, the first at ${
      formatByteRate(firstLossAt)
    }`;
  } else if (rest > 0 && limit !== null) {
    result.message += `; when the sender falls silent, up to ${
      formatBytes(rest)
    } of what it has taken do not come out`;
  }
}

function addRest(result: LimitResult, rest: number): void {
  if (rest === 0 || result.limit === null) return;
  result.message += `; when the sender falls silent, the reader leaves up to ${
    formatBytes(rest)
  } unread`;
}
