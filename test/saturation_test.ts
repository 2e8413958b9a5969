/** One trial above the estimated limit, over readers that do what they are told. */
import { describe, test } from "node:test";
import { assert, assertAlmostEquals, assertEquals } from "#std/assert";
import { saturate, type SaturationOptions } from "../src/measure/saturation.ts";
import { SearchTrials } from "../src/measure/search_trials.ts";
import { drains, type Script, ScriptedLab, type ScriptedReader, STEP } from "./scripted_lab.ts";

const RATE = 64_000;
/** From that sample on its backlog counts. */
const BEGAN = 20 * STEP;

interface More extends Partial<Omit<Script, "readers">> {
  /** Seconds for the search. */
  time?: number;
  pause?: number;
  options?: Partial<SaturationOptions>;
}

async function saturated(readers: readonly ScriptedReader[], more: More = {}) {
  const { time = 60, pause, options, ...script } = more;
  const pausing: ScriptedReader = (at) => ({ drained: Math.floor(at / pause!), backlog: 1 });
  const lab = new ScriptedLab(
    readers.length,
    (_, rate) =>
      rate === RATE / 2 ? { readers: readers.map(() => pausing) } : { readers, ...script },
  );
  const trials = new SearchTrials(lab, { messageSize: 100, confidence: 0.95, time });
  if (pause !== undefined) {
    const plan = { tolerance: 2, leastSeconds: 4, longest: 12, pauses: 1, messages: 1 };
    await trials.try(RATE / 2, { purpose: "ramp", ...plan });
    lab.now = 0;
  }
  lab.asked.length = 0;
  const shown: { lower: number; upper: number; secondsLeft: number }[] = [];
  const saturation = await saturate(trials, {
    ...{ rate: RATE, estimate: 0.9 * RATE, kept: 0.5 * RATE, messageSize: 100 },
    ...{ precision: 0.01, confidence: 0.95, onInterval: (interval) => shown.push(interval) },
    ...options,
  });
  const { longest, seconds, purpose } = lab.asked[0] as Record<string, unknown>;
  return { saturation, shown, longest, seconds, purpose };
}

/** What it drains goes up and down by that share, with a period that no look is a multiple of. */
const varying = (speed: number, share: number): ScriptedReader => (time) => {
  const drained = speed * (time + share * Math.sin(5 * time) / 5);
  return { drained, backlog: RATE * time - drained };
};

