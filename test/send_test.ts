/** The schedule, the ticker, and the flood. */
import { setImmediate } from "node:timers";
import { describe, test } from "node:test";
import { assert, assertEquals } from "#std/assert";
import { repeatedMessage } from "../src/message/message.ts";
import { parseRecording } from "../src/message/recording.ts";
import { nextTurn, Schedule, Ticker, TURN_BYTES, TURN_READS } from "../src/send/pacer.ts";
import { open, settled } from "./send_by_hand.ts";
import { within } from "./within.ts";

const MIB = 1 << 20;

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

  /** Messages of 3, 2 and 7 bytes. */
  const mixed = () =>
    parseRecording(new TextEncoder().encode("aa\nb\ncccccc\n"), { kind: "line" })!.message;

  test("with a rate in bytes, a message is due once all its bytes are", async () => {
    const { connection, ticker, flood } = open({ message: mixed() });
    flood.startBytes(1000, 100);
    for (
      const [ms, taken] of [[102, ""], [103, "aa\n"], [104.9, "aa\n"], [105, "aa\nb\n"]] as const
    ) {
      await ticker.tick(ms);
      assertEquals(connection.taken, taken, `${ms}`);
    }
    await ticker.tick(111.9);
    assertEquals([flood.accepted, flood.sentMessages, flood.pendingBytes], [5, 2, 0]);
    await ticker.tick(112);
    assertEquals([flood.accepted, flood.sentMessages], [12, 3]);
    assertEquals([flood.offeredAt(114), flood.offeredAt(115), flood.offeredAt(124)], [12, 15, 24]);
    // A rate in messages goes on from there.
    flood.start(1000, 115);
    assertEquals([flood.offeredAt(116), flood.offeredAt(117), flood.offeredAt(118)], [17, 24, 27]);
  });

  test("knows the bytes that are due of messages of any size", async () => {
    const { connection, ticker, flood } = open({ message: mixed() }, 4);
    flood.start(1000, 100);
    await ticker.tick(104);
    assertEquals([flood.accepted, flood.sentMessages], [4, 1]);
    assertEquals([flood.pendingMessages, flood.pendingBytes], [2, 10]);
    await connection.give(1000);
    assertEquals([flood.accepted, flood.pendingBytes], [15, 0]);
  });

  test("a burst is as many bytes, rounded up to whole messages", async () => {
    const { ticker, flood } = open({ message: mixed() });
    flood.startBytes(0, 100);
    flood.burst(4, 101);
    await ticker.tick(102);
    assertEquals(flood.accepted, 5);
    flood.burst(7, 103);
    await ticker.tick(104);
    assertEquals(flood.accepted, 12);
    flood.burst(13, 105);
    await ticker.tick(106);
    assertEquals(flood.accepted, 27);
  });

  test("what is said beside the messages comes between two of them", async () => {
    const { connection, ticker, flood } = open({ message: mixed() }, 4);
    const say = (text: string) => flood.interject(new TextEncoder().encode(text));
    say("1");
    await settled();
    assertEquals([connection.taken, flood.interjecting], ["1", false]);
    flood.start(1000, 100);
    await ticker.tick(103);
    assertEquals(connection.taken, "1aa\n");
    say("2");
    say("3");
    await connection.give(1);
    // It had offered all before that was to be said: now it only offers the rest of the message.
    assertEquals([connection.taken, flood.interjecting], ["1aa\nb", true]);
    await connection.give(100);
    assertEquals(connection.taken, "1aa\nb\n23cccccc\n");
    assertEquals([flood.accepted, flood.interjected], [12, 3]);
    say("4");
    await settled();
    assertEquals(connection.taken, "1aa\nb\n23cccccc\n4");
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
    // A whole number: two milliseconds after a fraction can be a little less than two.
    const nowMs = Math.floor(performance.now());
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
