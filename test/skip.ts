import type { TestContext } from "node:test";

/** Skips a test from within. Printed as well: Deno (2.9.5) and Bun (1.4.5) keep no reason. */
export function skip(t: Pick<TestContext, "skip">, why: string): void {
  console.log(`  skipped: ${why}`);
  t.skip(why);
}
