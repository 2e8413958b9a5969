/** Pacing, the flood and the overflow policies: their arithmetic, on a clock and a kernel of our own. */
import { setImmediate } from "node:timers";
import { describe, test } from "node:test";
import { assert, assertEquals, assertGreater } from "#std/assert";
import { repeatedMessage, textMessage } from "../src/message/message.ts";
import type { Closed, Connection } from "../src/net/net.ts";
import { Flood, type FloodOptions } from "../src/send/flood.ts";
import {
  FULL_AFTER_MS,
  isFloodPolicy,
  type Overflowing,
  type Policy,
  POLICY_NAMES,
  policyOf,
} from "../src/send/overflow.ts";
import { nextTurn, Schedule, Ticker, TURN_BYTES, TURN_READS } from "../src/send/pacer.ts";
import { within } from "./within.ts";

const MIB = 1 << 20;

/** Ticks when the test says so. */
class ManualTicker extends Ticker {
  readonly listeners = new Set<(nowMs: number) => void>();
  override add(listener: (nowMs: number) => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }
  /** One tick, and all that follows from it. */
  async tick(nowMs: number): Promise<void> {
    for (const each of [...this.listeners]) each(nowMs);
    await settled();
  }
}

/** Until nothing moves any more. */
const settled = async () => {
  for (let i = 0; i < 3; i++) await nextTurn();
};

/** A kernel that takes `room` bytes; a write that finds none waits. */
class FakeConnection implements Connection {
  readonly local = { host: "127.0.0.1", port: 1 };
  readonly remote = { host: "127.0.0.1", port: 2 };
  readonly fd = undefined;
  readonly readAhead = 0;
  readonly bufferedBytes = 0;
  blockedSince: number | undefined;
  room = Infinity;
  /** Bytes offered by each write, and what was taken of all of them. */
  offers: number[] = [];
  taken = "";
  calls: string[] = [];
  /** What the peer sends: it ends when this settles. */
  readonly peer = Promise.withResolvers<void>();
  #ended = false;
  readonly #closed = Promise.withResolvers<Closed>();
  readonly closed = this.#closed.promise;
  #waiting: { bytes: Uint8Array; resolve: (taken: number) => void } | undefined;

