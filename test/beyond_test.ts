/** What a reader does beyond its limit, from trials and readings that are made up. */
import { describe, test } from "node:test";
import { assertAlmostEquals, assertEquals } from "#std/assert";
import type { Closed } from "../src/net/net.ts";
import { measureBeyond, measureHidden } from "../src/measure/beyond.ts";
import type { Experiment } from "../src/measure/experiment.ts";
import { HELD_BACK } from "../src/measure/hidden_backlog.ts";
import { SAMPLE_EVERY_MS } from "../src/measure/meter.ts";
import type { TrialResult } from "../src/measure/trial.ts";
import { MadeReader } from "./made_reader.ts";

/** Trials of which the test says what came out. */
class MadeExperiment {
  readonly asked: unknown[][] = [];
  readonly #results: Partial<TrialResult>[];

  constructor(results: Partial<TrialResult>[]) {
    this.#results = results;
  }

  run(rate: number, purpose: string, seconds: number, add: () => boolean) {
    this.asked.push([rate, purpose, seconds, add()]);
    const usual = { longestPause: 0, achieved: rate, drained: rate, drainedInSecondHalf: rate };
    const result = { ...usual, backlog: 0, ended: undefined, ...this.#results.shift() };
    return Promise.resolve({ result, seconds, memoryBytesPerSecond: 7 });
  }

  settle({ verdict }: { verdict: string }, fresh: boolean) {
    this.asked.push([verdict, fresh]);
    return Promise.resolve();
  }
}

const LIMIT = { lower: 2e6, upper: 2.2e6 };
/** Half of the limit is offered. */
const RATE = 1e6;

interface More {
  pause?: number;
  largestRead?: number;
  stops?: boolean;
  fastest?: (seconds: number) => number;
  /** Backlogs of the readers, so many seconds after the overload, bytes. */
  backlogs?: ((seconds: number) => number | undefined)[];
  endsAt?: number;
  abortsAt?: number;
}

async function beyond(results: Partial<TrialResult>[], more: More = {}) {
  const { backlogs = [() => 0], endsAt = Infinity, abortsAt = Infinity } = more;
  const experiment = new MadeExperiment(results);
  const abort = new AbortController();
  let nowMs = 5000;
  const seconds = () => (nowMs - 5000) / 1000;
  const readers = backlogs.map((backlog) =>
    new MadeReader((made) => {
      const left = backlog(seconds());
      made.gone = left === undefined;
      made.offered = 100 + (left ?? 0);
      made.drained = 100;
    })
  );
  const found = await measureBeyond(experiment as unknown as Experiment, LIMIT, {
    ...{ pause: 0, largestRead: 0, stops: false, fastest: () => 0, ...more },
    readers: () => readers.map(({ reader }) => reader),
    signal: abort.signal,
    clock: {
      now: () => nowMs,
      sleep(ms) {
        nowMs += ms;
        if (seconds() > abortsAt) abort.abort();
        if (seconds() > endsAt) readers[0]!.end({} as Closed);
        return Promise.resolve();
      },
    },
  });
  return { ...found, asked: experiment.asked, readers };
}

/** The time of the first look that is later; seconds. */
const after = (seconds: number) => {
  const every = SAMPLE_EVERY_MS / 1000;
  return (Math.floor(seconds / every + 1e-9) + 1) * every;
};

describe("an overload", () => {
  test("is twice the limit, for a second and for six pauses, at most for ten seconds", async () => {
    const asked = async (pause: number) => (await beyond([], { pause })).asked[0];
    assertEquals(await asked(0), [4.4e6, "overload", 1, false]);
    assertEquals(await asked(0.25), [4.4e6, "overload", 1.5, false]);
    assertEquals(await asked(2), [4.4e6, "overload", 10, false]);
  });

  test("is longer where a pause would fill more than a third of it", async () => {
    const usual = await beyond([{ longestPause: 0.33 }]);
    assertEquals(usual.asked.map(([rate]) => rate), [4.4e6, "inconclusive"]);
    const again = async (
      longestPause: number,
    ) => (await beyond([{ longestPause }, { drainedInSecondHalf: 3 }]));
    const { asked, overload } = await again(0.5);
    assertEquals(asked.slice(0, 3), [
      ...[[4.4e6, "overload", 1, false], ["inconclusive", false], [4.4e6, "overload", 3, false]],
    ]);
    assertEquals(overload!.drained, 3);
    assertEquals((await again(3)).asked[2], [4.4e6, "overload", 10, false]);
    const ended = await beyond([{ longestPause: 0.5, ended: {} as Closed }]);
    assertEquals(ended.asked.length, 2);
    // That of one that stops is no pause.
    assertEquals((await beyond([{ longestPause: 0.5 }], { stops: true })).asked.length, 2);
  });

  test("may make a reader collapse, or end its connection", async () => {
    const collapsed = async (drainedInSecondHalf: number) =>
      (await beyond([{ achieved: 4e6, drainedInSecondHalf, drained: 9 }])).overload;
    assertEquals(await collapsed(1e6), { offered: 4e6, drained: 1e6, collapsed: false });
    assertEquals(await collapsed(1e6 - 1), { offered: 4e6, drained: 1e6 - 1, collapsed: true });
    const { overload, recovery, asked, readers } = await beyond([
      { ended: {} as Closed, drained: 3e6, drainedInSecondHalf: 9 },
    ]);
    assertEquals([overload!.drained, recovery], [3e6, { recovered: false, seconds: 0 }]);
    assertEquals([asked[1], readers[0]!.asked], [["falls-behind", false], []]);
  });

  test("says whether the reader fell behind", async () => {
    const judged = async (drained: number) => (await beyond([{ drained, achieved: 4e6 }])).asked[1];
    assertEquals([await judged(3.6e6), await judged(3.6e6 - 1)], [
      ...[["inconclusive", false], ["falls-behind", false]],
    ]);
  });

  test("refutes the limit where the reader certainly drains more", async () => {
    const refutes = async (drainedInSecondHalf: number, more: More = {}) =>
      (await beyond([{ drainedInSecondHalf }], more)).refutes;
    const most = 1.02 * 2.2e6;
    assertEquals([await refutes(most - 1), await refutes(most + 1)], [undefined, most + 1]);
    // Two reads more or less in half a second.
    const read = { largestRead: 25_000 };
    assertEquals(await refutes(most + 99_999, read), undefined);
    assertEquals(await refutes(most + 100_001, read), most + 100_001);
    // It drained as much before, for as long.
    const seen: number[] = [];
    const fastest = (seconds: number) => (seen.push(seconds), 3e6);
    assertEquals(await refutes(3.05e6, { fastest }), undefined);
    assertEquals([await refutes(3.07e6, { fastest }), seen], [3.07e6, [0.5, 0.5]]);
  });
});

describe("after an overload", () => {
  /** Whether, and when, it has recovered from a backlog that changes so. */
  const recovery = async (backlog: (seconds: number) => number | undefined, more: More = {}) => {
    const { recovery, readers } = await beyond([], { backlogs: [backlog], ...more });
    return { ...recovery!, readers };
  };
  const small = 0.05 * RATE + 4096;

  test("a reader has recovered once its backlog is small", async () => {
    const atOnce = await recovery(() => small);
    assertEquals([atOnce.recovered, atOnce.seconds], [true, 0]);
    assertEquals(atOnce.readers[0]!.asked[0], RATE);
    const clears = await recovery((seconds) => 1e6 * (1 - seconds));
    assertEquals(clears.recovered, true);
    assertAlmostEquals(clears.seconds, after(1 - small / 1e6), 1e-9);
    // All of several.
    const two = await beyond([], {
      backlogs: [() => 0, (seconds) => seconds < 1 ? 1e6 : 0],
    });
    assertEquals(two.recovery!.recovered, true);
    assertAlmostEquals(two.recovery!.seconds, 1, 1e-9);
  });

  test("a reader has twice the time that it needs, a second, and four pauses", async () => {
    // It clears a little all the time. It needs 1 s.
    const slow = (seconds: number) => 1e6 - 1000 * seconds;
    const time = async (more: More, backlog = slow) => {
      const { recovered, seconds } = await recovery(backlog, more);
      assertEquals(recovered, false);
      return seconds;
    };
    assertAlmostEquals(await time({}), after(3), 1e-9);
    assertAlmostEquals(await time({ pause: 0.25 }), after(4), 1e-9);
    // At most 10 s.
    assertAlmostEquals(await time({}, (seconds) => 20e6 - seconds), after(10), 1e-9);
    // And 3 s more where it stands still, which may be a pause.
    assertAlmostEquals(await time({}, () => 1e6), after(6), 1e-9);
    const stops = (seconds: number) => 1e6 - 1000 * Math.min(seconds, 1);
    assertAlmostEquals(await time({ pause: 0.5 }, stops), after(8), 1e-9);
  });

  test("a backlog that has grown for 3 s will not clear", async () => {
    const time = async (before: number, pause: number) => {
      const { recovered, seconds } = await recovery((seconds) => before + seconds, { pause });
      assertEquals(recovered, false);
      return seconds;
    };
    assertAlmostEquals(await time(2e6, 0), after(3), 1e-9);
    // Not before half of the time that it needs, and four pauses.
    assertAlmostEquals(await time(8e6, 0), after(4), 1e-9);
    assertAlmostEquals(await time(2e6, 0.75), after(4), 1e-9);
  });

  test("a connection that ends, or an interrupt, is the end of it", async () => {
    const still = (more: More) => recovery(() => 1e6, more);
    const ended = await still({ endsAt: 1 });
    assertEquals([ended.recovered, ended.seconds < 1.2], [false, true]);
    const aborted = await still({ abortsAt: 1 });
    assertEquals([aborted.recovered, aborted.seconds < 1.2], [false, true]);
    const gone = await recovery(() => undefined);
    assertEquals(gone.recovered, false);
  });
});

test("a hidden backlog is what a reader takes above what it works on", async () => {
  const hidden = async (rate: number, backlog: number) => {
    const experiment = new MadeExperiment([{ backlog }]);
    const found = await measureHidden(experiment as unknown as Experiment, rate);
    return { found, asked: experiment.asked };
  };
  const { found, asked } = await hidden(4e6, 0);
  assertEquals(found, { offered: 6e6, seconds: 1, bytes: 4e6, memoryBytesPerSecond: 7 });
  assertEquals(asked, [[6e6, "work", 2, false], ["falls-behind", true]]);
  assertEquals((await hidden(4e6, 1e6)).found!.bytes, 3e6);
  // At least 1 MiB more.
  assertAlmostEquals((await hidden(3000, 0)).found!.offered, 3000 + (1 << 20) / 2, 1e-6);
  assertEquals((await hidden(2e6, 2e6 - HELD_BACK)).found, null);
  assertEquals((await hidden(2e6, 2e6 - HELD_BACK - 1)).found!.bytes, HELD_BACK + 1);
  // Of a fast one, a fifth of what was too much: what it works on is not known as well as to 640 KiB.
  assertEquals((await hidden(100e6, 100e6 - 20e6)).found, null);
  assertEquals((await hidden(100e6, 100e6 - 20e6 - 1)).found!.bytes, 20e6 + 1);
});
