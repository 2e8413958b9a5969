/** Waits until readers have drained what the kernels hold for them. */
import { setTimeout as sleep } from "node:timers/promises";
import { SAMPLE_EVERY_MS } from "./meter.ts";
import type { Feed } from "./trial_watch.ts";

/**
 * Waits, with the floods stopped and what was owed forgotten, until every reader has drained what
 * the kernels hold. False: not within the time, or a reader has gone.
 */
export async function waitForClear(feeds: readonly Feed[], maxMs: number): Promise<boolean> {
  let gone = false;
  for (const { flood } of feeds) {
    flood.forget();
    void flood.done.then(() => gone = true);
  }
  const endMs = performance.now() + maxMs;
  const cleared = feeds.map((feed) => clearance(feed));
  while (!gone) {
    // Each has to look, whatever the others see.
    if (cleared.map((isClear) => isClear()).every(Boolean)) return true;
    if (performance.now() > endMs) return false;
    await sleep(SAMPLE_EVERY_MS);
  }
  return false;
}

/** A window that stays as it is for so long has no queue behind it that shrinks. */
const STILL_MS = 150;

/** Asks again and again whether a reader has drained all that was sent to it. */
function clearance({ flood, meter }: Feed): () => boolean {
  let stillSince = 0;
  let drainedThen = NaN;
  return () => {
    const reading = meter.read();
    if (reading === undefined) return false;
    if (meter.queueSource === "socket") return flood.offeredAt(reading.nowMs) <= reading.drained;
    // From its window alone: all is acknowledged, and the window has stopped growing.
    if (reading.near.sendQueue > 0 || reading.drained !== drainedThen) {
      drainedThen = reading.drained;
      stillSince = reading.nowMs;
      return false;
    }
    if (reading.nowMs - stillSince < STILL_MS) return false;
    meter.assumeEmpty();
    return true;
  };
}