  write(bytes: Uint8Array): number | Promise<number> {
    if (this.#ended) return 0;
    this.offers.push(bytes.length);
    if (this.room > 0) return this.#take(bytes);
    return new Promise((resolve) => this.#waiting = { bytes, resolve });
  }
  async give(room: number): Promise<void> {
    this.room += room;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve(this.#take(waiting.bytes));
    await settled();
  }
  #take(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.room);
    this.room -= taken;
    if (bytes.length < 1000) this.taken += new TextDecoder().decode(bytes.subarray(0, taken));
    return taken;
  }
  async read(): Promise<Uint8Array | null> {
    this.calls.push("read");
    await this.peer.promise;
    return null;
  }
  closeWrite(): Promise<void> {
    this.calls.push("closeWrite");
    return Promise.resolve();
  }
  close(): void {
    this.end("close", { reason: "local" });
  }
  reset(): void {
    this.end("reset", { reason: "local" });
  }
  end(call: string, how: Closed): void {
    this.calls.push(call);
    this.#ended = true;
    this.#waiting?.resolve(0);
    this.#waiting = undefined;
    this.#closed.resolve(how);
  }
}

/** A flood of "abcd" at 1000 a second, if it is not said otherwise: one message a ms. */
function open(options: Partial<FloodOptions> = {}, room = Infinity) {
  const connection = new FakeConnection();
  connection.room = room;
  const ticker = new ManualTicker();
  const flood = new Flood({ connection, ticker, message: textMessage("abcd"), ...options });
  return { connection, ticker, flood };
}

describe("a schedule", () => {
  test("counts whole messages since its start", () => {
    const schedule = new Schedule(400, 1000);
    const due = (nowMs: number) => schedule.due(nowMs);
    assertEquals([1000, 1002.4, 1002.5, 1005, 2000].map(due), [0, 0, 1, 2, 400]);
    assertEquals([schedule.rate, schedule.startMs, schedule.endMs], [400, 1000, Infinity]);
    assertEquals(new Schedule(Infinity, 0).due(1), Infinity);
  });

  test("makes nothing due after its end", () => {
    const schedule = new Schedule(1000, 0, 10);
    assertEquals([9, 10, 11, 1e9].map((nowMs) => schedule.due(nowMs)), [9, 10, 10, 10]);
  });
});

describe("the ticker", () => {
  /** Runs with an interval timer that fires when the test says so. */
  async function withTimers(use: (timers: Map<object, () => void>, periods: number[]) => unknown) {
    const { setInterval, clearInterval } = globalThis;
    const timers = new Map<object, () => void>();
    const periods: number[] = [];
    const fakes = {
      setInterval: (callback: () => void, ms: number) => {
        const timer = {};
        timers.set(timer, callback);
        periods.push(ms);
        return timer;
      },
      clearInterval: (timer: object) => void timers.delete(timer),
    };
    try {
      Object.assign(globalThis, fakes);
      await use(timers, periods);
    } finally {
      Object.assign(globalThis, { setInterval, clearInterval });
    }
  }

  test("has one timer of 1 ms while anybody listens, and tells all the same time", () =>
    withTimers((timers, periods) => {
      const ticker = new Ticker();
      const times: number[][] = [[], []];
      const fire = () => {
        for (const callback of [...timers.values()]) callback();
      };
      assertEquals(timers.size, 0);
      const ends = times.map((seen) => ticker.add((nowMs) => seen.push(nowMs)));
      assertEquals([timers.size, periods], [1, [1]]);
      const before = performance.now();
      fire();
      assert(times[0]![0]! >= before && times[0]![0]! <= performance.now());
      assertEquals(times[0], times[1]);
      ends[0]!();
      assertEquals(timers.size, 1);
      fire();
      assertEquals(times.map(({ length }) => length), [1, 2]);
      ends[1]!();
      assertEquals(timers.size, 0);
      ticker.add(() => {});
      assertEquals([timers.size, periods], [1, [1, 1]]);
    }));

  test("ticks by itself", async () => {
    const ticker = new Ticker();
    let end = () => {};
    await within(
      "three ticks",
      2000,
      new Promise<void>((resolve) => {
        let left = 3;
        end = ticker.add(() => --left === 0 && resolve());
      }),
    );
    end();
  });
});

test("a turn ends once the event loop has been around", async () => {
  const order: string[] = [];
  setImmediate(() => order.push("others"));
  await nextTurn();
  order.push("we");
  assertEquals(order, ["others", "we"]);
  assertEquals([TURN_BYTES, TURN_READS], [8 * MIB, 4096]);
});

describe("a flood", () => {
  test("offers what is due in one write, and no more", async () => {
    const { connection, ticker, flood } = open();
    flood.start(1000, 100);
    await ticker.tick(100.5);
    assertEquals(connection.offers, []);
    await ticker.tick(103);
    assertEquals([connection.offers, connection.taken], [[12], "abcdabcdabcd"]);
    await ticker.tick(103.9);
    await ticker.tick(104);
    assertEquals([connection.offers, flood.accepted], [[12, 4], 16]);
    assertEquals([flood.offeredAt(104), flood.offeredAt(110)], [16, 40]);
    assertEquals([flood.pendingMessages, flood.overflows, flood.dropped], [0, 0, 0]);
  });

  test("ends its schedule by itself", async () => {
    const { connection, ticker, flood } = open();
    flood.start(1000, 100, 102);
    await ticker.tick(200);
    assertEquals([connection.taken, flood.offeredAt(300)], ["abcdabcd", 8]);
  });

  test("adds one schedule to the other", async () => {
    const { connection, ticker, flood } = open();
    flood.start(1000, 100);
    flood.start(2000, 103);
    await settled();
    assertEquals([connection.offers, flood.offeredAt(105)], [[12], 28]);
    flood.stop(104);
    await ticker.tick(200);
    assertEquals([connection.offers, flood.offeredAt(300)], [[12, 8], 20]);
    flood.stop(300);
    assertEquals(flood.offeredAt(300), 20);
  });

  for (const [writeSize, largest] of [[undefined, MIB], [1000, 1000], [2 * MIB, MIB]] as const) {
    test(`a write offers ${largest} bytes at most with a write size of ${writeSize}`, async () => {
      const message = repeatedMessage(new Uint8Array(MIB + 7));
      const { connection, ticker, flood } = open({
        message,
        ...(writeSize === undefined ? {} : { writeSize }),
      });
      flood.start(1000, 0);
      await ticker.tick(1);
      for (let i = 0; i < 400 && flood.accepted < message.size; i++) await settled();
      assertEquals([Math.max(...connection.offers), flood.accepted], [largest, message.size]);
    });
  }

  test("without a limit it sends until the kernel is full, and a turn at a time", async () => {
    const message = repeatedMessage(new Uint8Array(MIB));
    const { connection, ticker, flood } = open({ message }, 20 * MIB);
    const counts: number[] = [];
    const write = connection.write.bind(connection);
    connection.write = (bytes) => {
      if (connection.offers.length % 8 === 0) {
        // Before the flood's own turn.
        setImmediate(() => counts.push(connection.offers.length));
      }
      return write(bytes);
    };
    flood.start(Infinity, 0);
    await ticker.tick(1);
    await settled();
    assertEquals(counts.slice(0, 2), [8, 16]);
    assertEquals([flood.accepted, flood.offeredAt(2)], [20 * MIB, Infinity]);
    assertEquals(flood.pendingMessages, Infinity);
    flood.stop(2);
    assertEquals([flood.offeredAt(3), flood.pendingMessages], [20 * MIB, 0]);
  });

  test("a turn is counted anew after a time with nothing to send", async () => {
    const message = repeatedMessage(new Uint8Array(MIB));
    const { connection, ticker, flood } = open({ message });
    flood.start(1000, 0);
    await ticker.tick(7);
    assertEquals(connection.offers.length, 7);
    let after: number | undefined;
    const write = connection.write.bind(connection);
    connection.write = (bytes) => {
      if (connection.offers.length === 7) setImmediate(() => after = connection.offers.length);
      return write(bytes);
    };
    await ticker.tick(14);
    assertEquals([after, connection.offers.length], [14, 14]);
  });

  test("what the kernel does not take is offered again from there", async () => {
    const { connection, ticker, flood } = open({}, 6);
    flood.start(1000, 0);
    await ticker.tick(3);
    // The third message is not begun, the second is.
    assertEquals([connection.taken, flood.accepted, flood.pendingMessages], ["abcdab", 6, 1]);
    await connection.give(6);
    assertEquals([connection.taken, connection.offers], ["abcdabcdabcd", [12, 6]]);
  });

  test("a partly sent message is completed, what is forgotten is not sent", async () => {
    const { connection, ticker, flood } = open({}, 6);
    flood.start(1000, 0);
    await ticker.tick(5);
    flood.stop(5);
    assertEquals([flood.pendingMessages, flood.offeredAt(9)], [3, 20]);
    flood.forget();
    assertEquals([flood.pendingMessages, flood.offeredAt(9)], [0, 8]);
    // What was offered before is with the kernel.
    assertEquals(connection.offers, [20, 14]);
    flood.start(1000, 10);
    await connection.give(2);
    await ticker.tick(11);
    assertEquals([connection.taken, flood.offeredAt(11)], ["abcdabcd", 12]);
  });

  test("forgets its schedule, too", async () => {
    const { connection, ticker, flood } = open();
    const nowMs = performance.now();
    flood.start(1000, nowMs);
    await ticker.tick(nowMs + 2);
    flood.forget();
    await ticker.tick(nowMs + 60_000);
    assertEquals([connection.taken, flood.offeredAt(nowMs + 90_000)], ["abcdabcd", 8]);
  });

  test("finishes with FIN once all is sent, and waits for the peer", async () => {
    const { connection, ticker, flood } = open({}, 6);
    flood.start(1000, 0);
    await ticker.tick(2);
    flood.finish(3);
    await settled();
    assertEquals(connection.calls, []);
    await connection.give(100);
    assertEquals([connection.taken, connection.calls], ["abcdabcdabcd", ["closeWrite", "read"]]);
    assertEquals(ticker.listeners.size, 0);
    connection.peer.resolve();
    assertEquals(await within("the end", 2000, flood.done), { reason: "local" });
    assertEquals(connection.calls.at(-1), "close");
  });

  test("finishes at once when nothing is due", async () => {
    const { connection, flood } = open();
    connection.peer.resolve();
    flood.finish();
    assertEquals((await within("the end", 2000, flood.done)).reason, "local");
    assertEquals(connection.offers, []);
  });

  for (const replies of ["drain", "ignore"] as const) {
    test(`replies are read from the start: ${replies}`, async () => {
      const { connection, flood } = open({ replies });
      await settled();
      const reads = replies === "drain" ? ["read"] : [];
      assertEquals(connection.calls, reads);
      connection.peer.resolve();
      flood.finish();
      await within("the end", 2000, flood.done);
      assertEquals(connection.calls.filter((call) => call === "read").length, 1);
    });
  }

  test("ends with its connection, and sends no FIN then", async () => {
    for (const full of [true, false]) {
      const { connection, ticker, flood } = open({}, full ? 2 : Infinity);
      flood.start(1000, 0);
      await ticker.tick(1);
      connection.end("peer", { reason: "reset" });
      assertEquals((await within("the end", 2000, flood.done)).reason, "reset");
      assertEquals([connection.calls, ticker.listeners.size], [["peer", "close"], 0]);
      await ticker.tick(50);
      assertEquals(connection.offers.length, full ? 2 : 1);
    }
  });
});

describe("an overflow", () => {
  /** The overflows, once so many messages are pending with the kernel full. */
  async function overflowsWith(pending: number, bound: number): Promise<number> {
    const { connection, ticker, flood } = open({ bound }, 4);
    flood.start(1000, 0);
    await ticker.tick(1);
    connection.blockedSince = 1;
    await ticker.tick(1 + pending);
    assertEquals(flood.pendingMessages, pending);
    return flood.overflows;
  }

  test("is a backlog above the bound, in whole messages", async () => {
    for (const [bound, most] of [[0, 0], [3, 0], [4, 1], [7, 1], [40, 10]] as const) {
      if (most > 0) assertEquals(await overflowsWith(most, bound), 0, `bound ${bound}`);
      assertEquals(await overflowsWith(most + 1, bound), 1, `bound ${bound}`);
    }
  });

  test("needs a kernel that has been full for a millisecond", async () => {
    assertEquals(FULL_AFTER_MS, 1);
    const { connection, ticker, flood } = open({}, 4);
    flood.start(1000, 0);
    await ticker.tick(1);
    await ticker.tick(5);
    assertEquals([flood.pendingMessages, flood.overflows], [4, 0]);
    connection.blockedSince = 5;
    await ticker.tick(5.9);
    assertEquals(flood.overflows, 0);
    await ticker.tick(6);
    assertEquals(flood.overflows, 1);
  });

  test("is one as long as it lasts, and is told the first time", async () => {
    const told: number[] = [];
    const { connection, ticker, flood } = open({
      onOverflow: (which) => told.push(which.overflows),
    }, 4);
    flood.start(1000, 0);
    await ticker.tick(1);
    connection.blockedSince = 1;
    for (let nowMs = 2; nowMs <= 6; nowMs++) await ticker.tick(nowMs);
    assertEquals([flood.overflows, told], [1, [1]]);
    connection.blockedSince = undefined;
    await connection.give(4);
    await ticker.tick(7);
    connection.blockedSince = 7;
    await ticker.tick(8);
    await ticker.tick(9);
    assertEquals([flood.overflows, told], [2, [1]]);
  });

  test("a write that is partly taken is one at once", async () => {
    const { ticker, flood } = open({ policy: "drop", bound: 4 }, 6);
    flood.start(1000, 0);
    await ticker.tick(5);
    assertEquals([flood.overflows, flood.dropped, flood.pendingMessages], [1, 2, 1]);
    assertEquals(flood.offeredAt(5), 12);
  });

  test("has no bound where none is set, and messages may have one byte", async () => {
    const { connection, ticker, flood } = open({ message: textMessage("a") }, 1);
    flood.start(1000, 0);
    await ticker.tick(1);
    assertEquals(connection.taken, "a");
    connection.blockedSince = 1;
    await ticker.tick(2);
    assertEquals([flood.pendingMessages, flood.overflows], [1, 1]);
  });

  test("may begin before anything was sent", async () => {
    const { connection, ticker, flood } = open({ policy: "drop" }, 0);
    connection.blockedSince = 0;
    flood.start(1000, 0);
    await ticker.tick(3);
    assertEquals([flood.overflows, flood.dropped, connection.offers], [1, 3, []]);
  });

  test("is none while the kernel takes all that it is offered", async () => {
    const { connection, ticker, flood } = open({ policy: "drop", writeSize: 8 });
    flood.start(1000, 0);
    await ticker.tick(5);
    assertEquals([connection.offers, flood.overflows, flood.dropped], [[8, 8, 4], 0, 0]);
  });

  test("drop takes all that is not begun, at the end of a message and within one", async () => {
    const exact = open({ policy: "drop" }, 8);
    exact.flood.start(1000, 0);
    await exact.ticker.tick(5);
    assertEquals([exact.flood.dropped, exact.flood.pendingMessages], [3, 0]);
    const within = open({ policy: "drop", writeSize: 6 }, 0);
    within.flood.start(1000, 0);
    await within.ticker.tick(2);
    within.connection.blockedSince = 2;
    await within.ticker.tick(5);
    // The write that waits has one and a half messages.
    assertEquals([within.flood.dropped, within.connection.offers], [3, [6]]);
  });

  test("drop takes the newest above the bound, but not what the kernel may have", async () => {
    const { connection, ticker, flood } = open({ policy: "drop", bound: 8 }, 8);
    flood.start(1000, 0);
    await ticker.tick(2);
    // This write waits with two messages.
    await ticker.tick(4);
    assertEquals(connection.offers, [8, 8]);
    connection.blockedSince = 4;
    await ticker.tick(5);
    assertEquals([flood.pendingMessages, flood.dropped], [2, 1]);
    await ticker.tick(9);
    assertEquals([flood.pendingMessages, flood.dropped, flood.offeredAt(9)], [2, 5, 16]);
    connection.blockedSince = undefined;
    await connection.give(100);
    assertEquals(connection.taken, "abcd".repeat(4));
    await ticker.tick(10);
    assertEquals([connection.taken.length, flood.accepted], [20, 20]);
    flood.dropNewest();
    assertEquals(flood.dropped, 5);
  });

  test("drop keeps the messages of a write that waits", async () => {
    const { connection, ticker, flood } = open({ policy: "drop" }, 4);
    flood.start(1000, 0);
    await ticker.tick(1);
    await ticker.tick(4);
    assertEquals(connection.offers, [4, 12]);
    connection.blockedSince = 4;
    await ticker.tick(6);
    assertEquals([flood.dropped, flood.pendingMessages, flood.overflows], [2, 3, 1]);
    // Without a limit, nothing can be counted.
    flood.start(Infinity, 6);
    await ticker.tick(7);
    assertEquals([flood.dropped, flood.pendingMessages], [2, Infinity]);
    flood.stop(8);
  });

  for (const policy of ["close", "reset"] as const) {
    test(`${policy} ends the connection`, async () => {
      const { connection, ticker, flood } = open({ policy }, 6);
      flood.start(1000, 0);
      await ticker.tick(3);
      assertEquals((await within("the end", 2000, flood.done)).reason, "local");
      assertEquals([connection.calls[0], flood.overflows], [policy, 1]);
      assertGreater(connection.calls.length, 1);
    });
  }
});

describe("a policy", () => {
  const ACTS: Record<Policy, string[]> = {
    close: ["close"],
    reset: ["reset"],
    block: [],
    drop: ["dropNewest"],
    spill: ["spill"],
  };
  for (const name of POLICY_NAMES) {
    test(`${name} does what it says`, () => {
      const calls: string[] = [];
      const backlog: Overflowing = {
        dropNewest: () => void calls.push("dropNewest"),
        spill: () => void calls.push("spill"),
        end: (how) => void calls.push(how),
      };
      policyOf(name).act(backlog);
      policyOf(name).act({ end: (how) => void calls.push(how) });
      const ends = name === "close" || name === "reset";
      assertEquals(calls, ends ? [...ACTS[name], ...ACTS[name]] : ACTS[name]);
    });
  }

  test("by what it needs, and what it does with messages", () => {
    const which = (has: (name: Policy) => boolean | undefined) => POLICY_NAMES.filter(has);
    assertEquals(POLICY_NAMES, ["close", "reset", "block", "drop", "spill"]);
    assertEquals(which(isFloodPolicy), ["close", "reset", "block", "drop"]);
    assertEquals(which((name) => policyOf(name).needsQueue), ["spill"]);
    assertEquals(which((name) => policyOf(name).makesSourceWait), ["block"]);
    assertEquals(which((name) => policyOf(name).dropsNewest), ["drop"]);
    assertEquals(which((name) => policyOf(name).keepsForAbsentReaders), ["block", "drop", "spill"]);
  });
});
