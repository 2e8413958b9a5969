/** Waits until readers have drained everything that was sent to them. */
import { CLOCK } from "./clock.ts";
import { SAMPLE_EVERY_MS } from "./meter.ts";
import type { MeasuredReader } from "./trial_watch.ts";

export interface Cleared {
  /** Each reader has drained all, or leaves the rest where it is. */
  clear: boolean;
  /** The most that one of them has left unread although nothing more came; bytes. */
  rest: number;
}

/** How one reader is getting on. */
interface Progress {
  state: "reads" | "clear" | "leaves-rest";
  rest: number;
}

/** A window that has not changed for this long has no shrinking receive queue behind it. */
const STILL_MS = 150;
/**
 * A reader that has read nothing for this long, and for so many of its pauses, while something lies in its
 * receive queue, waits for more (SO_RCVLOWAT), or for an edge (epoll): it leaves the rest unread.
 */
const LEAVES_REST_MS = 250;
const PAUSES = 1.5;

/**
 * Stops the floods, drops the messages that they still owe, and waits until every reader has drained what
 * the kernels hold. Ends after `maxMs`, or as soon as a connection ends. `pause`: the longest time without
 * a read that was seen; seconds.
 */
export async function waitForClear(
  readers: readonly MeasuredReader[],
  maxMs: number,
  pause = 0,
  clock = CLOCK,
): Promise<Cleared> {
  let ended = false;
  for (const { flood } of readers) {
    flood.forget();
    void flood.done.then(() => ended = true);
  }
  const restMs = Math.max(LEAVES_REST_MS, PAUSES * pause * 1000);
  const endMs = clock.now() + Math.max(maxMs, restMs + LEAVES_REST_MS);
  const checks = readers.map((reader) => clearCheck(reader, restMs));
  while (!ended) {
    // Every check has to run in every round, because a check compares with its previous round.
    const all = checks.map((check) => check());
    if (all.every(({ state }) => state !== "reads")) {
      return { clear: true, rest: Math.max(...all.map(({ rest }) => rest)) };
    }
    if (clock.now() > endMs) break;
    await clock.sleep(SAMPLE_EVERY_MS);
  }
  return { clear: false, rest: 0 };
}

const READS: Progress = { state: "reads", rest: 0 };
const CLEAR: Progress = { state: "clear", rest: 0 };

/** A function to call repeatedly: has the reader drained all that was sent to it? */
function clearCheck({ flood, meter }: MeasuredReader, restMs: number): () => Progress {
  let stillSince = 0;
  let lastDrained = NaN;
  return () => {
    const reading = meter.read();
    if (reading === undefined) return READS;
    const { nowMs, drained, near, receiveQueue = 0 } = reading;
    const onThisHost = meter.queueSource === "socket";
    if (onThisHost && flood.offeredAt(nowMs) <= drained) return CLEAR;
    const still = drained === lastDrained;
    if (!still || (!onThisHost && near.sendQueue > 0)) {
      lastDrained = drained;
      stillSince = nowMs;
      return READS;
    }
    if (onThisHost) {
      const waits = receiveQueue > 0 && near.sendQueue === 0 && nowMs - stillSince >= restMs;
      return waits ? { state: "leaves-rest", rest: receiveQueue } : READS;
    }
    // Only the window is known: everything must be acknowledged, and the window no longer growing.
    if (nowMs - stillSince < STILL_MS) return READS;
    meter.assumeEmpty();
    return CLEAR;
  };
}
