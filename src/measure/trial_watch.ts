/** What one trial sees of one reader. */
import type { Closed } from "../net/net.ts";
import type { Flood } from "../send/flood.ts";
import type { Meter, Reading } from "./meter.ts";
import { type TrialFigures, trialFigures } from "./trial_figures.ts";
import type { Sample } from "./verdict.ts";

/** A reader that is connected and fed. */
export interface Feed {
  flood: Flood;
  meter: Meter;
}

/** What a trial sees of one reader at one time. */
export interface TrialSample extends Sample {
  /** Bytes that were due since the trial's first sample. */
  offered: number;
  /** What the reader advertised last, in bytes; undefined where the kernel does not tell. */
  window: number | undefined;
}

/** Messages this late in the sender's hand, with room in the kernel, are the sender's fault. */
const LATE_MS = 20;

/** One reader in one trial: its samples, and whether the sender was late. */
export class TrialWatch {
  readonly feed: Feed;
  readonly samples: Sample[] = [];
  ended: Closed | undefined;
  #first: Reading & { offered: number } | undefined;
  #last: Reading | undefined;
  #late = 0;
  #owedAtFirst = 0;

  constructor(feed: Feed) {
    this.feed = feed;
    void feed.flood.done.then((closed) => this.ended = closed);
  }

  /** Undefined: the kernel knows the connection no more. */
  sample(rate: number): TrialSample | undefined {
    const { flood, meter } = this.feed;
    const reading = meter.read();
    if (reading === undefined) return undefined;
    const offered = flood.offeredAt(reading.nowMs);
    this.#first ??= { ...reading, offered };
    const owed = offered - flood.accepted;
    if (this.samples.length === 0) this.#owedAtFirst = owed;
    const held = flood.connection.blockedSince !== undefined;
    if (!held && owed - Math.max(0, this.#owedAtFirst) > rate * LATE_MS / 1000) this.#late++;
    const sample: Sample = {
      time: (reading.nowMs - this.#first.nowMs) / 1000,
      backlog: offered - reading.drained,
      drained: reading.drained - this.#first.drained,
    };
    this.samples.push(sample);
    this.#last = reading;
    return {
      ...sample,
      offered: offered - this.#first.offered,
      window: reading.near.info?.sendWindow,
    };
  }

  get seconds(): number {
    return this.samples.at(-1)?.time ?? 0;
  }

  get figures(): TrialFigures {
    return trialFigures(this.#first, this.#last);
  }

  /** Replies of the reader that arrived here and were not read; bytes. */
  get unreadReplies(): number {
    return this.#last?.near.receiveQueue ?? 0;
  }

  /** The sender was late in a good part of the samples, though the kernel would have taken more. */
  get generatorLate(): boolean {
    return this.#late > this.samples.length * 0.2;
  }

  /** Bytes a second that the sender stood by: all of its schedule, or what it managed. */
  achieved(rate: number, acceptedBefore: number, seconds: number): number {
    if (!this.generatorLate) return rate;
    return Math.min(rate, (this.feed.flood.accepted - acceptedBefore) / seconds);
  }

  get drainedLate(): number {
    const half = this.samples.findIndex(({ time }) => time >= this.seconds / 2);
    const from = this.samples[half];
    const to = this.samples.at(-1);
    if (from === undefined || to === undefined || to.time === from.time) return 0;
    return (to.drained - from.drained) / (to.time - from.time);
  }
}
