/** One trial of the search, and the one that asks for a hidden backlog, over readers that do what they are told. */
import { describe, test } from "node:test";
import { assertAlmostEquals, assertEquals } from "#std/assert";
import type { HiddenBacklog } from "../src/measure/hidden_backlog.ts";
import { type Plan, SearchTrials } from "../src/measure/search_trials.ts";
import { drains, type Script, ScriptedLab, type ScriptedReader, STEP } from "./scripted_lab.ts";

/** 1000 bytes come between two samples. */
const RATE = 64_000;
const PLAN: Plan = {
  ...{ purpose: "bound", tolerance: 0.05, leastSeconds: 1, longest: 12, pauses: 1, messages: 3 },
};
const all: ScriptedReader = () => ({});
/** Its backlog has grown, but does not any more. */
const unclear: ScriptedReader = (time) => ({ backlog: time < 0.03 ? 0 : 1e6 });
/** It reads so seldom (seconds), then all. */
const seldom = (every: number): ScriptedReader => (time, rate) => {
  const drained = rate * Math.floor(time / every) * every;
  return { drained, backlog: rate * time - drained };
};

function trialsOf(
  script: (trial: number, rate: number) => Script,
  { readers = 1, messageSize = 100 } = {},
) {
  const lab = new ScriptedLab(readers, script);
  return { lab, trials: new SearchTrials(lab, { messageSize, confidence: 0.95, time: 60 }) };
}

async function tryOne(
  readers: readonly ScriptedReader[],
  plan: Partial<Plan> = {},
  more: Partial<Script> = {},
  messageSize = 100,
) {
  const options = { readers: readers.length, messageSize };
  const { lab, trials } = trialsOf(() => ({ readers, ...more }), options);
  const tried = await trials.try(RATE, { ...PLAN, ...plan });
  return { lab, trials, tried, offered: lab.asked[0]! as { longest: number; seconds: number } };
}

