/** What a reader processes that queues in its own memory: what is decided, from figures that are made up. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals } from "#std/assert";
import {
  awaitWork,
  type HiddenBacklog,
  isBehind,
  isConfirmed,
  keepSampling,
  processingRate,
} from "../src/measure/hidden_backlog.ts";
import { measureProcessing, type WorkTrial } from "../src/measure/processing.ts";
import type { ReaderWork } from "../src/measure/reader_work.ts";
import { within } from "./within.ts";

const hidden = (seconds: number, quiet = true): HiddenBacklog => ({
  ...{ seconds, quiet, background: undefined },
});

describe("a hidden backlog", () => {
  test("is more work than one read and one look leave", () => {
    for (
      const [worked, seconds, ramp, behind] of [
        [0, 0.3, true, false],
        [0.1, 0.3, true, false],
        // Offered 1.5 times its limit.
        [0.15, 0.3, true, true],
        [0.1, 2, false, false],
        [0.2, 2, false, true],
      ] as const
    ) {
      const trial = { seconds, ramp, pause: 0 };
      assertEquals(isBehind(hidden(worked), trial), behind, `${worked} s of ${seconds} s`);
      // One that reads only now and then has up to that much to do in any case.
      assertEquals(isBehind(hidden(worked), { ...trial, pause: 0.4 }), false);
    }
    const busy = { ...hidden(1), background: "a thread wakes up" };
    assertEquals(isBehind(busy, { seconds: 1, pause: 0 }), false);
  });

  test("is confirmed by a longer trial, with which it grows", () => {
    const first = { hidden: hidden(0.3), seconds: 0.5 };
    const confirmed = (worked: number, quiet = true) =>
      isConfirmed(first, { hidden: hidden(worked, quiet), seconds: 1 }, 0);
    assertEquals([confirmed(0.6), confirmed(0.4), confirmed(0.3)], [true, true, false]);
    // It still worked when we stopped to look.
    assertEquals(confirmed(0.3, false), true);
    assertEquals(confirmed(0.05, false), false);
  });

  test("tells the rate at which a reader works", () => {
    // 2 MB/s, offered 3 MB/s for 2 s: another second of work.
    const trials = [0.99, 1, 1.01].map((worked) => ({ bytes: 6e6, seconds: 2, worked }));
    const { lower, upper } = processingRate(trials, 0.95);
    assertAlmostEquals((lower + upper) / 2, 2e6, 100);
    // Student's t(2) = 4.303, s = 6,667 of three rates; and 20 ms of 3 s.
    const half = 4.303 * 6667 / Math.sqrt(3) + 2e6 * 0.02 / 2.99;
    assertAlmostEquals((upper - lower) / 2, half, 100);
    const wider = processingRate(trials, 0.99);
    assert(wider.lower < lower && wider.upper > upper);
  });

  test("is more than was allowed, to the millisecond", () => {
    for (
      const [trial, allowed] of [
        [{ seconds: 2, pause: 0 }, 0.08 + 0.06],
        [{ seconds: 2, pause: 0, ramp: true }, 0.08 + 0.2],
        [{ seconds: 2, pause: 0.5 }, 0.08 + 0.6 + 0.06],
      ] as const
    ) {
      const found = [-0.001, 0.001].map((more) => isBehind(hidden(allowed + more), trial));
      assertEquals(found, [false, true]);
    }
    const first = { hidden: hidden(0.5), seconds: 1 };
    const confirmed = [0.749, 0.75].map((worked) =>
      isConfirmed(first, { hidden: hidden(worked), seconds: 2.5 }, 0)
    );
    assertEquals(confirmed, [false, true]);
    // A pause explains it.
    assertEquals(isConfirmed(first, { hidden: hidden(0.75), seconds: 2.5 }, 0.6), false);
  });

  test("is that of the slowest reader, until all are quiet", async () => {
    const asked: Record<string, unknown>[] = [];
    const works = [[0.2, true, undefined], [0.5, true, "a"], [0.1, true, "b"]].map((rest) => ({
      untilQuiet(options: Record<string, unknown>) {
        asked.push(options);
        const [seconds, quiet, background] = rest;
        return Promise.resolve({ seconds, quiet, background });
      },
    })) as unknown as ReaderWork[];
    const { signal } = new AbortController();
    const wait = (messageSeconds: number, of = works) =>
      awaitWork(of, { sinceMs: 7, trialSeconds: 2, messageSeconds, signal });
    assertEquals(await wait(0.1), { seconds: 0.5, quiet: true, background: "a" });
    const options = { fromMs: 7, longestSeconds: 4, longestQuietSeconds: 2, signal };
    assertEquals(asked, Array(3).fill({ ...options, shortestQuietSeconds: 0.5 }));
    asked.length = 0;
    await wait(0.001);
    await wait(10);
    const shortest = asked.map(({ shortestQuietSeconds }) => shortestQuietSeconds);
    assertEquals(shortest, [0.15, 0.15, 0.15, 2, 2, 2]);
    const busy = {
      untilQuiet: () => Promise.resolve({ seconds: 0.05, quiet: false, background: undefined }),
    } as unknown as ReaderWork;
    assertEquals(await wait(0.1, [busy, works[0]!]), {
      ...{ seconds: 0.2, quiet: false, background: undefined },
    });
    assertEquals((await wait(0.1, [])).seconds, 0);
    asked.length = 0;
    await awaitWork(works, { sinceMs: 7, trialSeconds: 2, messageSeconds: 1 });
    assertEquals("signal" in asked[0]!, false);
  });

  test("is sampled until that is ended", async () => {
    let samples = 0;
    const { promise, resolve } = Promise.withResolvers<void>();
    const work = { sample: () => ++samples === 3 && resolve() } as unknown as ReaderWork;
    const end = keepSampling([work, work]);
    await within("a third sample", 1000, promise);
    await within("its end", 1000, end());
    const then = samples;
    await new Promise((done) => setTimeout(done, 50));
    assertEquals(samples, then);
  });
});

describe("what a reader processes", () => {
  /** Offers 1 MB/s as the estimate; `works` answers each offer. */
  async function measured(
    works: (rate: number, seconds: number, run: number) => WorkTrial | undefined,
    { messageSize = 100, pause = 0 } = {},
  ) {
    const offers: [rate: number, seconds: number][] = [];
    const options = { messageSize, confidence: 0.95, pause };
    const found = await measureProcessing(1e6, options, (rate, seconds) => {
      offers.push([Math.round(rate), seconds]);
      return Promise.resolve(works(rate, seconds, offers.length));
    });
    return { found, offers };
  }
  const all = (rate: number, seconds: number, worked: number, quiet = true): WorkTrial => ({
    ...{ bytes: rate * seconds, seconds, hidden: hidden(worked, quiet) },
  });
  /** It processes so much. */
  const processes = (limit: number) => (rate: number, seconds: number) =>
    all(rate, seconds, Math.max(0, rate / limit - 1) * seconds);

  test("is from three trials at 1.5 times the estimate, and one below", async () => {
    const { found, offers } = await measured(processes(1e6));
    const { lower, upper, confirmed } = found!;
    // 20 ms of 3.75 s.
    assertAlmostEquals(upper - lower, 2 * 1e6 * 0.02 / 3.75, 1);
    assertAlmostEquals((lower + upper) / 2, 1e6, 1);
    const below = Math.round(0.97 * lower);
    assertEquals(offers, [...Array(3).fill([1.5e6, 2.5]), [below, 2.5]]);
    assertEquals(confirmed, true);
    // 40 messages of 100 kB.
    const large = await measured(processes(1e6), { messageSize: 100_000 });
    assertEquals(large.offers[0], [1.5e6, 4]);
  });

  test("is not confirmed where it is behind just below, or cannot be seen", async () => {
    const behind = (worked: number) => async (pause: number) =>
      (await measured(
        (rate, seconds) => rate < 1e6 ? all(rate, seconds, worked) : processes(1e6)(rate, seconds),
        { pause },
      )).found!.confirmed;
    assertEquals([await behind(0.5)(0), await behind(0.5)(0.4), await behind(0.1)(0)], [
      ...[false, true, true],
    ]);
    const { found } = await measured((rate, seconds) =>
      rate < 1e6 ? undefined : processes(1e6)(rate, seconds)
    );
    assertEquals(found!.confirmed, false);
  });

  test("is asked at a higher rate where it has too little to do", async () => {
    const rates = async (limit: number) =>
      (await measured(processes(limit))).offers.map(([rate]) => rate);
    // 15 % of the time are enough, 14 % are not.
    assertEquals((await rates(1.5e6 / 1.151))[1], 1.5e6);
    assertEquals((await rates(1.5e6 / 1.149)).slice(0, 3), [1.5e6, 2.25e6, 2.25e6]);
    // Or its buffers were full.
    const blocked = async (share: number) =>
      (await measured((rate, seconds) => ({
        ...{ bytes: share * rate * seconds, seconds, hidden: hidden(0) },
      }))).offers[1]![0];
    assertEquals([await blocked(0.95), await blocked(0.951)], [1.5e6, 2.25e6]);
    const { offers } = await measured((rate, seconds) => all(rate, seconds, 0.15 * seconds));
    assertEquals(offers[1]![0], 1.5e6);
  });

  test("is asked at a lower rate where its work does not end", async () => {
    const { offers } = await measured((rate, seconds, run) =>
      all(rate, seconds, run === 1 ? 5 : 1, run > 1)
    );
    // 3.75 MB in 7.5 s, times 1.5, by 1.2; not more than what was offered by 1.2.
    assertEquals(
      offers.slice(0, 3).map(([rate]) => rate),
      [625_000, 625_000].toSpliced(0, 0, 1.5e6),
    );
    const little = await measured((rate, seconds, run) => all(rate, seconds, 0.1, run > 1));
    assertEquals(little.offers[1]![0], 1.25e6);
  });

  test("is unknown without two trials, and of eight at most", async () => {
    const busy = await measured((rate, seconds) => all(rate, seconds, 9, false));
    assertEquals([busy.found, busy.offers.length], [undefined, 8]);
    const after = async (runs: number) =>
      (await measured((rate, seconds, run) =>
        run > runs ? undefined : processes(1e6)(rate, seconds)
      )).found?.confirmed;
    assertEquals([await after(0), await after(1), await after(2)], [undefined, undefined, false]);
  });
});
