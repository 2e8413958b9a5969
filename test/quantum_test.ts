/** The search for the size of quanta, with readers that are formulas: no clock, no connection. */
import { describe, test } from "node:test";
import { assertEquals, assertGreater, assertGreaterOrEqual, assertLess } from "#std/assert";
import { type Noticed, QuantumSearch } from "../src/send/quantum.ts";

const KIB = 1024;

/** Bytes a second of a reader that gets quanta of a size, at a time. */
type Speed = (size: number, seconds: number) => number;

/** A reader that is always sent the next quantum after its last one, from one call to the next. */
class MadeReader {
  readonly search: QuantumSearch;
  readonly #speed: Speed;
  readonly #noticed: Noticed;
  /** Seconds so far. */
  seconds = 0;

  constructor(
    speed: Speed,
    { fixed, noticed = "closely" }: { fixed?: number; noticed?: Noticed } = {},
  ) {
    this.search = new QuantumSearch(fixed);
    this.#speed = speed;
    this.#noticed = noticed;
  }

  /** Resolves with what it has read a second, in at least so many seconds. */
  run(seconds: number): number {
    const from = this.seconds;
    let read = 0;
    while (this.seconds < from + seconds) {
      const { size } = this.search;
      const took = size / this.#speed(size, this.seconds);
      this.seconds += took;
      read += size;
      this.search.measure(size, 1000 * took, this.#noticed);
    }
    return read / (this.seconds - from);
  }
}

/** What it reads of a quantum in, and then it needs so many ms until it is sent the next one. */
const after = (ms: number, rate: number): Speed => (size) => size / (size / rate + ms / 1000);

describe("the size of quanta", () => {
  test("is 16 KiB at first, and the fixed one always", () => {
    assertEquals(new QuantumSearch().size, 16 * KIB);
    const reader = new MadeReader(after(1, 1e9), { fixed: 5000 });
    reader.run(1);
    reader.search.grow(1 << 20);
    assertEquals(reader.search.size, 5000);
    assertEquals(Math.round(reader.search.rate), Math.round(after(1, 1e9)(5000, 0)));
    assertEquals(reader.search.usualMs, 1000 * (5000 / 1e9 + 1e-3));
  });

  test("grows while that helps, until a quantum takes long enough to wait for", () => {
    const closely = new MadeReader(after(0.05, 100e6));
    closely.run(1);
    assertEquals(closely.search.size, 512 * KIB);
    // 1 ms of 50 ms.
    const byTicks = new MadeReader(after(1, 100e6), { noticed: "by-ticks" });
    byTicks.run(5);
    assertEquals(byTicks.search.size, 8 << 20);
  });

  test("of a reader that acknowledges seldom has no other bound than what helps", () => {
    const reader = new MadeReader(after(1000, 100e6), { noticed: "by-acknowledgement" });
    reader.run(120);
    assertGreater(reader.search.size, 8 << 20);
    const worse = new MadeReader((size) => after(1, 100e6)(size, 0) * (size > 1 << 20 ? 0.5 : 1), {
      noticed: "by-acknowledgement",
    });
    worse.run(60);
    assertGreater(worse.run(30), 0.95 * after(1, 100e6)(1 << 20, 0));
  });

  test("is at most 256 MiB", () => {
    const reader = new MadeReader(after(0.05, 1e15), { noticed: "by-ticks" });
    reader.run(1);
    assertEquals(reader.search.size, 256 << 20);
  });

  test("is tried again and again where larger quanta make the reader collapse, for 2 % of its time", () => {
    // The article's fix: faster with more, up to a size.
    const speed: Speed = (size) => size > 64 * KIB ? 0.6e6 : 28e6 * size / (64 * KIB);
    const reader = new MadeReader(speed);
    assertGreater(reader.run(3), 0.7 * 28e6);
    const rates = [reader.run(30), reader.run(30), reader.run(60)];
    for (const rate of rates) assertGreater(rate, 0.97 * 28e6);
    // So it notices that the reader bears more.
    const better = new MadeReader((size, seconds) =>
      seconds < 30 ? speed(size, seconds) : 28e6 * size / (64 * KIB)
    );
    better.run(90);
    assertGreater(better.run(1), 50e6);
  });

  test("does not creep up where each step costs a little", () => {
    // Each doubling costs 4 %: after six of them it would be 22 %.
    const reader = new MadeReader((size) => 50e6 * 0.96 ** Math.log2(size / (16 * KIB)), {
      noticed: "by-ticks",
    });
    reader.run(10);
    assertGreater(reader.run(10), 0.94 * 50e6);
  });

  for (const at of [0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5]) {
    test(`does not stay small after a pause of the reader after ${1000 * at} ms`, () => {
      let paused = false;
      const reader = new MadeReader((size, seconds) => {
        const rate = 28e6 * Math.min(1, size / (64 * KIB));
        if (paused || seconds < at) return rate;
        paused = true;
        return size / (size / rate + 1);
      });
      // The pause itself is 1 s. What it costs in all is at most 1.5 s more.
      const seconds = 10;
      const bytes = reader.run(seconds) * seconds;
      assertGreater(bytes, 28e6 * (seconds - 2.5));
    });
  }

  test("follows a reader that becomes slow, and fast again", () => {
    const rate = (seconds: number) => seconds < 5 ? 200e6 : seconds < 10 ? 2e6 : 100e6;
    const reader = new MadeReader((size, seconds) => after(0.05, rate(seconds))(size, 0));
    reader.run(5);
    assertGreaterOrEqual(reader.search.size, 512 * KIB);
    assertGreater(reader.run(5), 0.95 * 2e6);
    reader.run(2);
    assertGreater(reader.run(1), 0.96 * 100e6);
  });

  test("comes back to smaller quanta once they are faster", () => {
    // What helps changes: at first the more the better, later the less.
    const reader = new MadeReader((size, seconds) =>
      seconds < 2 ? after(0.05, 50e6)(size, 0) : 50e6 / (1 + size / (128 * KIB))
    );
    reader.run(2);
    assertEquals(reader.search.size, 256 * KIB);
    reader.run(8);
    assertLess(reader.search.size, 64 * KIB);
    // 40 MB/s with 32 KiB, 44 with 16.
    assertGreater(reader.run(5), 0.75 * 50e6);
  });

  test("begins anew with the first size for a reader that stays slow after too much", () => {
    // As one whose memory is given back and asked for again with each quantum, until they are small.
    let isSlow = false;
    const reader = new MadeReader((size) => {
      if (size > 64 * KIB) isSlow = true;
      else if (size <= 16 * KIB) isSlow = false;
      return isSlow ? 0.3e6 : after(0.05, 100e6)(size, 0);
    });
    reader.run(1);
    assertGreater(reader.run(30), 0.85 * after(0.05, 100e6)(64 * KIB, 0));
  });

  test("grows for a reader that needs more at once", () => {
    const reader = new MadeReader(after(0.05, 1e6));
    reader.run(1);
    assertEquals(reader.search.size, 16 * KIB);
    reader.search.grow(10 * KIB);
    assertEquals(reader.search.size, 16 * KIB);
    reader.search.grow(300 * KIB);
    assertEquals(reader.search.size, 512 * KIB);
    // 8 GiB are more than the largest.
    reader.search.grow(8 * 2 ** 30);
    assertEquals(reader.search.size, 256 << 20);
  });
});
