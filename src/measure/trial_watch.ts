/** Samples one reader during one trial. */
import type { Closed } from "../net/net.ts";
import type { Flood } from "../send/flood.ts";
import type { Sample } from "./backlog.ts";
import type { Drained, Meter, Reading } from "./meter.ts";
import { type TrialFigures, trialFigures } from "./trial_figures.ts";

/** A connected reader: the flood that feeds it, and the meter that measures what it drains. */
export interface MeasuredReader {
  flood: Flood;
  meter: Meter;
}

/** One sample, with what a recorded series shows in addition. */
export interface TrialSample extends Sample {
  /** Bytes that have become due since the trial's first sample. */
  offered: number;
  /** The reader's last advertised window, bytes; undefined where it was not asked for. */
  window: number | undefined;
}

/** The sender looks at what is due about each millisecond; seconds. */
const ON_TIME = 0.003;
/** A backlog of so many seconds of the rate is not asked where it is. */
const SMALL = 0.02;
/** After so long without a read we ask whether the window is closed; seconds. */
const SILENT = 1;

const isFull = (reading: Drained | Reading): reading is Reading => "near" in reading;

/** One reader in one trial: where its backlog is, and what the kernel reports of its connection. */
export class TrialWatch {
  readonly reader: MeasuredReader;
  ended: Closed | undefined;
  seconds = 0;
  /** The longest time without a read although there was something to read; seconds. */
  longestPause = 0;
  last: TrialSample | undefined;
  /** The first and the last read in the second half of the trial's longest time: when, and drained then. */
  #half: { time: number; drained: number } | undefined;
  #end: { time: number; drained: number } | undefined;
  /** When half of that time had passed. */
  #middle: { time: number; drained: number } | undefined;
  #lastRead = 0;
  #first: Reading & { offered: number; late: number } | undefined;
  #lastFull: Reading | undefined;
  /** Whether the last sample asked for how long the window was closed, and the answer. */
  #asked = false;
  /** Bytes that it had taken from its socket, at the first and the last sample. */
  readonly #taken = { first: 0, last: 0 };
  #closed = false;
  #limitedUs = 0;
  readonly #rate: number;
  readonly #longest: number;
  readonly #full: boolean;

  /** `full`: asks the kernel for all it has with each sample, as a recorded series needs. */
  constructor(reader: MeasuredReader, rate: number, longest: number, full: boolean) {
    this.reader = reader;
    this.#rate = rate;
    this.#longest = longest;
    this.#full = full;
    void reader.flood.done.then((closed) => this.ended = closed);
  }

  /** Takes one sample; undefined: the kernel has no such connection any more. */
  sample(): TrialSample | undefined {
    const { flood, meter } = this.reader;
    const all = this.#first === undefined || this.#full;
    const reading: Drained | Reading | undefined = all ? meter.read() : meter.readDrained();
    if (reading === undefined) return undefined;
    // Of a reader on another host, the shortest reading is one of our end.
    const full = isFull(reading) ? reading : undefined;
    const { nowMs, drained } = reading;
    const offered = flood.offeredAt(nowMs);
    const late = this.#late(offered);
    if (full !== undefined) {
      this.#first ??= { ...full, offered, late };
      this.#lastFull = full;
    }
    if (this.last === undefined) this.#taken.first = meter.taken;
    this.#taken.last = meter.taken;
    const first = this.#first!;
    const time = (nowMs - first.nowMs) / 1000;
    const backlog = Math.max(0, offered - drained);
    const waiting = this.#waiting(reading, full, backlog - late, time - this.#lastRead);
    const sample: TrialSample = {
      time,
      backlog,
      drained: drained - first.drained,
      waiting: Math.min(backlog, waiting),
      closed: this.#closed,
      late: Math.min(backlog, late),
      offered: offered - first.offered,
      window: full?.near.info?.sendWindow,
    };
    if (time <= this.#longest / 2) this.#middle = { time, drained: sample.drained };
    if (sample.drained > (this.last?.drained ?? 0)) {
      this.longestPause = Math.max(this.longestPause, time - this.#lastRead);
      this.#lastRead = time;
      if (time > this.#longest / 2) {
        this.#end = { time, drained: sample.drained };
        this.#half ??= this.#end;
      }
    } else if (this.last?.backlog === 0) this.#lastRead = this.last.time;
    this.seconds = time;
    return this.last = sample;
  }

  /** What was due and is not accepted although the kernel has room. */
  #late(offered: number): number {
    const { flood } = this.reader;
    if (flood.connection.blockedSince !== undefined) return 0;
    return Math.max(0, offered - flood.accepted - ON_TIME * this.#rate - flood.message.longest);
  }

  /**
   * How much of the backlog is the reader's: all of it, less what is late, while something waits in its
   * receive queue, or its window is closed. `TCP_INFO` counts the time for which it is closed
   * (tcpi_rwnd_limited).
   */
  #waiting(reading: Drained, full: Reading | undefined, ours: number, silence: number): number {
    const { flood: { message } } = this.reader;
    const { receiveQueue } = reading;
    const asked = this.#asked;
    this.#asked = false;
    this.#closed = false;
    const reads = receiveQueue === undefined || receiveQueue > message.longest;
    if (full === undefined) {
      if (reads && silence < SILENT) return ours;
      if (!reads && ours < SMALL * this.#rate) return receiveQueue;
      full = this.reader.meter.read();
      if (full === undefined) return ours;
      this.#lastFull = full;
    }
    this.#asked = true;
    const limitedUs = full.near.info?.receiveWindowLimitedUs ?? 0;
    this.#closed = asked && limitedUs > this.#limitedUs;
    this.#limitedUs = limitedUs;
    return reads || this.#closed || !asked ? ours : receiveQueue;
  }

  /** What it took from its socket, whatever it did with that; bytes a second. */
  get taken(): number {
    return this.seconds === 0 ? 0 : (this.#taken.last - this.#taken.first) / this.seconds;
  }

  /** From the first sample to now. */
  figures(): TrialFigures {
    return trialFigures(this.#first, this.#lastFull = this.reader.meter.read() ?? this.#lastFull);
  }

  /** Replies that have arrived from the reader and were not read, when `figures` was last called; bytes. */
  get unreadReplies(): number {
    return this.#lastFull?.near.receiveQueue ?? 0;
  }

  /** Seconds since it last read something, or had nothing to read. */
  get silence(): number {
    return this.seconds - this.#lastRead;
  }

  /** The rate that the sender achieved: the scheduled one, but for what is late. Bytes a second. */
  get achieved(): number {
    if (this.last === undefined || this.seconds === 0) return this.#rate;
    const late = Math.max(0, this.last.late - this.#first!.late);
    return Math.min(this.#rate, this.#rate - late / this.seconds);
  }

  /**
   * Drained in the second half of the longest time that the trial may take, bytes a second: from one read
   * to another where there are two, as one that reads much at once would otherwise seem slower or faster.
   */
  get drainedInSecondHalf(): number {
    const reads = this.#half !== undefined && this.#end!.time > this.#half.time;
    const from = reads ? this.#half : this.#middle;
    const to = reads ? this.#end : this.last;
    if (from === undefined || to === undefined || to.time === from.time) return 0;
    // Both ends are asked one after the other, and a full queue may seem to grow by what comes in between.
    return Math.max(0, to.drained - from.drained) / (to.time - from.time);
  }
}
