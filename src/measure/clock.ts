/** A clock that a test can replace. */
import { setTimeout as sleep } from "node:timers/promises";

/** In ms. */
export interface Clock {
  now(): number;
  sleep(ms: number): Promise<void>;
}

export const CLOCK: Clock = { now: () => performance.now(), sleep };
