/**
 * The hidden backlog: what a reader has taken from its socket and has not worked on yet. The kernel does
 * not see it; but a reader that goes on working for A seconds after it was offered messages for T seconds
 * at rate r was behind by that much, and processes r T / (T + A).
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { ReaderWork } from "./reader_work.ts";
import { studentT } from "./statistics.ts";

/** After a trial in which the reader's socket kept up. */
export interface HiddenBacklog {
  /** How long the readers went on working after the last message was sent; the slowest of them. */
  seconds: number;
  /** False: one of them still worked when we stopped to look, so `seconds` is a lower bound. */
  quiet: boolean;
  /** Background activity of a reader that hides the answer, as one clause. */
  background: string | undefined;
}

/**
 * Work of this many seconds, and this share of the trial, is no backlog: it is one look's length, what
 * was in the socket, and one read's worth of messages.
 */
const ALLOWED_SECONDS = 0.08;
const ALLOWED_SHARE = { ramp: 0.1, long: 0.03 };
/** A trial may show a hidden backlog of so many times its own length. */
const LONGEST_LOOK = 1.5;
const SHORTEST_QUIET = 0.15;
const LONGEST_QUIET = 2;
/** A silence that ends the work is as long as so many of the reader's messages. */
const QUIET_MESSAGES = 5;
/**
 * A reader that takes no more than this ahead of its work does not hoard: one read, a runtime's own
 * buffer, or a library that stops reading while its buffer is full (Bun: 512 KiB). Bytes.
 */
export const HELD_BACK = 640 << 10;

/**
 * Whether this is more than a reader without a hidden backlog shows after a trial of `seconds`. `pause`: the
 * longest time that it takes between two reads; what comes meanwhile waits in its socket. Seconds.
 */
export function isBehind(
  hidden: HiddenBacklog,
  { seconds, pause, ramp = false }: { seconds: number; pause: number; ramp?: boolean },
): boolean {
  if (hidden.background !== undefined) return false;
  const allowed = ALLOWED_SECONDS + 1.2 * pause + ALLOWED_SHARE[ramp ? "ramp" : "long"] * seconds;
  return hidden.seconds > allowed;
}

/**
 * Whether a second, longer trial confirms it: a backlog grows with the trial, what a collector or a
 * compiler still has to do does not.
 */
export function isConfirmed(
  first: { hidden: HiddenBacklog; seconds: number },
  second: { hidden: HiddenBacklog; seconds: number },
  pause: number,
): boolean {
  if (!isBehind(second.hidden, { seconds: second.seconds, pause })) return false;
  if (!second.hidden.quiet) return true;
  const grown = first.hidden.seconds * second.seconds / first.seconds;
  return second.hidden.seconds >= 0.6 * grown;
}

/** Watches the readers until they have nothing more to do. Call it when the last message was sent. */
export async function awaitWork(
  works: readonly ReaderWork[],
  options: { sinceMs: number; trialSeconds: number; messageSeconds: number; signal?: AbortSignal },
): Promise<HiddenBacklog> {
  const { sinceMs, trialSeconds, messageSeconds, signal } = options;
  const rests = await Promise.all(works.map((work) =>
    work.untilQuiet({
      fromMs: sinceMs,
      longestSeconds: LONGEST_LOOK * trialSeconds + 1,
      shortestQuietSeconds: Math.min(
        LONGEST_QUIET,
        Math.max(SHORTEST_QUIET, QUIET_MESSAGES * messageSeconds),
      ),
      longestQuietSeconds: LONGEST_QUIET,
      ...(signal === undefined ? {} : { signal }),
    })
  ));
  return {
    seconds: Math.max(0, ...rests.map(({ seconds }) => seconds)),
    quiet: rests.every(({ quiet }) => quiet),
    background: rests.find(({ background }) => background !== undefined)?.background,
  };
}

/** Of what the readers' threads do. Milliseconds. */
const WORK_EVERY_MS = 10;

/** Keeps the readers' activity sampled until the returned function is called. */
export function keepSampling(works: readonly ReaderWork[]): () => Promise<void> {
  let ended = false;
  const loop = (async () => {
    while (!ended) {
      for (const work of works) work.sample();
      await sleep(WORK_EVERY_MS);
    }
  })();
  return async () => {
    ended = true;
    await loop;
  };
}

/** The error of the time at which work ends, see `RestOfWork`. Seconds. */
const END_ERROR = 0.02;

/**
 * The rate at which a reader processes, from several trials in which it was offered more; bytes a second.
 * `bytes`: what was offered in `seconds`, and `worked`: how long it then went on.
 */
export function processingRate(
  trials: readonly { bytes: number; seconds: number; worked: number }[],
  confidence: number,
): { lower: number; upper: number } {
  const n = trials.length;
  const rates = trials.map(({ bytes, seconds, worked }) => bytes / (seconds + worked));
  const mean = rates.reduce((sum, rate) => sum + rate, 0) / n;
  const squares = rates.reduce((sum, rate) => sum + (rate - mean) ** 2, 0);
  const shortest = Math.min(...trials.map(({ seconds, worked }) => seconds + worked));
  const halfWidth = studentT(1 - confidence, n - 1) * Math.sqrt(squares / (n - 1) / n) +
    mean * END_ERROR / shortest;
  return { lower: mean - halfWidth, upper: mean + halfWidth };
}
