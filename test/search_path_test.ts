/** Which rates the search tries, and what it makes of what it sees: over readers that do what they are told. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals } from "#std/assert";
import type { SearchPhase } from "../src/measure/lab.ts";
import { searchLimit } from "../src/measure/search.ts";
import { REASONS, type SearchOptions } from "../src/measure/search_result.ts";
import { type Script, ScriptedLab, type ScriptedReader } from "./scripted_lab.ts";

/** What a trial shows: with that rate, purpose, and number of trials with that purpose before it. */
type Answer = (rate: number, purpose: SearchPhase, before: number) => ScriptedReader | Script;

const keeps: ScriptedReader = () => ({});
/** It drains `speed`, and its backlog grows by a little less than what is left: `speed` is then estimated. */
const falls = (speed: number): ScriptedReader => (time, rate) => ({
  ...{ drained: speed * time, backlog: 0.85 * (rate - speed) * time },
});
const fallsBy = (blame: "sender" | "path", speed: number): ScriptedReader => (time, rate) => {
  const sample = falls(speed)(time, rate);
  return { ...sample, waiting: 0, late: blame === "sender" ? sample.backlog! : 0 };
};
/** Its backlog has grown, but does not any more. */
const unclear: ScriptedReader = (time) => ({ backlog: time < 0.03 ? 0 : 1e6 });
const stops = (speed: number, after: number): ScriptedReader => (time, rate) => {
  const drained = speed * Math.min(time, after);
  return { drained, backlog: rate * time - drained, closed: true };
};
const ends = (speed: number): Script => ({
  ...{ readers: [falls(speed)], ended: "behind", endsAt: 0.5 },
});
const hides = (seconds: number): Script => ({
  ...{ readers: [keeps], hidden: { seconds, quiet: true, background: undefined } },
});
/** It keeps up with up to so much. */
const upTo = (limit: number): Answer => (rate) => rate > limit ? falls(limit) : keeps;

/**
 * The search, and its trials as words: `ramp 64000 keeps-up`, with `fresh` where other readers follow;
 * without a number, readers were replaced between trials. Rates are rounded.
 */
async function search(answer: Answer, options: Partial<SearchOptions> = {}) {
  const counts = new Map<SearchPhase, number>();
  const lab = new ScriptedLab(1, (_, rate, purpose) => {
    const before = counts.get(purpose) ?? 0;
    counts.set(purpose, before + 1);
    const said = answer(rate, purpose, before);
    return typeof said === "function" ? { readers: [said] } : said;
  });
  const found = await searchLimit(lab, {
    ...{ startRate: 64_000, minRate: 1000, maxRate: Infinity, messageSize: 100 },
    ...{ precision: 0.01, confidence: 0.95, time: 60, ...options },
  });
  const trials: string[] = [];
  let settled = true;
  for (const each of lab.asked) {
    if ("rate" in each) {
      trials.push(`${each.purpose} ${Math.round(each.rate)}`);
      settled = false;
    } else if ("judged" in each) {
      const words = ` ${each.judged.verdict}${each.fresh ? " fresh" : ""}`;
      if (settled) trials.push(words.trim());
      else trials[trials.length - 1] += words;
      settled = true;
    }
  }
  const { outcome, lower, upper, reason, hidden } = found;
  const bounds = [Math.round(lower), upper === Infinity ? upper : Math.round(upper)];
  const offers = lab.asked.flatMap((each) => "rate" in each ? each : []);
  return { found, outcome, bounds, reason, hidden, trials, offers };
}

/** The ramp of a reader whose limit is 200,000 bytes a second. */
const RAMP = ["ramp 64000 keeps-up", "ramp 128000 keeps-up", "ramp 256000 falls-behind"];
/** What follows, if it drains as much. */
const SATURATED = [...RAMP, "saturate 220000 falls-behind", "inconclusive fresh"];
const PROBED = [...SATURATED, "bound 230575 falls-behind fresh"];
const LIMIT = 200_000;