describe("a trial", () => {
  test("of one that keeps up ends as soon as that is clear, with a look at its work", async () => {
    const hidden: HiddenBacklog = { seconds: 0.01, quiet: true, background: undefined };
    const { lab, tried, trials } = await tryOne([all], {}, { hidden });
    assertEquals(tried, {
      ...{ verdict: "keeps-up", blame: "reader", capacity: RATE, seconds: 1, hidden },
      ...{ ended: false, stopped: false, readsSeldom: false },
    });
    const offer = { rate: RATE, purpose: "bound" as const, longest: 12, seconds: 1 };
    assertEquals(lab.asked, [offer, { look: true }]);
    assertEquals([trials.largestRead, trials.slowest, trials.left], [1000, 0, 59]);
  });

  test("of one that falls behind estimates its limit; the slowest one is named", async () => {
    const { lab, tried, trials } = await tryOne([all, drains(48_000), unclear]);
    assertEquals([tried.verdict, tried.seconds, trials.slowest], ["falls-behind", 1, 1]);
    // From the first to the last third: from 0 to 11,750 bytes in 2/3 s.
    assertAlmostEquals(tried.capacity, RATE - 17_625, 1e-6);
    assertEquals(lab.asked.length, 1);
    // Not more than it has drained, and not less than nothing.
    const jumps: ScriptedReader = (time) => ({
      ...{ drained: 1000 * time, backlog: time < 0.35 ? 0 : time < 0.7 ? 1e6 : 2e6 },
    });
    assertEquals((await tryOne([jumps])).tried.capacity, 0);
    const slow: ScriptedReader = (time) => ({ drained: 1000 * time, backlog: 20_000 * time });
    assertAlmostEquals((await tryOne([slow])).tried.capacity, 1000, 1e-6);
    const unknown = await tryOne([all, unclear]);
    assertEquals([unknown.tried.verdict, unknown.trials.slowest], [undefined, 1]);
    const { trials: two } = trialsOf(
      (trial) => ({ readers: trial === 0 ? [all, unclear] : [unclear, all] }),
      { readers: 2 },
    );
    await two.try(RATE, PLAN);
    assertEquals(two.slowest, 1);
    await two.try(RATE, PLAN);
    assertEquals(two.slowest, 0);
  });

  test("that does not get clear ends after four times its shortest time", async () => {
    const ends = async (plan: Partial<Plan>, reader = unclear) =>
      (await tryOne([reader], plan)).offered.seconds;
    // It is looked at each 1/16 s: at the first of those times that is later.
    assertEquals(await ends({ leastSeconds: 0.5 }), 2.0625);
    assertEquals(await ends({ leastSeconds: 0.125 }), 1.0625);
    // 1.25 times the time of 1000 messages of 100 bytes.
    assertEquals(await ends({ leastSeconds: 0.125, messages: 1000 }), 2);
    // Eight pauses of 0.25 s.
    const pausing: ScriptedReader = (time) => ({
      ...{ ...unclear(time, RATE), drained: RATE * Math.floor(4 * time) / 4 },
    });
    assertEquals(await ends({ leastSeconds: 0.125, pauses: 4 }, pausing), 2.0625);
    assertEquals(await ends({ longest: 3 }), 3);
    const { offered } = await tryOne([unclear], { longest: 1, messages: 1000 });
    assertEquals([offered.longest, offered.seconds], [1.953125, 1.953125]);
  });

  test("of one that has not read twice ends after 4 s, or its shortest time", async () => {
    const never = seldom(100);
    const ends = async (plan: Partial<Plan>, messageSize = 100) => {
      const { tried, offered } = await tryOne([never], plan, {}, messageSize);
      assertEquals([tried.verdict, tried.readsSeldom], [undefined, true]);
      return offered.seconds;
    };
    assertEquals(await ends({ leastSeconds: 0.5 }), 4.0625);
    assertEquals(await ends({ leastSeconds: 5 }), 5.0625);
    assertEquals(await ends({ leastSeconds: 0.5 }, 102_400), 6.0625);
  });

  test("that ended by chance is made once more, with other readers", async () => {
    const { lab, trials } = trialsOf((trial) => ({
      readers: [all],
      ...(trial === 0 ? { ended: "lost", endsAt: 0.5 } : {}),
    }));
    assertEquals((await trials.try(RATE, PLAN)).verdict, "keeps-up");
    assertEquals(lab.asked.map((each) => Object.keys(each)[0]), ["rate", "judged", "rate", "look"]);
    assertEquals(lab.asked[1], { judged: { verdict: "inconclusive" }, fresh: true });
  });

  test("in which a reader ends its connection is one in which it falls behind", async () => {
    const { lab, tried } = await tryOne([drains(48_000)], {}, { ended: "behind", endsAt: 0.5 });
    assertEquals(tried, {
      ...{ verdict: "falls-behind", blame: "reader", capacity: 48_000, hidden: undefined },
      ...{ seconds: 0.5 + STEP, ended: true, stopped: false, readsSeldom: false },
    });
    assertEquals(lab.asked[1], { judged: { verdict: "falls-behind" }, fresh: true });
    const atOnce = await tryOne([all], {}, { ended: "behind", endsAt: -1 });
    assertEquals(atOnce.tried.capacity, 0);
  });

  test("is settled with what it has shown", async () => {
    const { lab, tried, trials } = await tryOne([all]);
    const settle = async (more: Partial<typeof tried>, fresh: boolean) => {
      lab.asked.length = 0;
      await trials.settle({ ...tried, ...more }, RATE, fresh);
      return lab.asked;
    };
    const behind = { verdict: "falls-behind", capacity: 60_000 } as const;
    assertEquals(await settle(behind, true), [
      { judged: { verdict: "falls-behind", slope: 4000 }, fresh: true },
    ]);
    assertEquals(await settle({ verdict: undefined }, false), [
      { judged: { verdict: "inconclusive" }, fresh: false },
    ]);
    assertEquals(await settle({ ...behind, ended: true }, false), []);
  });
});

test("the longest pause is that of trials at such rates in which it kept up", async () => {
  const pauses = [0.25, 0.5, 1, 0.125];
  const { trials } = trialsOf((trial) => ({
    readers: [
      // In the third one it falls behind.
      trial === 2 ? (time, rate) => ({ ...seldom(1)(time, rate), backlog: rate * time }) : seldom(
        pauses[trial]!,
      ),
    ],
  }));
  assertEquals(trials.pauseAt(RATE), 0);
  const plan = { ...PLAN, leastSeconds: 3 };
  await trials.try(RATE, plan);
  assertEquals([trials.pauseAt(4 * RATE), trials.pauseAt(4 * RATE + 1)], [0.25, 0]);
  await trials.try(RATE / 4, plan);
  assertEquals([trials.pauseAt(RATE), trials.pauseAt(RATE + 1)], [0.5, 0.25]);
  assertEquals((await trials.try(16 * RATE, plan)).verdict, "falls-behind");
  assertEquals([trials.pauseAt(RATE), trials.pauseAt(16 * RATE)], [0.5, 1]);
  const { largestRead } = trials;
  assertEquals(largestRead, 16 * RATE);
  await trials.try(RATE, plan);
  assertEquals([trials.pauseAt(RATE), trials.largestRead], [0.5, largestRead]);
});

