/** Every wait in a test has a deadline. */
import { setTimeout as sleep } from "node:timers/promises";

/** The promise's value, or an error that names what was waited for. */
export async function within<T>(what: string, ms: number, promise: T | Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, deadline]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits until the condition holds, asking every few milliseconds. */
export async function until(what: string, ms: number, condition: () => boolean): Promise<void> {
  const end = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`${what}: not within ${ms} ms`);
    await sleep(2);
  }
}