describe("the search for a limit", () => {
  test("doubles, saturates, asks fresh readers for more, and confirms below", async () => {
    const { outcome, bounds, reason, trials, offers, found } = await search(upTo(LIMIT));
    assertEquals(trials, [...PROBED, "confirm 199001 keeps-up"]);
    assertEquals([outcome, bounds, reason], ["found", [199_500, 200_500], undefined]);
    const before = offers.slice(0, 3).reduce((sum, { seconds }) => sum + seconds, 0);
    const longest = offers.map((each) => each.longest);
    assertEquals(longest, [12, 12, 12, 50 - before, 6, 15]);
    assertEquals([found.pause, found.largestRead, found.slowest], [1 / 64, 3125, 0]);
    assertAlmostEquals(found.fastest(1), LIMIT, 1e-6);
    assert(offers.slice(0, 2).every(({ seconds }) => seconds < 1));
    assert(offers.at(-1)!.seconds >= 2);
  });

  test("tries once more where it drains less than it had kept up with", async () => {
    const { trials } = await search((rate, purpose, before) =>
      purpose === "ramp" && before === 2 ? falls(100_000) : upTo(300_000)(rate, purpose, before)
    );
    assertEquals(trials.slice(1, 5), [
      ...["ramp 128000 keeps-up", "ramp 256000 falls-behind", "ramp 256000 keeps-up"],
      "ramp 512000 falls-behind",
    ]);
    // What it had kept up with, or a little less, is no surprise.
    const little = await search((rate) => rate > 128_000 ? falls(0.91 * 128_000) : keeps);
    assertEquals(little.trials[3], "saturate 140800 falls-behind");
  });

  test("goes on to the middle of what is known, where the ramp's estimate was too low", async () => {
    const { trials, outcome, bounds } = await search((rate, purpose, before) =>
      purpose === "ramp" && rate > LIMIT ? falls(150_000) : upTo(LIMIT)(rate, purpose, before)
    );
    // 1.1 times the estimate; then the geometric mean of that and 256,000.
    assertEquals(trials.slice(3, 6), [
      ...["saturate 165000 keeps-up", "saturate 205524 falls-behind", "inconclusive fresh"],
    ]);
    assertEquals([outcome, bounds], ["found", [199_500, 200_500]]);
  });

  test("asks fresh readers for a little more, where it sees how they work", async () => {
    /** How long it goes on working; `fresh`: what fresh readers keep up with. */
    const seen = (worked: (rate: number) => number, fresh: number): Answer => (rate, purpose) => {
      const limit = purpose === "bound" ? fresh : LIMIT;
      const hidden = { seconds: worked(rate), quiet: true, background: undefined };
      return { readers: [rate > limit ? falls(limit) : keeps], hidden };
    };
    const steady = await search(seen(() => 0, LIMIT));
    // 3 % above 200,500.
    assertEquals(steady.trials[5], "bound 206515 falls-behind fresh");
    assertEquals(steady.outcome, "found");
    const faster = await search(seen(() => 0, 210_000));
    assertEquals(faster.trials.slice(5, 7), Array(2).fill("bound 206515 keeps-up fresh"));
    assertEquals([faster.outcome, faster.reason], ["irregular", REASONS.metastable]);
    // A trial of that kind lets 1 to 2 % pass.
    assert(faster.bounds[0]! >= 206_515 && faster.bounds[0]! <= 1.02 * 210_000);
    const [once, again] = faster.offers.filter(({ purpose }) => purpose === "bound");
    assert(once!.seconds >= 1.5 && once!.seconds < 3 && again!.seconds >= 5.5);
    // Four tenths of the time for 3 % of 5.5 s: it has queued that.
    const queues = (share: number) =>
      search(seen((rate) => rate > 206_000 ? share * 0.03 * 5.5 : 0, 210_000));
    assertEquals((await queues(0.35)).outcome, "irregular");
    assertEquals((await queues(0.45)).outcome, "found");
  });

  test("begins between the lowest and the highest rate", async () => {
    const first = async (options: Partial<SearchOptions>) =>
      (await search(upTo(LIMIT), options)).trials[0];
    assertEquals(await first({ minRate: 100_000 }), "ramp 100000 keeps-up");
    assertEquals(await first({ maxRate: 50_000 }), "ramp 50000 keeps-up");
  });

  test("goes down to a quarter, or to what the reader has drained less a third", async () => {
    const { trials, outcome } = await search(upTo(3000));
    assertEquals(trials, [
      ...["ramp 64000 falls-behind", "ramp 2000 keeps-up", "ramp 4000 falls-behind"],
      ...["saturate 3300 falls-behind", "inconclusive fresh", "bound 3459 falls-behind fresh"],
      "confirm 2985 keeps-up",
    ]);
    assertEquals(outcome, "found");
    const fast = await search(upTo(50_000));
    assertEquals(fast.trials.slice(0, 4), [
      ...["ramp 64000 falls-behind", "ramp 16000 keeps-up", "ramp 32000 keeps-up"],
      "saturate 55000 falls-behind",
    ]);
    // Nothing is known of what it drains.
    const jumps: ScriptedReader = (time, rate) => ({ backlog: 2 * rate * time });
    const unknown = await search((rate) => rate > 50_000 ? jumps : upTo(10_000)(rate, "ramp", 0));
    assertEquals(unknown.trials[1], "ramp 16000 falls-behind");
  });

  test("goes up where the reader reads too seldom to tell", async () => {
    const never: ScriptedReader = (time, rate) => ({ drained: 0, backlog: rate * time });
    const { trials } = await search((rate) =>
      rate < 100_000 ? never : upTo(LIMIT)(rate, "ramp", 0)
    );
    assertEquals(trials.slice(0, 2), ["ramp 64000 inconclusive", "ramp 128000 keeps-up"]);
    const highest = await search(() => never, { maxRate: 64_000, minRate: 64_000 });
    assertEquals(highest.outcome, "below-range");
  });

  test("below the lowest rate: from a long trial", async () => {
    const { trials, outcome, bounds, reason, offers } = await search(upTo(2000), { minRate: 4000 });
    assertEquals(trials, [
      ...["ramp 64000 falls-behind", "ramp 4000 falls-behind", "confirm 4000 falls-behind"],
    ]);
    assertEquals([outcome, bounds, reason], ["below-range", [0, 4000], REASONS.tooSlow]);
    assertEquals(offers.map(({ longest }) => longest), [12, 12, 15]);
    // It keeps up in the long one.
    const again = await search(
      (rate, purpose) => rate > 4300 ? falls(4100) : purpose === "ramp" ? falls(3000) : keeps,
      { minRate: 4000 },
    );
    assertEquals(again.trials.slice(0, 4), [
      ...["ramp 64000 falls-behind", "ramp 4000 falls-behind", "confirm 4000 keeps-up"],
      "saturate 4400 falls-behind",
    ]);
  });

  test("up to the highest rate: a long trial there", async () => {
    const { trials, outcome, bounds, reason } = await search(() => keeps, { maxRate: 150_000 });
    assertEquals(trials, [
      ...["ramp 64000 keeps-up", "ramp 128000 keeps-up", "ramp 150000 keeps-up"],
      "confirm 150000 keeps-up",
    ]);
    assertEquals([outcome, bounds, reason], [
      ...["generator-limited", [150_000, Infinity], REASONS.highestRate],
    ]);
    const slower = await search(
      (_, purpose) => purpose === "ramp" ? keeps : falls(100_000),
      { maxRate: 150_000 },
    );
    assertEquals(slower.trials.slice(3, 5), [
      ...["confirm 150000 falls-behind", "saturate 148500 falls-behind"],
    ]);
    const vague = await search(
      (_, purpose) => purpose === "ramp" ? keeps : unclear,
      { maxRate: 150_000 },
    );
    assertEquals(
      vague.trials.slice(3),
      [150_000, 135_000, 121_500, 109_350].map((rate) => `confirm ${rate} inconclusive`),
    );
    assertEquals([vague.outcome, vague.bounds, vague.reason], [
      ...["irregular", [0, 109_350], REASONS.unclear],
    ]);
  });

  test("that our sender or the path has: to within a tenth", async () => {
    for (
      const [blame, outcome, reason] of [
        ["sender", "generator-limited", REASONS.senderLimit],
        ["path", "path-limited", REASONS.pathLimit],
      ] as const
    ) {
      const found = await search((rate) => rate > 150_000 ? fallsBy(blame, 150_000) : keeps);
      // 0.97 times what was drained, then the middle (geometric) of what it kept up with and not.
      assertEquals(found.trials, [
        ...[...RAMP, "ramp 145500 keeps-up", "ramp 192997 falls-behind"],
        ...["ramp 167574 falls-behind", "ramp 156148 keeps-up"],
        ...["confirm 156148 falls-behind", "confirm 140533 keeps-up"],
      ]);
      assertEquals([found.outcome, found.bounds, found.reason], [
        ...[outcome, [140_533, Infinity], reason],
      ]);
    }
  });

  test("that our sender seems to have, and the reader has", async () => {
    // Above that, the sender is slower still.
    const { trials, outcome } = await search((rate) =>
      rate > 230_000 ? fallsBy("sender", 210_000) : upTo(150_000)(rate, "ramp", 0)
    );
    assertEquals(trials.slice(2, 5), [
      ...["ramp 256000 falls-behind", "ramp 203700 falls-behind", "saturate 165000 falls-behind"],
    ]);
    assertEquals(outcome, "found");
    const late = await search((rate, purpose) =>
      purpose === "confirm" && rate > 140_000
        ? falls(130_000)
        : rate > 150_000
        ? fallsBy("sender", 150_000)
        : keeps
    );
    assertEquals(late.trials.slice(7, 9), [
      ...["confirm 156148 falls-behind", "saturate 154586 inconclusive"],
    ]);
  });
});

