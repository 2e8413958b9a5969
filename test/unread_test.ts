/** How much may lie unread at a reader: the decisions, with a clock and a reader of the test's own. */
import { describe, test } from "node:test";
import { assert, assertEquals, assertGreater, assertLessOrEqual } from "#std/assert";
import { type Unread, type UnreadEvent, UnreadGate } from "../src/send/unread.ts";

const KIB = 1024;
const TURNS = 20;

/** A reader of the test's own, and a sender that always has more, with a tick each millisecond. */
class MadeReader {
  readonly events: UnreadEvent[] = [];
  readonly gate: UnreadGate;
  nowMs = 0;
  unread = 0;
  /** What lay unread, at most. */
  most = 0;
  /** What it has read, and how often it had nothing left. */
  read = 0;
  gaps = 0;
  /** Read since it last had nothing to read. */
  #gathered = 0;
  /** Bytes a second, by what it has gathered. */
  speed: (gathered: number) => number;
  #looks: (() => void)[] = [];
  /** It reads nothing of a rest that is not larger than this. */
  leaves = 0;

  constructor(unread: Unread, speed: (gathered: number) => number) {
    this.speed = speed;
    this.gate = new UnreadGate({
      unread,
      view: {
        unread: () => this.unread,
        took: (bytes) => this.unread += bytes,
        byAcknowledgement: false,
      },
      wake() {},
      onEvent: (event) => this.events.push(event),
      now: () => this.nowMs,
      soon: (look) => this.#looks.push(look),
      looks: { close: 0 },
    });
  }

  /** Sends and reads for a time; `rate`: bytes a second that are there to be sent, default always more. */
  run(seconds: number, rate = Infinity): void {
    let owed = 0;
    for (const endMs = this.nowMs + 1000 * seconds; this.nowMs < endMs; this.nowMs++) {
      owed = Math.min(Infinity, owed + rate / 1000);
      // So many turns of the event loop between two ticks.
      const fromMs = this.nowMs;
      for (let turn = 0; turn < TURNS; turn++) {
        this.nowMs = fromMs + turn / TURNS;
        for (const look of this.#looks.splice(0)) look();
        owed -= this.#send(owed);
        this.most = Math.max(this.most, this.unread);
        this.#readFor(1e-3 / TURNS);
      }
      this.nowMs = fromMs;
      this.gate.tick(this.nowMs + 1);
    }
  }

  #send(owed: number): number {
    let sent = 0;
    for (let room; owed > sent && (room = this.gate.room()) > 0;) {
      assertEquals(room % 1, 0, "part of a byte");
      // A write takes at most a MiB, and the kernel holds 8.
      const bytes = Math.floor(Math.min(room, owed - sent, 1 << 20, (8 << 20) - this.unread));
      if (bytes <= 0) return sent;
      this.gate.took(bytes);
      sent += bytes;
    }
    if (owed <= sent) this.gate.idle();
    return sent;
  }

  #readFor(seconds: number): void {
    if (this.unread <= this.leaves) return;
    const bytes = Math.min(this.unread, Math.ceil(this.speed(this.#gathered) * seconds));
    this.unread -= bytes;
    this.read += bytes;
    this.#gathered += bytes;
    if (this.unread > 0) return;
    this.#gathered = 0;
    this.gaps++;
  }
}

const steady = (rate: number) => () => rate;
/** Each byte costs what the limit says, and a share of what was gathered: half as fast at `half`. */
const gathering = (limit: number, half: number) => (gathered: number) =>
  limit / (1 + gathered / half);

describe("a fixed size", () => {
  test("is never exceeded, and the reader gets a gap after each quantum", () => {
    const reader = new MadeReader(64 * KIB, steady(20e6));
    reader.run(1);
    assertLessOrEqual(reader.most, 64 * KIB);
    assertGreater(reader.gaps, reader.read / (64 * KIB) - 2);
    assertEquals(reader.gate.quantum, 64 * KIB);
  });

  test("is topped up for a reader that waits for more than it has", () => {
    const reader = new MadeReader(64 * KIB, steady(20e6));
    reader.leaves = 10 * KIB;
    reader.run(40);
    // It never has nothing to read: it gets more after it has read nothing for a second.
    assertGreater(reader.read, 5 * 64 * KIB);
    assertLessOrEqual(reader.most, 64 * KIB);
  });
});

describe("auto", () => {
  for (const rate of [1e6, 20e6, 300e6, 2e9]) {
    test(`costs a reader of ${rate / 1e6} MB/s at most 3 %`, () => {
      const reader = new MadeReader("auto", steady(rate));
      reader.run(1);
      const before = reader.read;
      reader.run(4);
      const share = (reader.read - before) / (4 * rate);
      assertGreater(share, 0.97, `${reader.gate.quantum}`);
    });
  }

  test("costs nothing where the reader is faster than the feed", () => {
    const reader = new MadeReader("auto", steady(50e6));
    reader.run(5, 10e6);
    assertGreater(reader.read, 0.99 * 50e6);
    assertEquals(reader.events, []);
  });

  test("stays at quanta that a reader that gathers takes fast", () => {
    const reader = new MadeReader("auto", gathering(50e6, 1 << 20));
    reader.run(2);
    const before = reader.read;
    reader.run(8);
    // In 4 MiB it takes 17 MB/s, and with no bound ever less.
    assertLessOrEqual(reader.gate.quantum, 2 << 20);
    assertGreater((reader.read - before) / 8, 0.85 * 50e6);
  });

  test("sends nothing to a reader that has collapsed until it has read all; reports both", () => {
    const reader = new MadeReader("auto", steady(50e6));
    reader.run(2);
    const { unread: most } = reader;
    reader.speed = steady(2e5);
    reader.run(0.6);
    assert(reader.unread <= Math.max(most, reader.gate.quantum));
    const [held] = reader.events;
    assertEquals(held?.event, "held");
    assert(
      held!.event === "held" && held!.rate <= held!.usual / 4 && held!.usual > 40e6,
      JSON.stringify(held),
    );
    reader.speed = steady(50e6);
    reader.run(2);
    assertEquals(reader.events.map(({ event }) => event), ["held", "released"]);
  });

  test("gets used to a reader that has become slower", () => {
    const reader = new MadeReader("auto", steady(200e6));
    reader.run(2);
    reader.speed = steady(20e6);
    reader.run(5);
    const before = reader.read;
    reader.run(5);
    assertGreater((reader.read - before) / 5, 0.95 * 20e6);
  });

  test("gives a reader that waits for more than a quantum more", () => {
    const reader = new MadeReader("auto", steady(50e6));
    reader.leaves = 300 * KIB;
    reader.run(40);
    // Once that is known, it does not take that long again.
    const before = reader.read;
    reader.run(10);
    assertGreater(reader.read - before, 8 * 300 * KIB);
    // What it was sent then is of any size: half of that must be whole bytes.
    reader.leaves = 0;
    reader.speed = steady(1e5);
    reader.run(20);
  });

  test("does not give a stopped reader much", () => {
    const reader = new MadeReader("auto", steady(0));
    reader.run(4);
    assertLessOrEqual(reader.unread, 512 * KIB);
  });
});