describe("a saturated reader", () => {
  test("that is steady is known after 6 s, to a quarter of the precision to either side", async () => {
    const { saturation, shown, ...offer } = await saturated([drains(0.9 * RATE)]);
    assertEquals(offer, { longest: 50, seconds: BEGAN + 6, purpose: "saturate" });
    assert(saturation.is === "measured");
    const { lower, upper, slowest, service, drift, needed } = saturation.found;
    assertAlmostEquals(lower, 0.9 * RATE * 0.9975, 1e-6);
    assertAlmostEquals(upper, 0.9 * RATE * 1.0025, 1e-6);
    assertEquals([slowest, drift, Math.round(service.seconds)], [0, undefined, 6]);
    assert(needed < 1e-9, `${needed}`);
    const [{ secondsLeft }] = shown as [typeof shown[0]];
    assertEquals(shown, [{ lower, upper, secondsLeft }]);
    assertAlmostEquals(secondsLeft, 10, 1e-9);
  });

  test("is looked at sooner where the time is short, later where it pauses or its messages are long", async () => {
    const looked = async (more: More) => {
      const { seconds, longest } = await saturated([drains(0.9 * RATE)], more);
      return [seconds as number - BEGAN, longest];
    };
    assertEquals(await looked({ time: 15 }), [5, 7.5]);
    assertEquals(await looked({ time: 12 }), [3, 4.5]);
    assertEquals(await looked({ time: 10 }), [3, 4.5]);
    assertEquals(await looked({ pause: 0.5 }), [8, 50]);
    assertEquals(await looked({ options: { messageSize: 500, estimate: 1000 } }), [10, 50]);
  });

  test("that varies is looked at until the end of the time, and it is told how long that is", async () => {
    const { saturation, shown, seconds } = await saturated([varying(0.8 * RATE, 0.25)]);
    assert(saturation.is === "measured");
    const { found } = saturation;
    // It was looked at after 6, 12, 24 and 48 s: see `Stretch`.
    const { mean, halfWidth } = found.service.estimate(0.05 * 0.5 * 48 / (12 + 24 + 48));
    assertEquals([found.lower, found.upper], [mean - halfWidth, mean + halfWidth]);
    assertAlmostEquals(found.needed, found.seconds * (halfWidth / (0.005 * mean)) ** 2, 1e-6);
    assertEquals([seconds, shown.length], [BEGAN + 48, 4]);
    // As long as the precision needs, or until the end of the time.
    shown.forEach(({ secondsLeft }, i) => assertAlmostEquals(secondsLeft, 60 - 6 * 2 ** i, 0.1));
  });

  test("is known as soon as it is narrow enough, or at the end of the time; never below 0", async () => {
    for (const [share, looks] of [[0.009, 1], [0.01, 2]] as const) {
      const { saturation, shown } = await saturated([varying(0.8 * RATE, share)]);
      assert(saturation.is === "measured");
      assertEquals(shown.length, looks);
    }
    const once: ScriptedReader = (time) => {
      const drained = 0.2 * RATE * Math.min(time, 1) + time;
      return { drained, backlog: RATE * time - drained };
    };
    // It has no backlog until then: its first look would be after the end of the time.
    const late: ScriptedReader = (time) => {
      const drained = time < 1.75 ? RATE * time : RATE * 1.75 + 0.8 * RATE * (time - 1.75);
      return { drained, backlog: RATE * time - drained };
    };
    const ends = await saturated([late], { time: 12 });
    assertEquals([ends.saturation.is, ends.seconds], ["measured", 4.5]);
    const { saturation } = await saturated([once], { options: { kept: 0 }, time: 17 });
    assert(saturation.is === "measured");
    assertEquals(saturation.found.lower, 0);
  });

  test("of several: the slowest, with the lowest bounds of all", async () => {
    const speeds = [0.9, 0.8, 0.85];
    const { saturation, shown } = await saturated(speeds.map((share) => drains(share * RATE)));
    assert(saturation.is === "measured");
    const { lower, upper, slowest } = saturation.found;
    assertEquals(slowest, 1);
    assertAlmostEquals(lower, 0.8 * RATE * 0.9975, 1e-6);
    assertAlmostEquals(upper, 0.8 * RATE * 1.0025, 1e-6);
    const alike = await saturated([drains(0.8 * RATE), drains(0.8 * RATE)]);
    assert(alike.saturation.is === "measured");
    assertEquals(alike.saturation.found.slowest, 0);
    // Only once all of them are known.
    assertEquals(shown.length, 1);
    const joined = await saturated([drains(0.8 * RATE), drains(2 * RATE)]);
    assert(joined.saturation.is === "measured");
    assertEquals([joined.saturation.found.slowest, joined.shown], [0, []]);
    // The error is shared by the readers.
    const noisy = [varying(0.8 * RATE, 0.25), varying(0.85 * RATE, 0.25)];
    const both = await saturated(noisy, { time: 16 });
    assert(both.saturation.is === "measured");
    const { service } = both.saturation.found;
    const { mean, halfWidth } = service.estimate(0.05 / 2);
    assertEquals(both.saturation.found.upper, mean + halfWidth);
  });

  test("tells of a change", async () => {
    const slows: ScriptedReader = (time) => {
      const drained = 0.9 * RATE * (time - 0.01 * time ** 2);
      return { drained, backlog: RATE * time - drained };
    };
    const { saturation } = await saturated([drains(0.95 * RATE), slows]);
    assert(saturation.is === "measured");
    const { first, last } = saturation.found.drift!;
    assert(last < 0.95 * first, `${first} ${last}`);
  });

  test("may have ended its connection, or stopped, or collapsed, or caught up", async () => {
    const steady = drains(0.9 * RATE);
    const gone = await saturated([steady], { ended: "behind", endsAt: 1 });
    assertEquals(gone.saturation, { is: "ended" });
    const lost = await saturated([steady], { ended: "lost", endsAt: 5 });
    assertEquals(lost.saturation, { is: "unknown", blame: "reader" });
    const stops: ScriptedReader = (time) => ({
      ...{
        drained: RATE * Math.min(time, 1),
        backlog: RATE * Math.max(0.5, time - 1),
        closed: true,
      },
    });
    const stopped = await saturated([steady, stops], { options: { kept: 0 } });
    assertEquals([stopped.saturation, stopped.seconds], [{ is: "stopped" }, 3 + STEP]);
    const collapsed = await saturated([steady, drains(0.2 * RATE)]);
    assert(collapsed.saturation.is === "collapsed");
    assertAlmostEquals(collapsed.saturation.drained, 0.2 * RATE, 1e-6);
    assertEquals(collapsed.seconds, 2 + STEP);
    const caught = await saturated([drains(2 * RATE), drains(3 * RATE)]);
    assertEquals(caught.saturation, { is: "caught-up", seconds: 2 + STEP });
  });

  test("may be kept from its backlog by others", async () => {
    const path: ScriptedReader = (time) => ({ ...drains(0.9 * RATE)(time, RATE), waiting: 0 });
    const late: ScriptedReader = (time) => ({ ...path(time, RATE), late: 0.1 * RATE * time });
    const fast = drains(2 * RATE);
    for (const [reader, blame] of [[path, "path"], [late, "sender"]] as const) {
      const { saturation } = await saturated([fast, reader]);
      assertEquals(saturation, { is: "unknown", blame });
    }
  });
});