describe("a saturated reader that", () => {
  /** As usual but for the trials that are to saturate it. */
  const saturated =
    (answer: (before: number, rate: number) => ScriptedReader | Script): Answer =>
    (rate, purpose, before) =>
      purpose === "saturate" ? answer(before, rate) : upTo(LIMIT)(rate, purpose, before);

  test("catches up is faster: twice, and the ramp goes on", async () => {
    const once = await search(
      saturated((before, rate) => before === 0 ? keeps : falls(0.9 * rate)),
    );
    assertEquals(once.trials.slice(3, 6), [
      ...["saturate 220000 keeps-up", "saturate 242000 falls-behind", "inconclusive fresh"],
    ]);
    const twice = await search(saturated((before) => before < 2 ? keeps : falls(LIMIT)));
    // It drains less than it has kept up with: that is tried once more.
    assertEquals(twice.trials.slice(3, 8), [
      ...["saturate 220000 keeps-up", "saturate 242000 keeps-up", "ramp 484000 falls-behind"],
      ...["ramp 484000 falls-behind", "saturate 266200 falls-behind"],
    ]);
    const highest = await search(saturated(() => keeps), { maxRate: 210_000 });
    assertEquals([highest.outcome, highest.reason, highest.bounds], [
      ...["generator-limited", REASONS.highestRate, [210_000, Infinity]],
    ]);
  });

  test("is never saturated has no limit that is known", async () => {
    // It begins, but stays small.
    const lost = { readers: [keeps], ended: "lost", endsAt: 1 } as const;
    const { trials, outcome, bounds, reason } = await search(saturated(() => lost));
    assertEquals(trials, [...RAMP, ...Array(3).fill("saturate 220000 inconclusive")]);
    assertEquals([outcome, bounds, reason], [
      ...["irregular", [128_000, 256_000], REASONS.neverBehind],
    ]);
    const short = await search(saturated(() => lost), { time: 7.5 });
    assertEquals([short.reason, short.trials.length], [REASONS.outOfTime, 4]);
  });

  test("others keep from it: what they can", async () => {
    const { trials, outcome } = await search((rate, purpose) =>
      purpose === "saturate" || rate > 210_000 && rate < 250_000
        ? fallsBy("path", 180_000)
        : upTo(LIMIT)(rate, purpose, 0)
    );
    // The ramp has fallen behind by itself, so the bounds are those.
    assertEquals(trials.slice(3, 6), [
      ...["saturate 220000 inconclusive", "ramp 194000 keeps-up", "ramp 206591 keeps-up"],
    ]);
    assertEquals(outcome, "path-limited");
  });

  test("ends its connection, twice, is asked with fresh ones", async () => {
    const { trials, outcome, bounds, reason } = await search((rate) =>
      rate > LIMIT ? ends(LIMIT) : keeps
    );
    assertEquals(trials, [
      ...[...RAMP.slice(0, 2), "ramp 256000 falls-behind fresh"],
      ...["saturate 220000 inconclusive fresh", "bound 128000 keeps-up fresh"],
      ...["bound 181019 keeps-up fresh", "bound 215269 falls-behind fresh"],
      ...["bound 197403 keeps-up fresh", "bound 206143 falls-behind fresh"],
    ]);
    assertEquals([outcome, bounds, reason], ["irregular", [197_403, 206_143], REASONS.ends]);
    const once = await search(saturated((before) => before === 0 ? ends(LIMIT) : falls(LIMIT)));
    assertEquals(once.trials.slice(3, 5), [
      ...["saturate 220000 falls-behind fresh", "saturate 220000 falls-behind"],
    ]);
    const ramp = await search((rate) => rate > 40_000 ? ends(40_000) : keeps);
    assertEquals(ramp.trials.slice(0, 5), [
      ...["ramp 64000 falls-behind fresh", "ramp 16000 keeps-up", "ramp 32000 keeps-up"],
      ...["saturate 44000 inconclusive fresh", "bound 32000 keeps-up fresh"],
    ]);
  });

  test("stops reading is asked with fresh ones", async () => {
    const inRamp = await search((rate) => rate > LIMIT ? stops(LIMIT, 1 / 64) : keeps);
    assertEquals(inRamp.trials.slice(2, 4), [
      ...["ramp 256000 falls-behind fresh", "inconclusive fresh"],
    ]);
    assertEquals([inRamp.outcome, inRamp.reason], ["irregular", REASONS.stops]);
    const later = await search(saturated(() => stops(LIMIT, 1)));
    assertEquals(later.trials.slice(3, 7), [
      ...[
        "saturate 220000 falls-behind fresh",
        "inconclusive fresh",
        "bound 128000 keeps-up fresh",
      ],
      "bound 167809 keeps-up fresh",
    ]);
    assertEquals([later.bounds[0]! >= 190_000, later.reason], [true, REASONS.stops]);
  });

  test("collapses is metastable, if fresh ones keep up with more", async () => {
    const collapsed = await search(saturated(() => falls(50_000)));
    assertEquals(collapsed.trials.slice(3, 7), [
      ...["saturate 220000 falls-behind", "inconclusive fresh", "bound 128000 keeps-up fresh"],
      "bound 181019 keeps-up fresh",
    ]);
    assertEquals([collapsed.outcome, collapsed.reason], ["irregular", REASONS.metastable]);
    // It drains more than half of that, and less than nine tenths.
    const less = await search(saturated(() => falls(114_000)));
    assertEquals(less.reason, REASONS.metastable);
    assertEquals(less.trials[5], "bound 128000 keeps-up fresh");
    const enough = await search(saturated(() => falls(116_000)));
    assertEquals(enough.trials.slice(4, 6), ["inconclusive fresh", "bound 133734 keeps-up fresh"]);
    // Fresh ones do not keep up with that either: 128,000 was a mistake.
    const mistake = await search((rate, purpose, before) =>
      purpose === "saturate" && before === 0
        ? falls(50_000)
        : purpose === "ramp"
        ? upTo(LIMIT)(rate, purpose, before)
        : upTo(55_000)(rate, purpose, before)
    );
    assertEquals(mistake.trials.slice(5, 11), [
      ...[128_000, 102_400, 81_920, 65_536].map((rate) => `bound ${rate} falls-behind fresh`),
      ...["bound 52429 keeps-up fresh", "saturate 57672 keeps-up"],
    ]);
  });

  test("drains less than fresh ones keep up with is metastable", async () => {
    // Fresh ones keep up with 230,575, and with that again.
    const { trials, outcome, reason, bounds } = await search((rate, purpose) =>
      purpose === "bound" && rate < 240_000 ? keeps : upTo(LIMIT)(rate, purpose, 0)
    );
    assertEquals(trials.slice(4), [
      ...["inconclusive fresh", "bound 230575 keeps-up fresh", "bound 230575 keeps-up fresh"],
      ...["bound 242955 falls-behind fresh", "bound 236684 keeps-up fresh"],
    ]);
    assertEquals([outcome, reason, bounds], ["irregular", REASONS.metastable, [236_684, 242_955]]);
    const once = await search((rate, purpose, before) =>
      purpose === "bound" && before === 0 ? keeps : upTo(LIMIT)(rate, purpose, 0)
    );
    assertEquals(once.trials.slice(5), [
      ...["bound 230575 keeps-up fresh", "bound 230575 falls-behind fresh"],
      "confirm 199001 keeps-up",
    ]);
    const highest = await search(saturated(() => falls(LIMIT)), { maxRate: 225_000 });
    assertEquals(highest.trials.slice(2, 6), [
      ...["ramp 225000 inconclusive", "saturate 220000 falls-behind", "inconclusive fresh"],
      "bound 225000 falls-behind fresh",
    ]);
  });

  test("becomes slower or faster the longer it runs has no limit", async () => {
    const drifts = (share: number): ScriptedReader => (time, rate) => {
      const drained = 0.85 * LIMIT * (time + share * time * time);
      return { drained, backlog: rate * time - drained };
    };
    const slower = await search(saturated(() => drifts(-0.008)));
    assertEquals([slower.outcome, slower.reason], ["irregular", REASONS.slows]);
    assert(slower.found.drift!.last < slower.found.drift!.first);
    const faster = await search(saturated(() => drifts(0.004)));
    assertEquals([faster.outcome, faster.reason], ["irregular", REASONS.speedsUp]);
  });

  test("varies so much that nothing is known of it has no limit that could be confirmed", async () => {
    const once: ScriptedReader = (time, rate) => {
      const drained = 0.9 * LIMIT * Math.min(time, 4) + 100 * time;
      return { drained, backlog: rate * time - drained };
    };
    const { outcome, reason, bounds } = await search(saturated(() => once), { time: 17 });
    assertEquals([outcome, reason, bounds[0]], ["irregular", REASONS.varies, 128_000]);
  });

  test("pauses is offered more", async () => {
    const pausing: ScriptedReader = (time, rate) => {
      const drained = rate * Math.floor(time * 16) / 16;
      return { drained, backlog: rate * time - drained };
    };
    const { trials } = await search((rate) => rate > LIMIT ? falls(LIMIT) : pausing);
    assertEquals(trials[3], "saturate 260000 falls-behind");
  });
});

