/** Readers without sockets, in steps of a millisecond, for the coverage of the search. */
import type { Sample } from "../src/measure/backlog.ts";
import type { Judged, Lab, Offered } from "../src/measure/lab.ts";
import type { SearchResult } from "../src/measure/search_result.ts";
import type { HiddenBacklog } from "../src/measure/hidden_backlog.ts";
import { randomFrom } from "./random.ts";

/** A kind of reader. */
export interface Simulated {
  kind: string;
  /** The outcome that is right for it. */
  expected: SearchResult["outcome"];
  /** Bytes a second. */
  limit: number;
  /**
   * A fresh reader: how many bytes it can process in the next millisecond, given what it has drained so far
   * and its backlog.
   */
  make(random: () => number): (drained: number, backlog: number) => number;
  /** It reads only each so many seconds, then all that it can work on until the next time. */
  every?: number;
  /** It takes so many times its limit from its socket into a queue of its own, of at most so many bytes. */
  hoards?: { intake: number; bound: number };
  /** Of the sender and of the network, bytes a second. */
  senderLimit?: number;
  pathLimit?: number;
}

const STEP = 0.001;
/** As `limit` samples where it can; steps. */
const SAMPLE_EVERY = 5;
/** The kernel's buffers, bytes. */
const SEND_BUFFER = 2.5e6;
const RECEIVE_BUFFER = 6e6;

/** One simulated reader with its connection. */
export class SimulatedLab implements Lab {
  readonly readers = 1;
  readonly #reader: Simulated;
  readonly #random: () => number;
  #serve: (drained: number, backlog: number) => number;
  #now = 0;
  #drainedEver = 0;
  /** In the reader's own memory, and in its socket. */
  #queue = 0;
  #unread = 0;
  #offered = 0;

  constructor(reader: Simulated, seed: number) {
    this.#reader = reader;
    this.#random = randomFrom(seed);
    this.#serve = reader.make(this.#random);
  }

  seconds(): number {
    return this.#now;
  }

