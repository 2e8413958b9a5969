/** At which rate a reader that has collapsed comes back by itself. */
import type { CellResult } from "./cell.ts";
import type { Hysteresis } from "./map_result.ts";

/** The burst that makes it collapse is so many times the smallest one that does. */
const SURELY = 2;
/** How long a lower rate is offered, and silence; seconds. */
const OFFERED = 3;
const SILENCE = 20;
/** The lowest rate that is tried, as a share of the limit. */
const LOWEST = 0.01;

export interface HysteresisOptions {
  /** A base rate at which the reader collapses, and the smallest burst after which it does. */
  rate: number;
  burst: number;
  limit: number;
  attempt: (
    rate: number,
    burst: number,
    after: { rate: number; seconds: number },
  ) => Promise<CellResult>;
}

/**
 * Lets fresh readers collapse, and then offers each of them less, by halves, until one comes back.
 * Undefined: it did not collapse again.
 */
export async function measureHysteresis(
  { rate, burst, limit, attempt }: HysteresisOptions,
): Promise<Hysteresis | undefined> {
  let staysAt = rate;
  for (let after = rate / 2; staysAt > 0; after = after / 2 < LOWEST * limit ? 0 : after / 2) {
    const cell = await attempt(rate, SURELY * burst, {
      ...{ rate: after, seconds: after === 0 ? SILENCE : OFFERED },
    });
    if (cell.outcome !== "collapses") return undefined;
    const seconds = cell.returned ?? null;
    if (seconds !== null) return { collapsedAt: rate, returns: after, seconds, staysAt };
    staysAt = after;
  }
  return { collapsedAt: rate, returns: null, seconds: null, staysAt: 0 };
}
