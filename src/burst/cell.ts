/** One cell of the map: a base rate, a burst on top of it, and whether the reader clears it. */
import { CLOCK, type Clock } from "../measure/clock.ts";
import { SAMPLE_EVERY_MS } from "../measure/meter.ts";
import type { MeasuredReader } from "../measure/trial_watch.ts";

export interface Cell {
  /** The base rate, bytes a second. */
  rate: number;
  /** On top of it, at once; bytes. */
  burst: number;
}

/** What a cell came to. Rates in bytes a second. */
export interface CellResult extends Cell {
  /**
   * `survives`: the reader cleared the burst and stayed clear. `collapses`: it did not, in several times
   * the time that a reader needs that does not degrade; after 0 s, it did not even keep up with the base rate. `dies`: its connection ended.
   */
  outcome: "survives" | "collapses" | "dies";
  /** Until it was clear, or until it was given up; since the burst. */
  seconds: number;
  /** What it drained in the last half of that time. */
  drained: number;
  /** What it had taken at some time beyond what its limit explains: the burst that it absorbs; bytes. */
  absorbed: number;
  /** How the connection ended. */
  ended?: string;
  /** With `after`: how long the collapsed reader then needed to come back; null: it did not. Seconds. */
  returned?: number | null;
}

export interface CellOptions extends Cell {
  /** The reader's limit, bytes a second. */
  limit: number;
  /** The longest time in which it reads nothing although it could, seconds. */
  pause: number;
  /** Once it has collapsed, this rate is offered for at most so many seconds: does it come back? */
  after?: { rate: number; seconds: number };
  clock?: Clock;
  signal?: AbortSignal;
}

/** The base rate alone, before the burst: at least, and in pauses of the reader. Seconds. */
const STEADY = { seconds: 0.25, pauses: 6 };
/** The steady backlog is looked at in so many parts: each has a lowest backlog. */
const PARTS = 4;
/** With such a backlog the reader does not keep up with the base rate alone: seconds of it, and pauses. */
const TOO_MUCH = { seconds: 0.1, pauses: 3 };
/** What lies between two looks of the sender is no backlog; seconds of the rate. */
const BETWEEN_LOOKS = 0.003;
/**
 * A reader that does not degrade clears a burst in `burst / (limit - rate)`. One that needs so many times
 * that, with some pauses and some time more, has collapsed, unless its backlog still shrinks: then it
 * gets as much again: near its tolerance, a reader that gathers needs 1 + limit / rate times as long.
 */
const GIVEN = { times: 4, pauses: 4, seconds: 0.25, extensions: 8 };
/** It has collapsed early where its backlog has outgrown the burst by this factor, after `times` of that. */
const OUTGROWN = { factor: 1.5, times: 1.5 };
/** Once clear, it must stay so: for as long as it took, and at least this. */
const STAYS = { seconds: 0.1, pauses: 3 };

/**
 * Offers the base rate, then the burst, and watches. The flood goes on at the base rate. Resolves with
 * `undefined` where it was interrupted.
 */