  offer(
    { rate, longest }: { rate: number; longest: number },
    add: (samples: readonly Sample[]) => boolean,
  ): Promise<Offered> {
    const { senderLimit = Infinity, pathLimit = Infinity, every, hoards } = this.#reader;
    let offered = 0, accepted = 0, arrived = 0, drained = 0, budget = 0;
    let nextRead = this.#now + (every ?? 0) * this.#random();
    let looks = 0;
    for (let step = 1;; step++) {
      this.#now += STEP;
      const time = step * STEP;
      offered = rate * time;
      const room = SEND_BUFFER + arrived - accepted;
      const full = Math.min(offered - accepted, senderLimit * STEP) > room;
      accepted += Math.max(0, Math.min(offered - accepted, room, senderLimit * STEP));
      const window = RECEIVE_BUFFER - (arrived - drained);
      const closed = accepted - arrived > window && window < pathLimit * STEP;
      arrived += Math.max(0, Math.min(accepted - arrived, window, pathLimit * STEP));
      budget += this.#serve(this.#drainedEver, offered - drained);
      if (hoards !== undefined) {
        const worked = Math.min(this.#queue, Math.max(0, budget));
        this.#queue -= worked;
        budget = this.#queue > 0 ? budget - worked : 0;
        const took = Math.min(
          arrived - drained,
          hoards.intake * this.#reader.limit * STEP,
          hoards.bound - this.#queue,
        );
        drained += took;
        this.#queue += took;
      } else if (every === undefined) {
        const took = Math.min(arrived - drained, Math.max(0, budget));
        drained += took;
        this.#drainedEver += took;
        // Time that it did not need is lost, but for a read's length.
        budget = arrived - drained > 0 ? budget - took : Math.min(budget - took, 0);
      } else if (this.#now >= nextRead && budget > -0.5 * this.#reader.limit * STEP) {
        const took = Math.min(arrived - drained, this.#reader.limit * every);
        drained += took;
        this.#drainedEver += took;
        budget -= took;
        nextRead += every;
      } else budget = Math.min(budget, 0);
      if (step % SAMPLE_EVERY !== 0) continue;
      looks++;
      const backlog = offered - drained;
      const waiting = closed ? backlog : arrived - drained;
      const late = full ? 0 : Math.max(0, offered - accepted);
      const sample = { time: looks * SAMPLE_EVERY / 1000, backlog, drained, waiting, closed, late };
      if (add([sample]) || time >= longest) break;
    }
    // What the kernel has not taken is no longer owed.
    this.#unread = accepted - drained;
    this.#offered = looks * SAMPLE_EVERY / 1000;
    return Promise.resolve({ seconds: this.#offered, bytes: accepted, ended: undefined });
  }

  /** The end of the work is seen within 10 ms; for longer than 1.5 times the trial nobody looks. */
  look(): Promise<HiddenBacklog | undefined> {
    const left = (this.#queue + this.#unread) / this.#reader.limit;
    const longest = 1.5 * this.#offered + 1;
    const seconds = Math.min(longest, left) + 0.01 * this.#random();
    this.#now += seconds + 0.15;
    const quiet = left <= longest;
    if (quiet) this.#queue = 0;
    return Promise.resolve({ seconds, quiet, background: undefined });
  }

  settle(_judged: Judged, fresh: boolean): Promise<void> {
    this.#now += fresh ? 0.3 : 0.1;
    if (fresh || this.#queue > 0) {
      this.#queue = 0;
      this.#serve = this.#reader.make(this.#random);
      this.#drainedEver = 0;
    }
    return Promise.resolve();
  }
}

const gauss = (random: () => number) =>
  Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

/** One reader of each kind, with a rate from 100 kB/s to 100 MB/s and other figures by chance. */
export function simulatedReaders(random: () => number): Simulated[] {
  const limit = Math.exp(Math.log(1e5) + random() * Math.log(1e3));
  const L = limit * STEP;
  const out: Simulated[] = [];
  const push = (kind: string, make: Simulated["make"], more: Partial<Simulated> = {}) =>
    out.push({ kind, limit, make, expected: "found", ...more });
  push("steady", () => () => L);
  const pause = 0.02 + 0.18 * random();
  const period = 0.3 + 1.7 * random();
  push("pausing", (r) => {
    let t = r() * (pause + period);
    return () => {
      t += STEP;
      if (t >= pause + period) t -= pause + period;
      return t < pause ? 0 : L * (pause + period) / period;
    };
  });
  push("pausing at random", (r) => {
    let left = 0;
    return () => {
      if (left > 0) return left -= STEP, 0;
      if (r() < STEP / period) left = 0.02 + 0.18 * r();
      return L * (1 + 0.11 / period);
    };
  });
  for (const sd of [0.05, 0.1, 0.2]) {
    const tau = 0.05 * 20 ** random();
    push(`AR(1) ${sd * 100} %`, (r) => {
      let x = gauss(r);
      const a = Math.exp(-STEP / tau), q = Math.sqrt(1 - a * a);
      return () => (x = a * x + q * gauss(r), Math.max(0, L * (1 + sd * x)));
    });
  }
  const cv = 0.5 + random();
  push("lognormal", (r) => {
    const s = Math.sqrt(Math.log(1 + cv * cv));
    // Messages of 1 kB: work is lognormal, the budget is what it can finish in the time.
    const mean = 1000 / limit;
    let work = 0;
    return () => {
      work -= STEP;
      let bytes = 0;
      while (work < 0) {
        work += mean * Math.exp(s * gauss(r) - s * s / 2);
        bytes += 1000;
      }
      return bytes;
    };
  });
  const every = 0.1 + 0.7 * random();
  push("batch", () => () => L, { every, limit: Math.min(limit, 6e6 / every) });
  const intake = 1.2 * 40 ** random();
  push("hoarding", () => () => L, { hoards: { intake, bound: Infinity } });
  const bound = limit * 0.1 * 200 ** random();
  push("hoarding, bounded", () => () => L, { hoards: { intake, bound } });
  push("collapsing", () => {
    let collapsed = false;
    return (_drained, waiting) => {
      if (waiting > 0.2 * limit) collapsed = true;
      else if (waiting < 0.001 * limit) collapsed = false;
      return collapsed ? L / 4 : L;
    };
  }, { expected: "irregular" });
  const growth = 0.05 + 0.4 * random();
  push("drifting", () => (drained) => L / (1 + growth * drained / limit / 10), {
    expected: "irregular",
  });
  push("sender-limited", () => () => L, {
    ...{ expected: "generator-limited", senderLimit: limit * (0.5 + 0.48 * random()) },
  });
  push("path-limited", () => () => L, {
    ...{ expected: "path-limited", pathLimit: limit * (0.5 + 0.48 * random()) },
  });
  return out;
}
