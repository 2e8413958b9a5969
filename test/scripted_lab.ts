/** Readers that do what a test says, for what the search asks of them. */
import type { Sample } from "../src/measure/backlog.ts";
import type { HiddenBacklog } from "../src/measure/hidden_backlog.ts";
import type { Judged, Lab, Offered, SearchPhase } from "../src/measure/lab.ts";

/** What one reader's sample is at that time of a trial; what is not said is that of one that reads all at once. */
export type ScriptedReader = (time: number, rate: number) => Partial<Sample>;

/** One trial. */
export interface Script {
  readers: readonly ScriptedReader[];
  /** A reader ends its connection at `endsAt` (seconds). */
  ended?: Offered["ended"];
  endsAt?: number;
  /** What each reader was sent; default all. */
  bytes?: number;
  /** After a trial of so many seconds. */
  hidden?: HiddenBacklog | ((seconds: number) => HiddenBacklog);
}

/** It drains so many bytes a second; what it leaves waits for it. */
export const drains = (speed: number): ScriptedReader => (time, rate) => {
  const drained = Math.min(rate, speed) * time;
  return { drained, backlog: rate * time - drained };
};

/** Samples are 1/64 s apart, so that times are exact. */
export const STEP = 1 / 64;

export class ScriptedLab implements Lab {
  readonly readers: number;
  /** What was asked for, in that order. */
  readonly asked: (
    | { rate: number; purpose: SearchPhase; longest: number; seconds: number }
    | { look: true }
    | { judged: Judged; fresh: boolean }
  )[] = [];
  now = 0;
  readonly #script: (trial: number, rate: number, purpose: SearchPhase) => Script;
  #trials = 0;
  #hidden: HiddenBacklog | undefined;

  constructor(
    readers: number,
    script: (trial: number, rate: number, purpose: SearchPhase) => Script,
  ) {
    this.readers = readers;
    this.#script = script;
  }

  seconds(): number {
    return this.now;
  }

  offer(
    { rate, purpose, longest }: { rate: number; purpose: SearchPhase; longest: number },
    add: (samples: readonly Sample[]) => boolean,
  ): Promise<Offered> {
    const script = this.#script(this.#trials++, rate, purpose);
    const { readers, ended, endsAt = 0, hidden, bytes } = script;
    let seconds = 0;
    for (let i = 0;; i++) {
      seconds = i * STEP;
      if (ended !== undefined && seconds > endsAt) break;
      const samples = readers.map((reader): Sample => {
        const said = reader(seconds, rate);
        const { backlog = 0 } = said;
        const usual = { time: seconds, backlog, drained: rate * seconds, waiting: backlog };
        return { ...usual, late: 0, closed: false, ...said };
      });
      if (add(samples) || seconds >= longest) break;
    }
    this.now += seconds;
    this.#hidden = typeof hidden === "function" ? hidden(seconds) : hidden;
    this.asked.push({ rate, purpose, longest, seconds });
    return Promise.resolve({ seconds, bytes: bytes ?? rate * seconds, ended });
  }

  look(): Promise<HiddenBacklog | undefined> {
    this.asked.push({ look: true });
    return Promise.resolve(this.#hidden);
  }

  settle(judged: Judged, fresh: boolean): Promise<void> {
    this.asked.push({ judged, fresh });
    return Promise.resolve();
  }
}