describe("just below the limit, a reader", () => {
  /** As usual, and in the first trials below it falls behind. */
  const confirmed = (fails: number) =>
    search((rate, purpose, before) =>
      purpose === "confirm" && before < fails ? falls(0.9 * rate) : upTo(LIMIT)(rate, purpose, 0)
    );
  const below = (fails: number) =>
    Array.from({ length: Math.min(fails + 1, 4) }, (_, step) => {
      const rate = Math.round(199_500 * 0.9975 * 0.98 ** step);
      return `confirm ${rate} ${step < fails ? "falls-behind fresh" : "keeps-up"}`;
    });

  test("that keeps up only at the second rate has a wider interval", async () => {
    const { trials, outcome, bounds, reason, found } = await confirmed(1);
    assertEquals(trials, [...PROBED, ...below(1)]);
    assertEquals([outcome, bounds, reason], ["found", [195_021, 200_500], REASONS.varies]);
    assert(found.needs! > 10 && found.needs! < 20, `${found.needs}`);
  });

  test("that keeps up only at the third has none, nor one that does not at all", async () => {
    const third = await confirmed(2);
    assertEquals(third.trials, [...PROBED, ...below(2)]);
    assertEquals([third.outcome, third.bounds, third.reason], [
      ...["irregular", [191_121, 200_500], REASONS.slowerBelow],
    ]);
    const never = await confirmed(4);
    assertEquals(never.trials, [...PROBED, ...below(4)]);
    assertEquals([never.outcome, never.bounds, never.reason], [
      ...["irregular", [0, 200_500], REASONS.slowerBelow],
    ]);
  });
});

