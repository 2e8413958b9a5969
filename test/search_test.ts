/** The search over readers without sockets that do one thing each. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertLessOrEqual } from "#std/assert";
import { randomFrom } from "../bench/random.ts";
import type { Sample } from "../src/measure/backlog.ts";
import type { HiddenBacklog } from "../src/measure/hidden_backlog.ts";
import type { Judged, Lab, Offered, SearchPhase } from "../src/measure/lab.ts";
import { searchLimit } from "../src/measure/search.ts";
import { REASONS, type SearchOptions } from "../src/measure/search_result.ts";

/** Bytes that it reads in the next millisecond, of a backlog of so many; undefined: it has gone. */
type Reader = (backlog: number) => number | undefined;

interface Logged {
  rate: number;
  purpose: SearchPhase;
  verdict?: Judged["verdict"];
  seconds: number;
  fresh: boolean;
}

/** Readers, in steps of a millisecond. */
class SimpleLab implements Lab {
  readonly readers: number;
  readonly log: Logged[] = [];
  readonly #make: readonly (() => Reader)[];
  readonly #senderLimit: number;
  #current: Reader[];
  #left: number[];
  #now = 0;

  constructor(make: readonly (() => Reader)[], senderLimit = Infinity) {
    this.readers = make.length;
    this.#make = make;
    this.#senderLimit = senderLimit;
    this.#current = make.map((each) => each());
    this.#left = make.map(() => 0);
  }

  seconds(): number {
    return this.#now;
  }

  offer(
    { rate, purpose, longest }: { rate: number; purpose: SearchPhase; longest: number },
    add: (samples: readonly Sample[]) => boolean,
  ): Promise<Offered> {
    const drained = this.#current.map(() => 0);
    let ended = false;
    let time = 0;
    for (let step = 1; !ended && time < longest; step++) {
      time = step / 1000;
      const offered = rate * time;
      const sent = Math.min(rate, this.#senderLimit) * time;
      this.#current.forEach((reader, i) => {
        const backlog = sent + this.#left[i]! - drained[i]!;
        const read = reader(backlog);
        if (read === undefined) ended = true;
        else drained[i]! += Math.min(backlog, read);
      });
      if (step % 10 !== 0) continue;
      const samples = drained.map((read, i): Sample => {
        const backlog = offered + this.#left[i]! - read;
        const late = Math.max(0, offered - sent);
        return {
          ...{ time, backlog, drained: read, waiting: backlog - late, late },
          closed: backlog > 4.5e6,
        };
      });
      if (add(samples)) break;
    }
    this.#now += time;
    this.#left = drained.map((read, i) =>
      Math.min(rate, this.#senderLimit) * time - read + this.#left[i]!
    );
    this.log.push({ rate, purpose, seconds: time, fresh: false });
    return Promise.resolve({
      seconds: time,
      bytes: rate * time,
      ended: ended ? "behind" : undefined,
    });
  }

  look(): Promise<HiddenBacklog | undefined> {
    return Promise.resolve(undefined);
  }

  settle({ verdict }: Judged, fresh: boolean): Promise<void> {
    const last = this.log.at(-1)!;
    last.verdict ??= verdict;
    last.fresh ||= fresh;
    this.#now += fresh ? 0.5 : 0.1;
    this.#left = this.#left.map(() => 0);
    if (fresh) this.#current = this.#make.map((each) => each());
    return Promise.resolve();
  }
}

/** One in which is seen how long a reader goes on working: not at all. */
class SeeingLab extends SimpleLab {
  override look(): Promise<HiddenBacklog> {
    return Promise.resolve({ seconds: 0, quiet: true, background: undefined });
  }
}

const steady = (rate: number) => (): Reader => () => rate / 1000;

function search(lab: Lab, options: Partial<SearchOptions> = {}) {
  return searchLimit(lab, {
    ...{ startRate: 500_000, minRate: 1000, maxRate: Infinity, messageSize: 100 },
    ...{ precision: 0.01, confidence: 0.95, time: 60 },
    ...options,
  });
}