export async function tryCell(
  { flood, meter }: MeasuredReader,
  options: CellOptions,
): Promise<CellResult | undefined> {
  const { rate, burst, limit, pause, after, clock = CLOCK, signal } = options;
  const size = flood.message.size;
  let ended: string | undefined;
  void flood.done.then(({ reason }) => ended = reason);
  const state = { backlog: 0, drained: 0 };
  const look = (): number => {
    const reading = meter.readDrained();
    const now = reading?.nowMs ?? clock.now();
    if (reading !== undefined) {
      state.drained = reading.drained;
      state.backlog = flood.offeredAt(now) - reading.drained;
    }
    return now;
  };
  const stopped = () => ended !== undefined || signal?.aborted === true;

  const steady = Math.max(STEADY.seconds, STEADY.pauses * pause);
  const startMs = clock.now();
  flood.start(rate / size, startMs);
  const floors = new Array<number>(PARTS).fill(Infinity);
  for (let now = startMs; now < startMs + 1000 * steady && !stopped();) {
    await clock.sleep(SAMPLE_EVERY_MS);
    now = look();
    const part = Math.floor((now - startMs) / (1000 * steady) * PARTS);
    if (part < PARTS) floors[part] = Math.min(floors[part]!, state.backlog);
  }
  if (signal?.aborted) return undefined;
  const result = (
    outcome: CellResult["outcome"],
    seconds: number,
    drained: number,
  ): CellResult => ({
    ...{ rate, burst, outcome, seconds, drained, absorbed },
    ...(ended === undefined ? {} : { ended }),
  });
  let absorbed = 0;
  if (ended !== undefined) return result("dies", 0, 0);
  const known = floors.filter((floor) => floor < Infinity);
  const floor = Math.max(0, ...known.slice(1));
  if (floor > rate * (TOO_MUCH.seconds + TOO_MUCH.pauses * pause) + size) {
    return result("collapses", 0, 0);
  }
  const clearBelow = 1.25 * floor + size + BETWEEN_LOOKS * rate;

  const burstMs = look();
  const before = state.drained;
  flood.burst(Math.ceil(burst / size), burstMs);
  const ideal = burst / (limit - rate);
  const given = GIVEN.times * ideal + GIVEN.pauses * pause + GIVEN.seconds;
  let endMs = burstMs + 1000 * given;
  let extensions = 0;
  /** Since when it is clear, and when it was so for the first time. */
  let clearMs: number | undefined;
  /** For what was drained lately, and whether the backlog shrinks. */
  let middle = { at: burstMs, drained: before, backlog: burst };
  const collapses = async (now: number): Promise<CellResult> => {
    const collapsed = result("collapses", (now - burstMs) / 1000, lately(now));
    if (after === undefined) return collapsed;
    flood.start(after.rate / size, now);
    return { ...collapsed, returned: await returnsWithin(after.seconds, now) };
  };
  const returnsWithin = async (seconds: number, sinceMs: number): Promise<number | null> => {
    let clear: number | undefined;
    for (let now = sinceMs; now < sinceMs + 1000 * seconds && !stopped();) {
      await clock.sleep(SAMPLE_EVERY_MS);
      now = look();
      if (state.backlog > clearBelow) clear = undefined;
      else clear ??= now;
      if (clear !== undefined && now - clear >= 1000 * STAYS.seconds) {
        return (clear - sinceMs) / 1000;
      }
    }
    return null;
  };
  const lately = (now: number) =>
    now > middle.at ? (state.drained - middle.drained) / (now - middle.at) * 1000 : 0;
  while (!stopped()) {
    await clock.sleep(SAMPLE_EVERY_MS);
    const now = look();
    const seconds = (now - burstMs) / 1000;
    absorbed = Math.max(absorbed, state.drained - before - limit * seconds);
    if (state.backlog <= clearBelow) {
      clearMs ??= now;
      const needed = (clearMs - burstMs) / 1000;
      const stays = Math.max(STAYS.seconds, STAYS.pauses * pause, needed);
      if (now - clearMs >= 1000 * stays) return result("survives", needed, lately(now));
    } else if (clearMs !== undefined && state.backlog > clearBelow + rate * (0.02 + pause)) {
      // It had nearly caught up.
      clearMs = undefined;
    }
    if (
      seconds > OUTGROWN.times * given / GIVEN.times &&
      state.backlog > OUTGROWN.factor * burst + clearBelow
    ) {
      return await collapses(now);
    }
    if (now >= endMs && clearMs === undefined) {
      if (state.backlog >= 0.9 * middle.backlog || extensions === GIVEN.extensions) {
        return await collapses(now);
      }
      extensions++;
      endMs = now + 1000 * given;
    }
    if (now - burstMs >= 2 * (middle.at - burstMs) && now - middle.at > 50) {
      middle = { at: now, drained: state.drained, backlog: state.backlog };
    }
  }
  if (signal?.aborted) return undefined;
  const now = clock.now();
  return result("dies", (now - burstMs) / 1000, lately(now));
}
