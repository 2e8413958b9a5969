/**
 * Whether a reader keeps up, from its backlog over time and from nothing else: the backlog of one that
 * keeps up returns to its floor again and again, that of one that does not never comes back.
 *
 * A backlog by itself is no signal, since a reader may work in bursts, and a full send buffer is a late
 * one. What counts is the lowest backlog of each part of a trial, and nothing is said before the reader
 * has paused several times. "No backlog that keeps growing" is the sustainable throughput of Karimov et
 * al., ICDE 2018.
 */

/** One look at one reader; counts in bytes. */
export interface Sample {
  /** Seconds since the trial's first sample. */
  time: number;
  /** Offered less drained. */
  backlog: number;
  /** What the reader's program has read since the trial's first sample. */
  drained: number;
  /** The part of the backlog that waits for the reader: in its receive queue, or behind its closed window. */
  waiting: number;
  /** The reader's window was closed since the last sample, as far as that was looked at. */
  closed: boolean;
  /** The part that was due and that our sender has not offered to a kernel with room for it. */
  late: number;
}

/** Who kept the backlog growing. */
export type Blame = "reader" | "sender" | "path";

export interface BacklogVerdict {
  /** Undefined: not clear yet. */
  verdict: "keeps-up" | "falls-behind" | undefined;
  blame: Blame;
  /** It has stopped reading although its window is closed. */
  stopped: boolean;
  /** Growth of the lowest backlog, bytes a second. */
  slope: number;
}

export interface BacklogOptions {
  /** Offered, bytes a second. */
  rate: number;
  messageSize: number;
  /** Growth of the backlog that is still no growth, as a share of the rate. */
  tolerance: number;
  /** The shortest trial; seconds. */
  leastSeconds: number;
  /** A trial is at least so many times as long as the reader's longest pause. */
  pauses: number;
  /** And at least as long as so many messages take. */
  messages: number;
}

/** Parts of a trial, of equal length; two neighbours become one when there are so many. */
const MOST_BLOCKS = 48;
const FIRST_BLOCK = 0.02;
const LEAST_READS = 2;
/** A trial may take so many times its shortest length to make up for samples that are far apart. */
const LONGER = 3;
/** With a closed window, one that has read nothing for so many seconds and pauses has stopped. */
export const STOPPED = { seconds: 2, pauses: 10 };

interface Block {
  /** The lowest. */
  backlog: number;
  /** Samples, and those in which most of the backlog was our sender's, or on the path. */
  samples: number;
  sender: number;
  path: number;
}

/** Takes one sample after the other; what it keeps does not grow. */
export class Backlog {
  readonly #options: BacklogOptions;
  /** By time; those without a sample are absent. */
  #blocks: (Block | undefined)[] = [];
  #span = FIRST_BLOCK;
  #last: Sample | undefined;
  #lastRead = 0;
  #reads = 0;
  #samples = 0;
  /** The longest time without a read although there was something to read; seconds. */
  #pause = 0;
  /** The largest number of bytes read between two samples. */
  largestRead = 0;

  constructor(options: BacklogOptions) {
    this.#options = options;
  }

  get seconds(): number {
    return this.#last?.time ?? 0;
  }

  /** The longest pause so far, the present one included, unless it has stopped. */
  get pause(): number {
    return this.hasStopped ? this.#pause : Math.max(this.#pause, this.seconds - this.#lastRead);
  }

  get drained(): number {
    return this.#last?.drained ?? 0;
  }

  add(sample: Sample): void {
    const { time, backlog, drained } = sample;
    const last = this.#last;
    if (last !== undefined) {
      if (drained > last.drained) {
        this.#reads++;
        this.#pause = Math.max(this.#pause, time - this.#lastRead);
        this.#lastRead = time;
        this.largestRead = Math.max(this.largestRead, drained - last.drained);
      } else if (last.backlog <= 0) this.#lastRead = last.time;
    }
    this.#last = sample;
    this.#samples++;
    while (time >= MOST_BLOCKS * this.#span) {
      this.#span *= 2;
      const pairs: (Block | undefined)[] = [];
      this.#blocks.forEach((block, i) => {
        const pair = pairs[i >> 1];
        pairs[i >> 1] = pair === undefined || block === undefined
          ? pair ?? block
          : lower(pair, block);
      });
      this.#blocks = pairs;
    }
    const at = Math.floor(time / this.#span);
    const who = whose(sample);
    const block = { backlog, samples: 1, sender: +(who === "sender"), path: +(who === "path") };
    const before = this.#blocks[at];
    this.#blocks[at] = before === undefined ? block : lower(before, block);
  }

  /** It has read less than twice, which says nothing of it. */
  get readsSeldom(): boolean {
    return this.#reads < LEAST_READS;
  }

  /** It has stopped reading although its window is closed. */
  get hasStopped(): boolean {
    if (this.#last === undefined || !this.#last.closed) return false;
    const silent = this.seconds - this.#lastRead;
    return silent > Math.max(STOPPED.seconds, STOPPED.pauses * this.#pause);
  }

  /** From the samples so far. */
  verdict(): BacklogVerdict {
    const { rate, messageSize, tolerance, leastSeconds, pauses, messages } = this.#options;
    const blocks = this.#blocks;
    const seconds = this.seconds;
    const none: BacklogVerdict = {
      ...{ verdict: undefined, blame: "reader", stopped: false, slope: 0 },
    };
    if (blocks.length < 6) return none;
    const third = Math.floor(blocks.length / 3);
    const lowest = (from: number, to: number) => {
      const known = blocks.slice(from, to).filter((block) => block !== undefined);
      return known.length === 0 ? undefined : known.reduce(lower);
    };
    const early = lowest(0, third);
    const middle = lowest(third, blocks.length - third);
    const late = lowest(blocks.length - third, blocks.length);
    if (early === undefined || middle === undefined || late === undefined) return none;
    const growth = late.backlog - early.backlog;
    const slope = growth / (seconds * 2 / 3);
    if (this.hasStopped) {
      return { verdict: "falls-behind", blame: "reader", stopped: true, slope };
    }
    // Between two samples, so much comes that is not read yet.
    const unseen = rate * seconds / (this.#samples - 1) + messageSize;
    const tolerated = tolerance * rate * seconds * 2 / 3;
    const long = seconds >= leastSeconds && this.#reads >= LEAST_READS &&
      seconds >= pauses * this.pause && rate * seconds >= messages * messageSize &&
      (unseen <= tolerated || seconds >= LONGER * leastSeconds);
    if (!long) return { ...none, slope };
    const allowed = tolerated + unseen;
    if (growth <= allowed) return { ...none, verdict: "keeps-up", slope };
    const grows = growth > 2 * allowed && middle.backlog > early.backlog &&
      late.backlog > middle.backlog;
    const verdict = grows ? "falls-behind" : undefined;
    return { ...none, verdict, blame: blameFor(late), slope };
  }
}

/** Where most of the backlog is. */
export function whose({ backlog, waiting, late }: Sample): Blame {
  const path = backlog - waiting - late;
  if (waiting >= late && waiting >= path) return "reader";
  return late >= path ? "sender" : "path";
}

function lower(a: Block, b: Block): Block {
  return {
    backlog: Math.min(a.backlog, b.backlog),
    samples: a.samples + b.samples,
    sender: a.sender + b.sender,
    path: a.path + b.path,
  };
}

/** Right after the reader has read all, most of the backlog is on its way for a moment. */
function blameFor({ samples, sender, path }: Block): Blame {
  if (sender + path < samples / 2) return "reader";
  return sender >= path ? "sender" : "path";
}
