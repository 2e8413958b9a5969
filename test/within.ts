/**
 * Every wait in a test has a deadline, in ms of a quiet machine. It is to show that something hangs,
 * and not how fast it is: others on the machine may make it wait longer.
 */
import { setTimeout as sleep } from "node:timers/promises";

/** How much longer. */
const PATIENCE = 4;

/** The promise's value, or an error that names what was waited for. */
export async function within<T>(what: string, ms: number, promise: T | Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(notWithin(what, ms))), PATIENCE * ms);
  });
  try {
    return await Promise.race([promise, deadline]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits until the condition holds, asking every few milliseconds. */
export async function until(what: string, ms: number, condition: () => boolean): Promise<void> {
  const end = performance.now() + PATIENCE * ms;
  while (!condition()) {
    if (performance.now() > end) throw new Error(notWithin(what, ms));
    await sleep(2);
  }
}

const notWithin = (what: string, ms: number) => `${what}: not within ${PATIENCE * ms} ms`;
