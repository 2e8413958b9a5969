/** Samples one reader during one trial. */
import type { Closed } from "../net/net.ts";
import type { Flood } from "../send/flood.ts";
import type { Meter, Reading } from "./meter.ts";
import { type TrialFigures, trialFigures } from "./trial_figures.ts";
import type { Sample } from "./verdict.ts";

/** A connected reader: the flood that feeds it, and the meter that measures what it drains. */
export interface MeasuredReader {
  flood: Flood;
  meter: Meter;
}

/** One sample, with what a recorded series shows in addition. */
export interface TrialSample extends Sample {
  /** Bytes that have become due since the trial's first sample. */
  offered: number;
  /** The reader's last advertised window, bytes; undefined where the kernel does not report it. */
  window: number | undefined;
}

/** Messages that are later than this, although the kernel has room, are the sender's fault. */
const LATE_MS = 20;

/** One reader in one trial: its samples, and whether the sender kept its schedule. */
export class TrialWatch {
  readonly reader: MeasuredReader;
  readonly samples: Sample[] = [];
  ended: Closed | undefined;
  #first: Reading & { offered: number } | undefined;
  #last: Reading | undefined;
  /** Samples in which the sender was late. */
  #lateSamples = 0;
  #owedAtFirst = 0;

  constructor(reader: MeasuredReader) {
    this.reader = reader;
    void reader.flood.done.then((closed) => this.ended = closed);
  }

  /** Takes one sample; undefined: the kernel has no such connection any more. */
  sample(rate: number): TrialSample | undefined {
    const { flood, meter } = this.reader;
    const reading = meter.read();
    if (reading === undefined) return undefined;
    const offered = flood.offeredAt(reading.nowMs);
    this.#first ??= { ...reading, offered };
    const owed = offered - flood.accepted;
    if (this.samples.length === 0) this.#owedAtFirst = owed;
    const blocked = flood.connection.blockedSince !== undefined;
    if (!blocked && owed - Math.max(0, this.#owedAtFirst) > rate * LATE_MS / 1000) {
      this.#lateSamples++;
    }
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

  /** Replies that have arrived from the reader and were not read; bytes. */
  get unreadReplies(): number {
    return this.#last?.near.receiveQueue ?? 0;
  }

  /** Whether the sender was late in over 20 % of the samples, although the kernel had room. */
  get senderWasLate(): boolean {
    return this.#lateSamples > this.samples.length * 0.2;
  }

  /** The rate that the sender achieved: the scheduled one, unless it was late. Bytes a second. */
  achieved(rate: number, acceptedBefore: number, seconds: number): number {
    if (!this.senderWasLate) return rate;
    return Math.min(rate, (this.reader.flood.accepted - acceptedBefore) / seconds);
  }

  /** Drained in the second half of the trial, bytes a second. */
  get drainedInSecondHalf(): number {
    const half = this.samples.findIndex(({ time }) => time >= this.seconds / 2);
    const from = this.samples[half];
    const to = this.samples.at(-1);
    if (from === undefined || to === undefined || to.time === from.time) return 0;
    return (to.drained - from.drained) / (to.time - from.time);
  }
}
