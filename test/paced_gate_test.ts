/** Lumps with gaps for a reader whose window alone is seen: with a clock and a reader of the test's own. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertGreater, assertLess } from "#std/assert";
import { PacedGate } from "../src/send/paced_gate.ts";
import type { UnreadEvent } from "../src/send/unread.ts";

const KIB = 1024;
const TURNS = 20;
/** What is unread shows in the window only beyond this. */
const SLACK = 128 * KIB;

/** A reader on another host, and a sender that always has more, with a tick each millisecond. */
class RemoteReader {
  readonly events: UnreadEvent[] = [];
  readonly gate: PacedGate;
  nowMs = 0;
  unread = 0;
  read = 0;
  #gathered = 0;
  #assumed = 0;
  /** Bytes a second, by what it has gathered. */
  speed: (gathered: number) => number;

  constructor(speed: (gathered: number) => number) {
    this.speed = speed;
    this.gate = new PacedGate({
      view: {
        unread: () => Math.max(0, this.unread - SLACK - this.#assumed),
        took: (bytes) => this.unread += bytes,
        hides: SLACK,
        assumeRead: () => this.#assumed = Math.max(0, this.unread - SLACK),
      },
      wake() {},
      onEvent: (event) => this.events.push(event),
      now: () => this.nowMs,
    });
  }

  /** `rate`: bytes a second that are there to be sent, default always more. */
  run(seconds: number, rate = Infinity): void {
    let owed = 0;
    for (const endMs = this.nowMs + 1000 * seconds; this.nowMs < endMs; this.nowMs++) {
      owed = Math.min(Infinity, owed + rate / 1000);
      for (let room; owed > 0 && (room = this.gate.room()) > 0;) {
        assertEquals(room % 1, 0, "part of a byte");
        const bytes = Math.floor(Math.min(room, owed, 1 << 20, (6 << 20) - this.unread));
        if (bytes <= 0) break;
        this.gate.took(bytes);
        owed -= bytes;
      }
      if (owed < 1) this.gate.idle();
      for (let turn = 0; turn < TURNS; turn++) this.#readFor(1e-3 / TURNS);
      this.gate.tick(this.nowMs + 1);
    }
  }

  #readFor(seconds: number): void {
    const bytes = Math.min(this.unread, Math.ceil(this.speed(this.#gathered) * seconds));
    this.unread -= bytes;
    this.read += bytes;
    this.#gathered = this.unread === 0 ? 0 : this.#gathered + bytes;
  }

  /** What it reads in this time; bytes a second. */
  rateOver(seconds: number, rate = Infinity): number {
    const before = this.read;
    this.run(seconds, rate);
    return (this.read - before) / seconds;
  }
}

const steady = (rate: number) => () => rate;
const gathering = (limit: number, half: number) => (gathered: number) =>
  limit / (1 + gathered / half);

describe("a reader on another host", () => {
  for (const rate of [2e6, 50e6, 1e9]) {
    test(`that takes ${rate / 1e6} MB/s gets most of that`, () => {
      const reader = new RemoteReader(steady(rate));
      reader.run(3);
      assertGreater(reader.rateOver(5), 0.6 * rate);
    });
  }

  test("that is faster than the feed gets all of it", () => {
    const reader = new RemoteReader(steady(50e6));
    reader.run(1, 10e6);
    assertGreater(reader.rateOver(5, 10e6), 0.99 * 10e6);
    assertEquals(reader.events, []);
  });

  test("that gathers is kept fast, and not overrun for long", () => {
    const reader = new RemoteReader(gathering(50e6, 256 * KIB));
    reader.run(3);
    assertGreater(reader.rateOver(10), 0.4 * 50e6);
  });

  test("that was stopped is sent little meanwhile, and comes back; both are reported", () => {
    const reader = new RemoteReader(gathering(50e6, 256 * KIB));
    reader.run(2, 5e6);
    const { speed } = reader;
    reader.speed = steady(0);
    reader.run(4);
    assertLess(reader.unread, 2 << 20);
    reader.speed = speed;
    reader.run(2);
    assertGreater(reader.rateOver(3), 0.25 * 50e6);
    assert(reader.events.some(({ event }) => event === "held"));
    assert(reader.events.some(({ event }) => event === "released"));
  });
});
