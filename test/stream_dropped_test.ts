/** Which messages a stream drops for a reader whose backlog is too large, or while the queue is full. */
import { describe, test as plainTest } from "node:test";
import { assertEquals } from "#std/assert";
import { LONGEST_WRITE } from "../src/message/message.ts";
import { policyOf } from "../src/send/overflow.ts";
import { type MadeClock, settle, withClock } from "./made_clock.ts";
import { allOf, atOnce, made, MadeConnection } from "./made_stream.ts";

const test = (title: string, body: (clock: MadeClock) => void | Promise<void>) =>
  plainTest(title, () => withClock(body));

describe("messages are dropped for a reader", () => {
  test("that is away, where nothing is kept for it", async () => {
    const { stream, push, add, memory } = made({ policy: policyOf("close") });
    const [away, here] = [await add("away", 0, "away"), await add("here", 0)];
    push(30);
    push(10);
    assertEquals([away.dropped, away.droppedWhileAbsent, away.holes], [4, 4, []]);
    assertEquals([here.dropped, here.droppedWhileAbsent, memory.used], [0, 0, 40]);
    stream.detach(here);
    assertEquals([here.dropped, here.droppedWhileAbsent], [4, 0]);
    push(10);
    assertEquals([here.dropped, here.droppedWhileAbsent, memory.used], [5, 1, 0]);
  });

  test("that is stuck above the bound: the newest", async () => {
    const { stream, push, memory } = made({ log: null, policy: policyOf("drop") });
    const cursor = await atOnce(stream.addCursor("a", 0));
    const connection = new MadeConnection();
    stream.attach(cursor, connection, 0);
    push(100);
    push(50);
    assertEquals([cursor.dropped, memory.used], [0, 150]);
    // Up to the bound, it is not too much.
    cursor.sent = 50;
    connection.blockedSince = 1;
    assertEquals(stream.pendingOf(cursor), 100);
    cursor.sent = 60;
    push(10);
    assertEquals([cursor.dropped, stream.pendingOf(cursor), memory.used], [0, 100, 160]);
    push(20);
    assertEquals([cursor.dropped, cursor.holes], [2, [{ from: 160, to: 180 }]]);
    assertEquals([stream.pendingOf(cursor), memory.used, stream.tail], [100, 160, 180]);
    connection.blockedSince = undefined;
    push(30);
    assertEquals([cursor.dropped, stream.pendingOf(cursor), memory.used], [2, 130, 190]);
    assertEquals(await allOf(stream, cursor), [
      ["memory", 60, 160, 0, 16],
      180,
      ["memory", 180, 210, 180, 3],
    ]);
  });

  test("that is stuck while memory is short: the newest, also below the bound", async () => {
    const { stream, push, memory } = made({ log: null, policy: policyOf("drop"), limit: 100 });
    const cursor = await atOnce(stream.addCursor("a", 0));
    stream.attach(cursor, { blockedSince: 1 }, 0);
    push(10);
    memory.take(90);
    push(10);
    assertEquals(cursor.dropped, 0);
    push(10);
    assertEquals([cursor.dropped, cursor.holes], [1, [{ from: 20, to: 30 }]]);
  });

  test("alone: others get them", async () => {
    const { stream, push, memory } = made({ log: null, policy: policyOf("drop") });
    const [one, other] = [
      await atOnce(stream.addCursor("one", 0)),
      await atOnce(stream.addCursor("other", 0)),
    ];
    stream.attach(one, { blockedSince: 1 }, 0);
    stream.attach(other, { blockedSince: undefined }, 0);
    push(100);
    assertEquals([one.dropped, other.dropped, memory.used], [0, 0, 100]);
    push(10);
    assertEquals([one.dropped, other.dropped, memory.used], [1, 0, 110]);
  });

  test("never where it is not stuck, or the policy does not drop", async () => {
    const { stream, push } = made({ log: null, policy: policyOf("block"), limit: 1e9 });
    const cursor = await atOnce(stream.addCursor("a", 0));
    stream.attach(cursor, { blockedSince: 1 }, 0);
    push(500);
    push(500);
    for (let i = 0; i < 4; i++) void stream.push(new Uint8Array(LONGEST_WRITE), 1, stream.tail);
    assertEquals([cursor.dropped, cursor.holes], [0, []]);
  });
});

/** Pushes blocks of the longest write. */
const M = LONGEST_WRITE;

