/** Waits until readers have drained everything that was sent to them. */
import { setTimeout as sleep } from "node:timers/promises";
import { SAMPLE_EVERY_MS } from "./meter.ts";
import type { MeasuredReader } from "./trial_watch.ts";

/**
 * Stops the floods, drops the messages that they still owe, and waits until every reader has
 * drained what the kernels hold. Resolves to false after `maxMs`, or as soon as a connection ends.
 */
export async function waitForClear(
  readers: readonly MeasuredReader[],
  maxMs: number,
): Promise<boolean> {
  let ended = false;
  for (const { flood } of readers) {
    flood.forget();
    void flood.done.then(() => ended = true);
  }
  const endMs = performance.now() + maxMs;
  const checks = readers.map((reader) => clearCheck(reader));
  while (!ended) {
    // Every check has to run in every round, because a check compares with its previous round.
    if (checks.map((isClear) => isClear()).every(Boolean)) return true;
    if (performance.now() > endMs) return false;
    await sleep(SAMPLE_EVERY_MS);
  }
  return false;
}

/** A window that has not changed for this long has no shrinking receive queue behind it. */
const STILL_MS = 150;

/** A function to call repeatedly: has the reader drained all that was sent to it? */
function clearCheck({ flood, meter }: MeasuredReader): () => boolean {
  let stillSince = 0;
  let lastDrained = NaN;
  return () => {
    const reading = meter.read();
    if (reading === undefined) return false;
    if (meter.queueSource === "socket") return flood.offeredAt(reading.nowMs) <= reading.drained;
    // Only the window is known: everything must be acknowledged, and the window no longer growing.
    if (reading.near.sendQueue > 0 || reading.drained !== lastDrained) {
      lastDrained = reading.drained;
      stillSince = reading.nowMs;
      return false;
    }
    if (reading.nowMs - stillSince < STILL_MS) return false;
    meter.assumeEmpty();
    return true;
  };
}
