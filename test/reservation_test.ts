/** Which offsets are recorded before they are sent, when, and how far in advance. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertRejects } from "#std/assert";
import type { Log } from "../src/queue/queue.ts";
import { Reservation } from "../src/relay/reservation.ts";
import { settle, withClock } from "./made_clock.ts";

/** The least that is reserved in advance. */
const LEAST = 65_536;

/** A log of which the test decides when a record is written. */
class MadeLog implements Pick<Log, "reserved" | "reserve"> {
  reserved: number;
  /** What was to be recorded, in order. */
  readonly asked: number[] = [];
  #record: PromiseWithResolvers<void> = Promise.withResolvers();

  constructor(reserved: number) {
    this.reserved = reserved;
  }

  reserve(offset: number): Promise<void> {
    this.asked.push(offset);
    this.#record = Promise.withResolvers();
    return this.#record.promise;
  }

  /** The last record is written. */
  async written(): Promise<void> {
    this.reserved = this.asked.at(-1)!;
    this.#record.resolve();
    await settle();
  }

  async failed(): Promise<void> {
    this.#record.reject(new Error("no disk"));
    await settle();
  }
}

function reserving(
  reserved: number,
  body: (made: {
    log: MadeLog;
    /** Whether bytes up to there may be sent at once; asked after so many ms, by default very many. */
    isFree: (end: number, afterMs?: number) => boolean;
    /** Ends that were waited for, in the order in which the wait has ended; negative: with an error. */
    ended: number[];
  }) => Promise<void>,
): Promise<void> {
  return withClock(async (clock) => {
    const log = new MadeLog(reserved);
    const reservation = new Reservation(log as unknown as Log);
    const ended: number[] = [];
    const isFree = (end: number, afterMs = 1e6) => {
      clock.pass(afterMs);
      const wait = reservation.reserve(end);
      if (wait === undefined) return true;
      assert(wait instanceof Promise);
      wait.then(() => ended.push(end), () => ended.push(-end));
      return false;
    };
    await body({ log, isFree, ended });
  });
}

describe("bytes that may be sent", () => {
  test("are those that are reserved", () =>
    reserving(1000, async ({ log, isFree, ended }) => {
      assertEquals([isFree(999), isFree(1000), log.asked], [true, true, []]);
      assertEquals([isFree(1001), log.asked], [false, [1001 + LEAST]]);
      await settle();
      assertEquals(ended, []);
      await log.written();
      assertEquals(ended, [1001]);
      assertEquals([isFree(1001), log.asked.length], [true, 1]);
    }));

  test("are not more while the next record is being written", () =>
    reserving(1000, async ({ log, isFree, ended }) => {
      assertEquals([isFree(2000), isFree(1001), isFree(1400), isFree(1000)], [
        ...[false, false, false, true],
      ]);
      await settle();
      assertEquals([ended, log.asked], [[], [2000 + LEAST]]);
      await log.written();
      assertEquals([ended, log.asked.length], [[2000, 1001, 1400], 1]);
    }));

  test("may need another record after the one that is being written", () =>
    reserving(1000, async ({ log, isFree, ended }) => {
      const first = 1001 + LEAST;
      assertEquals([isFree(1001), isFree(first), isFree(first + 1), log.asked], [
        ...[false, false, false],
        [first],
      ]);
      await log.written();
      assertEquals([ended, log.asked], [[1001, first], [first, first + 1 + LEAST]]);
      await log.written();
      assertEquals([ended, log.asked.length], [[1001, first, first + 1], 2]);
    }));
});

describe("what is reserved in advance", () => {
  test("is renewed once half of it is used, and nobody waits", () =>
    reserving(1000, async ({ log, isFree, ended }) => {
      isFree(1001);
      await log.written();
      const half = 1001 + LEAST / 2;
      assertEquals([isFree(half), log.asked.length], [true, 1]);
      assertEquals([isFree(half + 1), log.asked.slice(1)], [true, [half + 1 + LEAST]]);
      // Once.
      assertEquals([isFree(half + 2), isFree(1001 + LEAST), log.asked.length], [true, true, 2]);
      await log.written();
      const next = half + 1 + LEAST / 2;
      assertEquals([isFree(next), log.asked.length], [true, 2]);
      assertEquals([isFree(next + 1), log.asked.length], [true, 3]);
      assertEquals(ended, [1001]);
    }));

  test("is what is sent in half a second", () =>
    reserving(1000, async ({ log, isFree }) => {
      isFree(1000 + 1_000_000, 1000);
      assertEquals(log.asked, [1_001_000 + 500_000]);
      await log.written();
      // Counted from there, and not from the beginning.
      isFree(1_001_000 + 800_000, 200);
      assertEquals(log.asked.slice(1), [1_801_000 + 2_000_000]);
      await log.written();
      // Whole bytes.
      isFree(3_801_001, 3000);
      assertEquals(log.asked.slice(2), [3_801_001 + Math.ceil(2_000_001 / 6)]);
    }));

  test("counts a shorter time as a millisecond, and is 1 GiB at most", () =>
    reserving(0, async ({ log, isFree }) => {
      isFree(1_000_000, 0);
      assertEquals(log.asked, [1_000_000 + 500_000_000]);
      await log.written();
      isFree(600_000_000, 0);
      assertEquals(log.asked.slice(1), [600_000_000 + 2 ** 30]);
    }));

  test("does not become less when a source becomes slow", () =>
    reserving(0, async ({ log, isFree }) => {
      isFree(1_000_000, 0);
      await log.written();
      const reserved = 501_000_000;
      assertEquals(log.reserved, reserved);
      assertEquals([isFree(251_000_001), log.asked.slice(1)], [true, [reserved]]);
      await log.written();
      // What is left is halved again.
      assertEquals([isFree((251_000_001 + reserved - 1) / 2), log.asked.length], [true, 2]);
    }));
});

describe("a record that fails", () => {
  test("is told to all who wait for it, and tried again", () =>
    reserving(1000, async ({ log, isFree, ended }) => {
      isFree(2000);
      isFree(1500);
      await log.failed();
      assertEquals([ended, log.asked.length], [[-2000, -1500], 1]);
      assertEquals([isFree(2000), log.asked.length], [false, 2]);
      await log.written();
      assertEquals(ended, [-2000, -1500, 2000]);
    }));

  test("is no error where nobody waits", () =>
    reserving(1000, async ({ log, isFree, ended }) => {
      isFree(1001);
      await log.written();
      assertEquals(isFree(60_000), true);
      await log.failed();
      assertEquals([isFree(66_000), log.asked.length], [true, 3]);
      assertEquals(ended, [1001]);
    }));

  test("comes with its own error", () =>
    withClock(async () => {
      const log = new MadeLog(0);
      const wait = new Reservation(log as unknown as Log).reserve(1);
      const told = assertRejects(() => wait!, Error, "no disk");
      await log.failed();
      await told;
    }));
});