describe("a reader that goes on working", () => {
  /** It works on 100,000 bytes a second; its socket takes all. */
  const works = (rate: number): Script => ({
    readers: [keeps],
    hidden: (seconds) => ({
      ...{ seconds: Math.max(0, rate / 100_000 - 1) * seconds, quiet: true, background: undefined },
    }),
  });

  test("is measured by that, from the ramp on", async () => {
    const { trials, outcome, hidden, bounds } = await search(works);
    assertEquals(trials.slice(1, 4), [
      ...["ramp 128000 keeps-up", "ramp 256000 falls-behind", "work 256000 falls-behind"],
    ]);
    assertEquals([outcome, hidden], ["found", true]);
    assert(bounds[0]! < 100_000 && bounds[1]! > 99_000, `${bounds}`);
    const endless = await search((rate) =>
      rate > 100_000
        ? { readers: [keeps], hidden: { seconds: 5, quiet: false, background: undefined } }
        : keeps
    );
    assertEquals([endless.outcome, endless.reason, endless.hidden], [
      ...["irregular", REASONS.noEnd, true],
    ]);
    assertEquals(endless.bounds[0], 0);
    const behind = await search((rate, purpose) =>
      purpose === "work" ? hides(2.5) : rate > 100_000 ? hides(0.5) : keeps
    );
    assertEquals([behind.outcome, behind.reason, behind.hidden], [
      ...["irregular", REASONS.slowerBelow, true],
    ]);
  });

  test("is noticed in any other trial", async () => {
    for (const purpose of ["confirm", "bound", "saturate"] as const) {
      const { outcome, hidden, trials } = await search((rate, now, before) =>
        now === "work" ? works(rate) : now !== purpose ? upTo(LIMIT)(rate, now, before) : hides(2)
      );
      assertEquals([outcome, hidden], ["found", true], `${purpose}: ${trials}`);
      assert(trials.some((trial) => trial.startsWith(purpose)));
    }
    const highest = await search(
      (rate, now) => now === "work" ? works(rate) : now === "confirm" ? hides(2) : keeps,
      { maxRate: 150_000 },
    );
    assertEquals([highest.outcome, highest.hidden], ["found", true]);
  });
});

test("without time, the search ends with what it has", async () => {
  const { trials, outcome, reason, bounds } = await search(
    (rate, purpose) => purpose === "saturate" ? keeps : upTo(LIMIT)(rate, purpose, 0),
    { time: 10 },
  );
  assertEquals(trials, [...RAMP, "saturate 220000 keeps-up", "saturate 242000 keeps-up"]);
  assertEquals([outcome, reason, bounds], ["irregular", REASONS.outOfTime, [242_000, Infinity]]);
});