describe("the search", () => {
  test("of one that is slower once it was overloaded, by more than 3 %", async () => {
    for (
      const [fresh, overloaded] of [[13_000, 7700], [15_000, 8100], [9500, 8200], [9000, 8550]]
    ) {
      const sticky = () => {
        let slow = false;
        return (backlog: number) => {
          slow ||= backlog > 300_000;
          return slow ? overloaded : fresh;
        };
      };
      const found = await search(new SeeingLab([sticky]));
      assertEquals([found.outcome, found.reason], ["irregular", REASONS.metastable]);
      const limit = 1000 * fresh!;
      assert(found.lower <= 1.02 * limit && found.upper >= 0.98 * limit, JSON.stringify(found));
    }
  });

  test("of a steady reader: from below, doubling; one stretch above; one trial below", async () => {
    const lab = new SimpleLab([steady(7e6)]);
    const seen: { lower: number; upper: number; secondsLeft: number }[] = [];
    const found = await search(lab, { onInterval: (interval) => seen.push(interval) });
    assertEquals([found.outcome, found.reason], ["found", undefined]);
    assert(found.lower <= 7e6 && found.upper >= 7e6 && found.upper / found.lower < 1.0101);
    const purposes = lab.log.map(({ purpose }) => purpose);
    assertEquals(purposes, [...Array(5).fill("ramp"), "saturate", "bound", "confirm"]);
    lab.log.slice(1, 5).forEach(({ rate }, i) => assertEquals(rate, 2 * lab.log[i]!.rate));
    const { rate, verdict } = lab.log.at(-1)!;
    assert(verdict === "keeps-up" && rate < found.lower && rate > 0.98 * found.lower);
    assert(seen.length > 0 && seen.at(-1)!.upper / seen.at(-1)!.lower < 1.02);
    assert(lab.seconds() < 20, `${lab.seconds()} s`);
  });

  test("of a slow one: down, then as before", async () => {
    const lab = new SimpleLab([steady(3000)]);
    const found = await search(lab);
    assertEquals(found.outcome, "found");
    assert(found.lower <= 3000 && found.upper >= 3000);
  });

  test("below the lowest rate: only from a long trial", async () => {
    const lab = new SimpleLab([steady(2000)]);
    const found = await search(lab, { minRate: 4000 });
    assertEquals([found.outcome, found.reason], ["below-range", REASONS.tooSlow]);
    const { purpose, rate, seconds } = lab.log.at(-1)!;
    assertEquals([purpose, rate], ["confirm", 4000]);
    assert(seconds >= 2, `${seconds} s`);
  });

  test("above the highest rate: a long trial there", async () => {
    const lab = new SimpleLab([steady(10e6)]);
    const found = await search(lab, { maxRate: 3e6 });
    assertEquals([found.outcome, found.lower], ["generator-limited", 3e6]);
    assertEquals(found.reason, REASONS.highestRate);
    assertEquals(lab.log.at(-1)!.purpose, "confirm");
    assertEquals(Math.max(...lab.log.map(({ rate }) => rate)), 3e6);
  });

  test("above what the sender can make: to within a tenth of that", async () => {
    for (const limit of [5e6, 7.9e6, 8.1e6]) {
      const lab = new SimpleLab([steady(100e6)], limit);
      const found = await search(lab);
      assertEquals([found.outcome, found.reason], ["generator-limited", REASONS.senderLimit]);
      assert(found.lower <= 1.006 * limit && found.lower > limit / 1.12, `${found.lower} ${limit}`);
    }
  });

  test("of several readers: the slowest", async () => {
    const lab = new SimpleLab([steady(9e6), steady(7e6), steady(8e6)]);
    const found = await search(lab);
    assertEquals([found.outcome, found.slowest], ["found", 1]);
    assert(found.lower <= 7e6 && found.upper >= 7e6);
  });

  test("of one that ends its connection when it is behind: fresh readers", async () => {
    const ends = () => {
      let behind = 0;
      return (backlog: number) => {
        behind = backlog > 1e6 ? behind + 1 : 0;
        return behind > 50 ? undefined : 7000;
      };
    };
    const lab = new SimpleLab([ends]);
    const found = await search(lab);
    assertEquals([found.outcome, found.reason], ["irregular", REASONS.ends]);
    assert(found.lower <= 7.1e6 && found.upper >= 6.9e6, `${found.lower} ${found.upper}`);
    assertLessOrEqual(found.upper / found.lower, 1.051);
  });

  test("of one that stops reading when it is behind, for good", async () => {
    const stops = () => {
      let stopped = false;
      return (backlog: number) => {
        stopped ||= backlog > 2e6;
        return stopped ? 0 : 7000;
      };
    };
    const lab = new SimpleLab([stops]);
    const found = await search(lab);
    assertEquals([found.outcome, found.reason], ["irregular", REASONS.stops]);
    assert(found.lower <= 7.2e6 && found.upper >= 6.8e6, `${found.lower} ${found.upper}`);
    const bounds = lab.log.filter(({ purpose }) => purpose === "bound");
    assert(bounds.length > 2 && bounds.every(({ fresh }) => fresh));
  });

  test("of one that waits for much at once: at higher rates it reads", async () => {
    // 4 MB at once: at 500 kB/s it reads each 8 s. It does so at 20 MB/s.
    const lumps = () => {
      let credit = 0;
      return (backlog: number) => {
        credit = Math.min(credit + 20_000, 8e6);
        if (backlog < 4e6 || credit < 4e6) return 0;
        credit -= 4e6;
        return 4e6;
      };
    };
    const lab = new SimpleLab([lumps]);
    const found = await search(lab);
    assertEquals(found.outcome, "found", JSON.stringify([found, lab.log]));
    assert(found.lower <= 20e6 && found.upper >= 20e6, `${found.lower} ${found.upper}`);
  });

  test("of one that turns out to queue while it was to be saturated: what it works on", async () => {
    // Its socket is drained faster after 2 s; from then on it goes on working for half of each trial's time.
    class Hoarding extends SimpleLab {
      override look(): Promise<HiddenBacklog> {
        const { purpose, rate, seconds } = this.log.at(-1)!;
        const behind = rate > 6e6 && purpose !== "ramp";
        const left = behind ? (rate / 5e6 - 1) * seconds : 0;
        return Promise.resolve({ seconds: left, quiet: true, background: undefined });
      }
    }
    const warmsUp = () => {
      let ms = 0;
      return () => ++ms < 2500 ? 7000 : 50_000;
    };
    const lab = new Hoarding([warmsUp]);
    const found = await search(lab);
    assertEquals([found.outcome, found.hidden], ["found", true], JSON.stringify(lab.log));
    assert(found.lower <= 5e6 && found.upper >= 5e6, JSON.stringify(found));
    assertEquals(lab.log.at(-1)!.purpose, "work");
  });

  test("of one that is fast and slow in turns: a wide interval, and no claim of a trial that was not made", async () => {
    const turns = () => {
      let ms = 0;
      return () => Math.floor(ms++ / 7000) % 2 === 0 ? 7000 : 500;
    };
    const lab = new SimpleLab([turns]);
    const found = await search(lab);
    const confirmed = lab.log.some(({ purpose }) => purpose === "confirm");
    assert(confirmed || found.reason !== REASONS.slowerBelow, JSON.stringify(found));
    assert(found.lower > 0 && found.lower < found.upper, JSON.stringify(found));
  });

  test("ends in time, with the interval that it has by then", async () => {
    const random = randomFrom(7);
    let speed = 0;
    const noisy = (): Reader => () => {
      speed = 0.998 * speed + 0.063 * (random() - 0.5) * 3.4;
      return 7000 * Math.max(0, 1 + 0.2 * speed);
    };
    for (const time of [20, 40]) {
      const lab = new SimpleLab([noisy]);
      const found = await search(lab, { time });
      assertEquals([found.outcome, found.reason], ["found", REASONS.varies]);
      assert(found.lower <= 7e6 && found.upper >= 7e6, `${found.lower} ${found.upper}`);
      assert(lab.seconds() > time / 2 && lab.seconds() < time + 4, `${lab.seconds()} s`);
    }
  });
});