describe("the oldest messages are dropped for a reader", () => {
  const oldest = async (bound: number, blockedSince: number | undefined, limit = 2 ** 40) => {
    const one = made({ log: null, policy: policyOf("drop-oldest"), bound, limit });
    const cursor = await atOnce(one.stream.addCursor("a", 0));
    const connection = new MadeConnection();
    connection.blockedSince = blockedSince;
    one.stream.attach(cursor, connection, 0);
    const block = new Uint8Array(M);
    const push = (length = M) =>
      void one.stream.push(length === M ? block : new Uint8Array(length), 1, one.stream.tail);
    return { ...one, cursor, push };
  };

  test("above its bound, before new ones come", async () => {
    const { cursor, push, stream } = await oldest(2 * M, 1);
    for (let i = 0; i < 3; i++) push();
    // Up to the bound, before the third one.
    assertEquals([cursor.dropped, cursor.holes], [0, []]);
    push();
    assertEquals([cursor.dropped, cursor.holes], [1, [{ from: 0, to: M }]]);
    push();
    assertEquals([cursor.dropped, cursor.holes], [2, [{ from: 0, to: 2 * M }]]);
    assertEquals(stream.pendingOf(cursor), 3 * M);
  });

  test("but for those that are sent in part", async () => {
    const { cursor, push } = await oldest(2 * M, 1);
    for (let i = 0; i < 3; i++) push();
    cursor.inFlight = 100;
    push();
    assertEquals(cursor.holes, [{ from: M, to: 2 * M }]);
    push();
    assertEquals(cursor.holes, [{ from: M, to: 3 * M }]);
    assertEquals(cursor.dropped, 2);
  });

  test("but for those that the kernel has", async () => {
    const { cursor, push } = await oldest(2 * M, 1);
    for (let i = 0; i < 4; i++) push();
    cursor.holes.length = cursor.dropped = 0;
    cursor.sent = M;
    push();
    assertEquals(cursor.holes, [{ from: M, to: 2 * M }]);
  });

  test("but for those that are dropped already", async () => {
    const { cursor, push } = await oldest(4 * M, 1);
    for (let i = 0; i < 5; i++) push();
    cursor.holes.push({ from: 0, to: 10 }, { from: 2 * M, to: 3 * M - 10 });
    push(20);
    push();
    assertEquals(cursor.holes.slice(1), [{ from: 2 * M, to: 3 * M - 10 }, {
      ...{ from: 3 * M, to: 4 * M },
    }]);
  });

  test("never where its kernel accepts bytes", async () => {
    const { cursor, push } = await oldest(2 * M, undefined);
    for (let i = 0; i < 5; i++) push();
    assertEquals([cursor.dropped, cursor.holes], [0, []]);
  });

  test("but for a longest write, however small the bound is", async () => {
    const { cursor, push } = await oldest(10, 1);
    push();
    push();
    assertEquals(cursor.holes, []);
    push();
    assertEquals(cursor.holes, [{ from: 0, to: M }]);
  });

  test("but for the newest block", async () => {
    const { cursor, push } = await oldest(10, 1);
    push(2 * M);
    push();
    assertEquals([cursor.dropped, cursor.holes], [0, []]);
    push();
    assertEquals([cursor.dropped, cursor.holes], [1, [{ from: 0, to: 2 * M }]]);
  });

  test("below its bound once memory is short", async () => {
    const { cursor, push, memory } = await oldest(10 * M, 1, 3 * M);
    push();
    push();
    memory.take(M);
    push();
    assertEquals(cursor.holes, []);
    memory.take(1 - M);
    push();
    assertEquals(cursor.holes, [{ from: 0, to: 2 * M }]);
    assertEquals(cursor.dropped, 2);
  });
});

describe("a full queue", () => {
  test("refuses the newest of readers that are behind", async () => {
    const { stream, push, add, log, events } = made({ whenFull: "drop-newest" });
    const [away, near] = [await add("away", 0, "away"), await add("near", 0)];
    push(100);
    stream.review();
    near.sent = near.delivered = 100;
    log.full = "max";
    push(100);
    await settle();
    assertEquals(events.splice(0), [
      { of: "away", event: "spilling", why: "absent", backlog: 100 },
      { event: "queue-full", why: "max", then: "drop-newest" },
    ]);
    push(20);
    assertEquals([away.dropped, near.dropped, away.holes], [2, 0, [{ from: 200, to: 220 }]]);
  });

  test("lets the source go on only where messages are dropped instead", async () => {
    for (const [whenFull, free] of [["drop-newest", 1], ["block", 0]] as const) {
      const { stream, push, add, log } = made({ whenFull });
      await add("away", 0, "away");
      stream.review();
      let refuse = () => {};
      log.held.set("append", new Promise((resolve) => refuse = resolve));
      let rooms = 0;
      push(100);
      void push(1000)?.then(() => rooms++);
      await settle();
      assertEquals([rooms, log.calls.includes("append 0 100")], [0, true]);
      log.full = "max";
      refuse();
      await settle();
      assertEquals(rooms, free);
    }
  });

  test("blocks where it is so told", async () => {
    const { stream, push, add, log } = made({ whenFull: "block" });
    const away = await add("away", 0, "away");
    push(100);
    log.full = "max";
    stream.review();
    await settle();
    push(20);
    assertEquals([away.dropped, away.holes], [0, []]);
  });

  test("tells when it has room again, and how much was lost", async (clock) => {
    const { stream, push, add, log, events, told } = made({ whenFull: "drop-newest" });
    const [away, other] = [await add("away", 0, "away"), await add("other", 0, "away")];
    other.dropped = 7;
    push(100);
    stream.review();
    events.length = 0;
    log.full = "disk";
    push(100);
    await settle();
    push(20);
    push(10);
    assertEquals([away.dropped, other.dropped], [3, 10]);
    log.full = undefined;
    clock.pass(250);
    await settle();
    assertEquals(events.splice(0), [
      { event: "queue-full", why: "disk", then: "drop-newest" },
      { event: "queue-room", dropped: 6 },
    ]);
    assertEquals(told.fresh > 4, true);
    // The next time, only what is lost then counts.
    log.full = "max";
    push(100);
    push(10);
    await settle();
    push(40);
    log.full = undefined;
    clock.pass(250);
    await settle();
    assertEquals(events, [
      { event: "queue-full", why: "max", then: "drop-newest" },
      { event: "queue-room", dropped: 8 },
    ]);
  });

  test("deletes its oldest part where it is so told", async () => {
    const { stream, push, add, log, events } = made({ whenFull: "drop-oldest" });
    const away = await add("away", 0, "away");
    push(100);
    push(100);
    stream.review();
    await settle();
    log.full = "max";
    push(100);
    push(10);
    log.held.set("append", Promise.resolve());
    await settle();
    log.full = undefined;
    await settle();
    assertEquals(log.calls.includes("dropOldest"), true);
    assertEquals(away.delivered >= 100, true);
    assertEquals(events.length > 0, true);
  });
});
