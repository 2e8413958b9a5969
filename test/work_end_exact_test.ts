/** When a reader's work ended, to the window: from made-up windows of exactly 10 ms. */
import { describe, test } from "node:test";
import { assertEquals } from "#std/assert";
import type { ThreadWork, WorkWindow } from "../src/measure/thread_background.ts";
import { WorkEnd, type WorkEndOptions } from "../src/measure/work_end.ts";

/** Idle for 1 s, then messages until `STOP`, of which the last is taken then. ms. */
const START = 1000;
const STOP = 3000;

describe("the end of a reader's work, exactly", () => {
  type Does = (ms: number) => ThreadWork[];
  const grid = (fromMs: number, toMs: number, does: Does): WorkWindow[] =>
    Array.from({ length: (toMs - fromMs) / 10 }, (_, i) => {
      const ms = fromMs + 10 * i;
      return { fromMs: ms, toMs: ms + 10, work: does(ms).filter((w) => w.switches + w.cpuNs > 0) };
    });
  const switched = (switches: number, thread = 0): ThreadWork => ({ thread, switches, cpuNs: 0 });
  const computed = (cpuNs: number, thread = 0): ThreadWork => ({ thread, switches: 0, cpuNs });
  /** Each so many windows. */
  const eachTime = (ms: number, every: number, work: ThreadWork) => ms % every === 0 ? [work] : [];

  interface Exact {
    busy?: Does;
    idle?: Does;
    names?: string[];
    options?: Partial<WorkEndOptions>;
  }

  const usual: Does = () => [switched(10)];
  const endOf = ({ busy = usual, idle = () => [], names = ["a", "b"], options }: Exact = {}) =>
    new WorkEnd({
      idle: grid(0, START, idle),
      busy: grid(START, STOP, busy),
      ...{ names, fromMs: STOP, ...options },
    });

  /** When the work ended, and when that was known. */
  function ended(after: Does, exact: Exact = {}, untilMs = 10_000) {
    const end = endOf(exact);
    for (const window of grid(STOP, untilMs, after)) {
      end.push(window);
      if (end.state.quiet) return [end.state.endMs, window.toMs];
    }
    return [end.state.endMs, Infinity];
  }

  /** It works on for half a second, and then in some windows: so many switches in each. */
  const then = (switches: number, ...at: number[]): Does => (ms) =>
    ms < 3500 ? [switched(10)] : at.includes(ms) ? [switched(switches)] : [];
  const windows = (count: number, fromMs: number) =>
    Array.from({ length: count }, (_, i) => fromMs + 10 * i);

  test("a silence is five times as long as the gaps at work, and a quarter of a second", () => {
    const quiet = (busy: Does, options?: Partial<WorkEndOptions>) =>
      endOf(options === undefined ? { busy } : { busy, options }).quietMs;
    const seldom = (every: number): Does => (ms) => eachTime(ms, every, switched(10));
    assertEquals([quiet(usual), quiet(seldom(100)), quiet(seldom(500))], [250, 450, 2000]);
    assertEquals(quiet(usual, { shortestQuietMs: 300 }), 300);
    assertEquals(quiet(seldom(500), { longestQuietMs: 700 }), 700);
    assertEquals(quiet(usual, { longestQuietMs: 100 }), 100);
  });

  test("a thread's own gaps count, if it does some of the work, up to 200 ms", () => {
    /** One works all the time, with 970 switches in all; the other each so often. */
    const both = (every: number, work: ThreadWork) =>
      endOf({
        busy: (ms) => [
          ...[switched(ms < 1970 ? 10 : 0)],
          ...eachTime(ms, every, work),
        ],
      }).quietMs;
    // After the first one has ended, the gaps of all together are those of the other one.
    const hides = (work: ThreadWork, every = 100, names = ["a", "b"]) =>
      endOf({
        names,
        busy: (ms) => [{ ...switched(5), cpuNs: 1e6 }, ...eachTime(ms, every, work)],
      }).quietMs;
    assertEquals(both(100, switched(10, 1)), 450);
    // 1000 switches of the first one, and 20 times as many: 3 % of all are 31.
    assertEquals([hides(switched(2, 1)), hides(switched(1, 1))], [450, 250]);
    assertEquals(hides(switched(30, 1), 400), 1000);
    // One that computes has no gaps to speak of.
    assertEquals(hides(computed(1e8, 1)), 250);
    assertEquals(hides(switched(2, 1), 100, ["a", "GC Thread#0"]), 250);
  });

  test("it ends in the middle of the last window with work", () => {
    assertEquals(ended(() => []), [STOP, STOP + 250]);
    assertEquals(ended(then(0)), [3495, 3750]);
    assertEquals(ended((ms) => ms < 3500 ? [computed(1)] : []), [3495, 3750]);
  });

  test("what comes alone after 50 ms is no work, but the silence begins anew", () => {
    assertEquals(ended(then(10, 3540)), [3545, 3800]);
    assertEquals(ended(then(10, 3550)), [3495, 3810]);
    assertEquals(ended(then(10, 3550, 3620)), [3495, 3880]);
    // With three gaps as they are usual, if those are longer.
    const seldom: Exact = { busy: (ms) => eachTime(ms, 50, switched(10)) };
    assertEquals(ended((ms) => ms === STOP || ms === STOP + 120 ? [switched(10)] : [], seldom), [
      ...[STOP + 125, STOP + 380],
    ]);
    assertEquals(ended((ms) => ms === STOP || ms === STOP + 130 ? [switched(10)] : [], seldom), [
      ...[STOP + 5, STOP + 390],
    ]);
  });

  test("what comes three times is work, if it is a fifth of what it was", () => {
    // A switch each ms: 40 in 200 ms. The silence before them was 50 ms: five of those end the work.
    assertEquals(ended(then(14, 3550, 3620, 3690)), [3695, 3950]);
    assertEquals(ended(then(13, 3550, 3620, 3690)), [3495, 3750]);
    const nanoseconds = (each: number): Does => (ms) =>
      ms < 3500 ? [computed(1e6)] : [3550, 3620, 3690].includes(ms) ? [computed(each)] : [];
    const busy: Exact = { busy: () => [computed(1e6)] };
    assertEquals(ended(nanoseconds(1.4e6), busy)[0], 3695);
    assertEquals(ended(nanoseconds(1.3e6), busy)[0], 3495);
  });

  test("so is what fills ten windows", () => {
    assertEquals(ended(then(4, ...windows(10, 3600))), [3695, 4200]);
    assertEquals(ended(then(3, ...windows(10, 3600)))[0], 3495);
    assertEquals(ended(then(4, ...windows(9, 3600)))[0], 3495);
  });

  test("and five, if they are half as full as at work", () => {
    assertEquals(ended(then(5, ...windows(5, 3600))), [3645, 4150]);
    assertEquals(ended(then(4, ...windows(5, 3600))), [3495, 3900]);
    assertEquals(ended(then(5, ...windows(4, 3600))), [3495, 3890]);
    // Not of CPU time, as a collection has.
    const collects: Does = (ms) =>
      ms < 3500 || ms >= 3600 && ms < 3650 ? [{ thread: 0, switches: 0, cpuNs: 1e6 }] : [];
    assertEquals(ended(collects, { busy: () => [computed(1e6)] })[0], 3495);
  });

  test("a thread that housekeeps does no work", () => {
    const names = ["a", "G1 Conc#0"];
    const collects: Does = (ms) => [...then(0)(ms), switched(20, 1)];
    assertEquals(ended(collects, { names }), [3495, 3750]);
  });

  test("a background is no work, and twice as much in a window of twice the length neither", () => {
    const ticks: Does = () => [switched(2)];
    const more: Exact = { idle: ticks, busy: () => [switched(12)] };
    const after = (switches: number): Does => (ms) => [switched(ms < 3500 ? 12 : switches)];
    assertEquals(ended(after(2), more)[0], 3495);
    // One more is no work in a single window, but it is in the long run.
    assertEquals(ended(after(3), more, 5000), [4875, Infinity]);
    const end = endOf(more);
    end.push({ fromMs: STOP, toMs: STOP + 20, work: [switched(6)] });
    assertEquals(end.state.endMs, STOP);
    end.push({ fromMs: STOP + 20, toMs: STOP + 40, work: [switched(7)] });
    assertEquals(end.state.endMs, STOP + 30);
  });

  test("with too little work to compare with, all counts", () => {
    const short: Exact = { options: { busy: grid(START, START + 190, usual) } };
    assertEquals(endOf(short).background, undefined);
    assertEquals(ended(then(10), short), [3495, 3750]);
    const same: Does = () => [switched(2)];
    const background = (windows: number) =>
      endOf({ idle: same, options: { busy: grid(START, START + 10 * windows, same) } }).background;
    assertEquals([background(19) === undefined, background(20) === undefined], [true, false]);
  });
});
