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
export function tryCell(
  reader: MeasuredReader,
  options: CellOptions,
): Promise<CellResult | undefined> {
  return new CellTrial(reader, options).run();
}

class CellTrial {
  readonly #reader: MeasuredReader;
  readonly #options: CellOptions;
  readonly #clock: Clock;
  /** How the connection ended. */
  #ended: string | undefined;
  /** Offered and not drained yet, and all that was drained; bytes, at the last look. */
  #backlog = 0;
  #drained = 0;
  /** It is clear with a backlog up to this; bytes. */
  #clearBelow = 0;
  #absorbed = 0;

  constructor(reader: MeasuredReader, options: CellOptions) {
    this.#reader = reader;
    this.#options = options;
    this.#clock = options.clock ?? CLOCK;
    void reader.flood.done.then(({ reason }) => this.#ended = reason);
  }

  async run(): Promise<CellResult | undefined> {
    const { rate, pause, signal } = this.#options;
    const { size } = this.#reader.flood.message;
    const floor = await this.#offerBaseRate();
    if (signal?.aborted) return undefined;
    if (this.#ended !== undefined) return this.#result("dies", 0, 0);
    if (floor > rate * (TOO_MUCH.seconds + TOO_MUCH.pauses * pause) + size) {
      return this.#result("collapses", 0, 0);
    }
    this.#clearBelow = 1.25 * floor + size + BETWEEN_LOOKS * rate;
    const result = await this.#offerBurst();
    return signal?.aborted ? undefined : result;
  }

  /** Resolves with the backlog to which the reader returns again and again; bytes. */
  async #offerBaseRate(): Promise<number> {
    const { rate, pause } = this.#options;
    const { flood } = this.#reader;
    const ms = 1000 * Math.max(STEADY.seconds, STEADY.pauses * pause);
    const startMs = this.#clock.now();
    flood.startBytes(rate, startMs);
    const floors = new Array<number>(PARTS).fill(Infinity);
    for (let now = startMs; now < startMs + ms && !this.#stopped;) {
      now = await this.#nextLook();
      const part = Math.floor((now - startMs) / ms * PARTS);
      if (part < PARTS) floors[part] = Math.min(floors[part]!, this.#backlog);
    }
    // The first part may hold what the reader needs to begin.
    return Math.max(0, ...floors.filter((floor) => floor < Infinity).slice(1));
  }

  async #offerBurst(): Promise<CellResult> {
    const { rate, burst, limit, pause } = this.#options;
    const { flood } = this.#reader;
    const burstMs = this.#look();
    const before = this.#drained;
    flood.burst(burst, burstMs);
    const ideal = burst / (limit - rate);
    const givenMs = 1000 * (GIVEN.times * ideal + GIVEN.pauses * pause + GIVEN.seconds);
    let endMs = burstMs + givenMs;
    let extensions = 0;
    /** Since when it is clear. */
    let clearMs: number | undefined;
    const recent = new RecentDrain(burstMs, before, burst);
    while (!this.#stopped) {
      const now = await this.#nextLook();
      const ms = now - burstMs;
      this.#absorbed = Math.max(this.#absorbed, this.#drained - before - limit * ms / 1000);
      if (this.#backlog <= this.#clearBelow) {
        clearMs ??= now;
        const needed = (clearMs - burstMs) / 1000;
        const stays = Math.max(STAYS.seconds, STAYS.pauses * pause, needed);
        if (now - clearMs >= 1000 * stays) {
          return this.#result("survives", needed, recent.rate(now, this.#drained));
        }
      } else if (this.#backlog > this.#clearBelow + rate * (0.02 + pause)) {
        // It had nearly caught up.
        clearMs = undefined;
      }
      const outgrown = ms > OUTGROWN.times * givenMs / GIVEN.times &&
        this.#backlog > OUTGROWN.factor * burst + this.#clearBelow;
      let late = now >= endMs && clearMs === undefined;
      if (late && recent.shrinks(this.#backlog) && extensions < GIVEN.extensions) {
        extensions++;
        endMs = now + givenMs;
        late = false;
      }
      if (outgrown || late) return await this.#collapse(ms, recent.rate(now, this.#drained));
      recent.look(now, this.#drained, this.#backlog);
    }
    const now = this.#clock.now();
    return this.#result("dies", (now - burstMs) / 1000, recent.rate(now, this.#drained));
  }

  /** It has collapsed. With `after`: does it come back at that rate? */
  async #collapse(ms: number, drained: number): Promise<CellResult> {
    const collapsed = this.#result("collapses", ms / 1000, drained);
    const { after } = this.#options;
    if (after === undefined) return collapsed;
    const { flood } = this.#reader;
    flood.startBytes(after.rate, this.#clock.now());
    return { ...collapsed, returned: await this.#returnsWithin(after.seconds) };
  }

  /** How long it needed to come back and stay so; null: it did not. Seconds. */
  async #returnsWithin(seconds: number): Promise<number | null> {
    const sinceMs = this.#clock.now();
    let clearMs: number | undefined;
    for (let now = sinceMs; now < sinceMs + 1000 * seconds && !this.#stopped;) {
      now = await this.#nextLook();
      if (this.#backlog > this.#clearBelow) clearMs = undefined;
      else clearMs ??= now;
      if (clearMs !== undefined && now - clearMs >= 1000 * STAYS.seconds) {
        return (clearMs - sinceMs) / 1000;
      }
    }
    return null;
  }

  get #stopped(): boolean {
    return this.#ended !== undefined || this.#options.signal?.aborted === true;
  }

  async #nextLook(): Promise<number> {
    await this.#clock.sleep(SAMPLE_EVERY_MS);
    return this.#look();
  }

  /** Returns when it was; ms. */
  #look(): number {
    const { flood, meter } = this.#reader;
    const reading = meter.readDrained();
    if (reading === undefined) return this.#clock.now();
    this.#drained = reading.drained;
    this.#backlog = flood.offeredAt(reading.nowMs) - reading.drained;
    return reading.nowMs;
  }

  #result(outcome: CellResult["outcome"], seconds: number, drained: number): CellResult {
    const { rate, burst } = this.#options;
    return {
      ...{ rate, burst, outcome, seconds, drained, absorbed: this.#absorbed },
      ...(this.#ended === undefined ? {} : { ended: this.#ended }),
    };
  }
}

/** What was drained since the middle of the time since the burst, and whether the backlog has shrunk. */
class RecentDrain {
  readonly #burstMs: number;
  #ms: number;
  #drained: number;
  #backlog: number;

  constructor(burstMs: number, drained: number, backlog: number) {
    this.#burstMs = this.#ms = burstMs;
    this.#drained = drained;
    this.#backlog = backlog;
  }

  look(ms: number, drained: number, backlog: number): void {
    if (ms - this.#burstMs < 2 * (this.#ms - this.#burstMs) || ms - this.#ms <= 50) return;
    this.#ms = ms;
    this.#drained = drained;
    this.#backlog = backlog;
  }

  /** Bytes a second. */
  rate(ms: number, drained: number): number {
    return ms > this.#ms ? (drained - this.#drained) / (ms - this.#ms) * 1000 : 0;
  }

  shrinks(backlog: number): boolean {
    return backlog < 0.9 * this.#backlog;
  }
}
