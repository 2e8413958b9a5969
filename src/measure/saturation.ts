/**
 * One trial some above the estimated limit: while the readers certainly have a backlog, what they drain is
 * their service rate.
 */
import type { Blame } from "./backlog.ts";
import type { SearchTrials } from "./search_trials.ts";
import type { Drift, ServiceEstimate, ServiceRate } from "./service.ts";
import { Stretch } from "./stretch.ts";

export interface SaturationOptions {
  /** Offered, and the estimate of the limit; bytes a second. */
  rate: number;
  estimate: number;
  /** The highest rate at which the readers have kept up; bytes a second. */
  kept: number;
  messageSize: number;
  /** See `SearchOptions`. */
  precision: number;
  confidence: number;
  onInterval?:
    | ((interval: { lower: number; upper: number; secondsLeft: number }) => void)
    | undefined;
}

/** The interval of the slowest reader: that of the lowest of their rates. Bytes a second. */
export interface Saturated {
  lower: number;
  upper: number;
  slowest: number;
  service: ServiceRate;
  /** Half of its interval, as a share of its mean rate. */
  halfWidth: number;
  drift: Drift | undefined;
  /** How long the stretch was, and would have to be for the precision; seconds. */
  seconds: number;
  needed: number;
}

/** One of these. */
export type Saturation =
  | { is: "measured"; found: Saturated }
  /** They are faster than that rate. */
  | { is: "caught-up"; seconds: number }
  /** One drains less than half of what it had kept up with: so much, bytes a second. */
  | { is: "collapsed"; drained: number }
  /** One has stopped reading, or has ended its connection. */
  | { is: "stopped" }
  | { is: "ended" }
  /** Our sender or the path kept the readers from a backlog; `reader`: nobody can say. */
  | { is: "unknown"; blame: Blame };

/** A pause that comes each 3 s is then seen twice; less where the time is short. Seconds. */
const FIRST_LOOK = { usual: 6, least: 3, pauses: 16, messages: 20 };
/** Kept for the trials after the stretch; seconds. */
export const RESERVE = 10;
/** With less than that left another stretch is not begun: it and the trials after it would take too long. Seconds. */
export const LEAST_LEFT = 5;

export async function saturate(
  trials: SearchTrials,
  options: SaturationOptions,
): Promise<Saturation> {
  const { rate, estimate, kept, messageSize, precision, confidence, onInterval } = options;
  const { lab, largestRead } = trials;
  const left = trials.left - RESERVE;
  const pause = trials.pauseAt(rate);
  const firstLook = Math.max(
    Math.min(FIRST_LOOK.usual, Math.max(FIRST_LOOK.least, left)),
    FIRST_LOOK.pauses * pause,
    FIRST_LOOK.messages * messageSize / estimate,
  );
  const lastLook = Math.max(firstLook, left);
  let looked = false;
  const stretches = Array.from({ length: lab.readers }, () =>
    new Stretch({
      ...{ rate, messageSize, error: (1 - confidence) / lab.readers, halfWidth: precision / 2 },
      ...{ firstLook, lastLook, largestRead, pause, kept },
      onLook: () => looked = true,
    }));
  const tell = () => {
    const found = joint(stretches, precision);
    if (found === undefined || found.of < stretches.length) return;
    const { lower, upper, seconds, needed } = found;
    const until = Math.min(lastLook, Math.max(seconds, needed));
    onInterval?.({ lower, upper, secondsLeft: until - seconds + RESERVE });
  };
  const longest = Math.max(1.5 * firstLook, left);
  const plan = { rate, purpose: "saturate", longest } as const;
  const { seconds, ended } = await lab.offer(plan, (samples) => {
    let over = true;
    for (let i = 0; i < samples.length; i++) over = stretches[i]!.add(samples[i]!) && over;
    if (looked) tell();
    looked = false;
    return over || stretches.some(({ result }) => result.stopped || result.collapsed);
  });
  if (ended === "behind") return { is: "ended" };
  if (ended === "lost") return { is: "unknown", blame: "reader" };
  for (const stretch of stretches) stretch.finish();
  if (stretches.some(({ result }) => result.stopped)) return { is: "stopped" };
  const collapsed = stretches.find(({ result }) => result.collapsed);
  if (collapsed !== undefined) return { is: "collapsed", drained: collapsed.drained };
  const found = joint(stretches, precision);
  if (found !== undefined) return { is: "measured", found };
  if (stretches.every(({ result }) => result.caughtUp)) return { is: "caught-up", seconds };
  const other = stretches.find(({ result }) => result.blame !== "reader");
  return { is: "unknown", blame: other?.result.blame ?? "reader" };
}

/** Of the readers whose rate is known: `of` of them. */
function joint(
  stretches: readonly Stretch[],
  precision: number,
): Saturated & { of: number } | undefined {
  const known = stretches.flatMap(({ result: { estimate }, service, drift }, reader) =>
    estimate === undefined || estimate.halfWidth === Infinity
      ? []
      : { ...estimate, service, drift, reader }
  );
  if (known.length === 0) return undefined;
  const slowest = known.reduce((least, each) => each.mean < least.mean ? each : least);
  const half = ({ mean, halfWidth }: ServiceEstimate) => Math.max(halfWidth, precision / 4 * mean);
  return {
    of: known.length,
    lower: Math.max(0, Math.min(...known.map((each) => each.mean - half(each)))),
    upper: Math.min(...known.map((each) => each.mean + half(each))),
    slowest: slowest.reader,
    service: slowest.service,
    halfWidth: slowest.halfWidth / slowest.mean,
    drift: known.find(({ drift }) => drift !== undefined)?.drift,
    seconds: slowest.seconds,
    // The width falls with the square root of the time.
    needed: slowest.seconds * (slowest.halfWidth / (precision / 2 * slowest.mean)) ** 2,
  };
}