describe("what a reader processes", () => {
  const hidden = (seconds: number, quiet = true, background?: string): HiddenBacklog => ({
    ...{ seconds, quiet, background },
  });
  /** After a trial of a second, and another one of which this is known. */
  async function processed(
    first: HiddenBacklog | undefined,
    second: Partial<Script>,
    ramp = false,
  ) {
    const { lab, trials } = trialsOf(() => ({ readers: [all], ...second }));
    const rate = await trials.processed(RATE, { seconds: 1, hidden: first }, ramp);
    return { rate, asked: lab.asked };
  }

  test("is asked only of one that goes on working", async () => {
    for (const first of [undefined, hidden(0.05), hidden(1, true, "a thread wakes up")]) {
      const { rate, asked } = await processed(first, { hidden: hidden(1) });
      assertEquals([rate, asked], [undefined, []]);
    }
    // In the ramp, a tenth of the trial is allowed, and then three hundredths.
    assertEquals((await processed(hidden(0.15), {}, true)).asked, []);
    assertEquals((await processed(hidden(0.15), {}, false)).asked.length, 4);
  });

  test("is from a trial that is twice as long", async () => {
    const { rate, asked } = await processed(hidden(0.5), { hidden: hidden(1.2) });
    assertEquals(rate, 2 * RATE / 3.2);
    assertEquals(asked, [
      { judged: { verdict: "falls-behind" }, fresh: false },
      { rate: RATE, purpose: "work", longest: 2, seconds: 2 },
      { look: true },
      { judged: { verdict: "falls-behind" }, fresh: false },
    ]);
    // Where it still works, it is replaced.
    const busy = await processed(hidden(0.5, false), { hidden: hidden(3, false) });
    assertEquals([busy.rate, busy.asked[0], busy.asked[3]], [
      2 * RATE / 5,
      ...[0, 3].map(() => ({
        ...{ judged: { verdict: "falls-behind" }, fresh: true },
      })),
    ]);
    const { trials, lab } = trialsOf(() => ({ readers: [all], hidden: hidden(1) }));
    await trials.processed(RATE, { seconds: 0.25, hidden: hidden(0.5) }, true);
    assertEquals((lab.asked[1] as { longest: number }).longest, 1);
  });

  test("is not known where the second trial does not confirm the first", async () => {
    const { rate, asked } = await processed(hidden(0.5), { hidden: hidden(0.1) });
    assertEquals([rate, asked[3]], [
      ...[undefined, { judged: { verdict: "keeps-up" }, fresh: false }],
    ]);
    assertEquals((await processed(hidden(0.5), { hidden: hidden(0.5) })).rate, undefined);
    // Unless its buffers were full.
    const blocked = (share: number) =>
      processed(hidden(0.5), { hidden: hidden(0.5), bytes: share * 2 * RATE });
    assertEquals((await blocked(0.95)).rate, undefined);
    assertEquals((await blocked(0.9)).rate, 0.9 * 2 * RATE / 2.5);
    const gone = await processed(hidden(0.5), { ended: "behind", endsAt: 1, hidden: hidden(2) });
    const inconclusive = { judged: { verdict: "inconclusive" as const }, fresh: false };
    assertEquals([gone.rate, gone.asked.length, gone.asked[2]], [undefined, 3, inconclusive]);
    const unseen = await processed(hidden(0.5), {});
    assertEquals([unseen.rate, unseen.asked[3]], [undefined, inconclusive]);
  });

  test("is measured with as many offers as it takes", async () => {
    const work = { readers: [all], hidden: hidden(1.25) };
    const { trials, lab } = trialsOf((trial) =>
      trial < 3 ? work : { readers: [all], hidden: hidden(0) }
    );
    // 96,000 bytes a second for 2.5 s, and 1.25 s more.
    const { lower, upper, confirmed } = (await trials.processing(RATE))!;
    assertEquals([Math.round((lower + upper) / 2), confirmed], [RATE, true]);
    const offers = lab.asked.flatMap((each) => "purpose" in each ? each.longest : []);
    assertEquals(offers, [2.5, 2.5, 2.5, 2.5]);
  });
});
