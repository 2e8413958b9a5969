/** Readers of a stream come further, come and go, and are told of the bytes that they do not get. */
import { describe, test as plainTest } from "node:test";
import { assertEquals, assertRejects } from "#std/assert";
import { REPAIR_STEP } from "../src/queue/queue.ts";
import { policyOf } from "../src/send/overflow.ts";
import { type MadeClock, settle, withClock } from "./made_clock.ts";
import { allOf, atOnce, made, MadeConnection, MadeCursor, MadeLog } from "./made_stream.ts";

const test = (title: string, body: (clock: MadeClock) => void | Promise<void>) =>
  plainTest(title, () => withClock(body));

/** A log with batches of 100 bytes from these offsets on. */
function logOf(...offsets: number[]): MadeLog {
  const log = new MadeLog();
  for (const offset of offsets) log.store(offset, 100);
  return log;
}

describe("a reader", () => {
  test("is added, found by its name, and removed", async () => {
    const { stream, log } = made();
    const one = await atOnce(stream.addCursor("one", 10));
    const other = await atOnce(stream.addCursor("other", 20, true));
    assertEquals([...stream.cursors], [one, other]);
    assertEquals([one.delivered, one.offered, one.isExpected], [10, 10, false]);
    assertEquals([other.delivered, other.isExpected], [20, true]);
    assertEquals(log.calls, ["openCursor one 10", "openCursor other 20"]);
    assertEquals([one.stored, other.stored], log.cursors);
    assertEquals([stream.cursorOf("one"), stream.cursorOf("other")], [one, other]);
    assertEquals(stream.cursorOf("nobody"), undefined);
    await atOnce(stream.removeCursor(one));
    assertEquals([...stream.cursors], [other]);
    await atOnce(stream.removeCursor(one));
    assertEquals(log.cursors.map(({ forgotten }) => forgotten), [1, 0]);
  });

  test("has what it needs kept before it is recorded", async () => {
    const { stream, log, push, memory } = made();
    let record = () => {};
    log.held.set("openCursor", new Promise((resolve) => record = resolve));
    const adding = stream.addCursor("a", 0, true);
    await settle();
    push(10);
    stream.review();
    assertEquals([stream.cursorOf("a")?.stored, memory.used], [undefined, 10]);
    record();
    assertEquals((await atOnce(adding)).stored?.name, "a");
  });

  test("is none where it cannot be recorded", async () => {
    const { stream, log } = made();
    log.failing = "openCursor";
    await assertRejects(() => atOnce(stream.addCursor("a", 0)), Error, "no openCursor");
    assertEquals(stream.cursors.size, 0);
    const without = made({ log: null });
    assertEquals((await atOnce(without.stream.addCursor("a", 0))).stored, undefined);
  });

  test("leaves nothing behind that only it needs", async () => {
    const { stream, push, memory, add, events } = made({ log: null });
    const cursor = await add("a", 0);
    push(10);
    stream.miss(cursor, 10, 20);
    assertEquals([memory.used, events], [10, []]);
    await atOnce(stream.removeCursor(cursor));
    assertEquals([memory.used, events], [0, [{ of: "a", event: "gap", from: 10, to: 20 }]]);
  });

  test("is served from where it is attached, and reads ahead", async () => {
    const { stream, push, events } = made({ log: logOf(0) });
    const cursor = await atOnce(stream.addCursor("a", 0, true));
    push(30);
    stream.attach(cursor, new MadeConnection(), 10);
    assertEquals([cursor.connected, cursor.sent, cursor.delivered], [true, 10, 0]);
    assertEquals([cursor.readAhead !== undefined, cursor.behind], [true, true]);
    assertEquals(events, [{ of: "a", event: "spilling", why: "backlog", backlog: 130 }]);
  });

  test("goes to disk as soon as it is away, with what it has not got", async () => {
    const { stream, push, add, events } = made();
    const cursor = await add("a", 0);
    push(30);
    stream.accept(cursor, 20);
    cursor.inFlight = 10;
    stream.miss(cursor, 20, 30);
    stream.detach(cursor);
    assertEquals([cursor.connected, cursor.sent, cursor.dropped], [false, 0, 0]);
    assertEquals(events, [
      { of: "a", event: "gap", from: 20, to: 30 },
      { of: "a", event: "spilling", why: "absent", backlog: 30 },
    ]);
  });

  test("loses what it has not got where nothing is kept for it", async () => {
    const { stream, push, add, memory } = made({ policy: policyOf("close") });
    const cursor = await add("a", 0);
    push(100);
    push(30);
    cursor.holes.push({ from: 100, to: 130 });
    stream.detach(cursor);
    assertEquals([cursor.dropped, cursor.droppedWhileAbsent], [10, 0]);
    assertEquals([cursor.delivered, cursor.sent, cursor.holes, memory.used], [130, 130, [], 0]);
  });

  test("can have all dropped that it has not got", async () => {
    const { stream, push, add } = made({ log: null });
    const [away, here] = [await add("away", 0, "away"), await add("here", 0)];
    push(100);
    here.delivered = 40;
    here.drop(50, 60, 1);
    stream.discard(away);
    stream.discard(here);
    assertEquals([away.dropped, away.droppedWhileAbsent, away.delivered], [10, 10, 100]);
    assertEquals([here.dropped, here.droppedWhileAbsent, here.delivered], [11, 0, 100]);
    assertEquals([here.holes, here.sent, away.sent], [[], 100, 100]);
    // Once more: there is nothing.
    stream.discard(away);
    assertEquals(away.dropped, 10);
    // It has more than has come again.
    here.delivered = 150;
    stream.discard(here);
    assertEquals([here.delivered, here.sent], [150, 150]);
  });

  test("drops block by block but for holes", async () => {
    const { stream, push, add } = made();
    const cursor = await add("a", 0);
    push(100);
    push(100);
    push(100);
    cursor.holes.push({ from: 100, to: 200 });
    stream.discard(cursor);
    assertEquals([cursor.dropped, cursor.delivered], [20, 300]);
  });

  test("has got what the kernel has accepted", async () => {
    const { stream, push, add, events } = made();
    const cursor = await add("a", 0);
    push(50);
    stream.miss(cursor, 0, 10);
    stream.accept(cursor, 20);
    assertEquals([cursor.sent, cursor.delivered], [20, 0]);
    assertEquals(events, [{ of: "a", event: "gap", from: 0, to: 10 }]);
    stream.accept(cursor, 30);
    assertEquals([cursor.sent, stream.pendingOf(cursor)], [50, 0]);
  });

  test("has got what it acknowledges", async (clock) => {
    const { stream, push, add, told, log } = made();
    const cursor = await add("a", 0);
    push(50);
    stream.acknowledge(cursor, 20);
    assertEquals([cursor.delivered, told.safe, clock.timers], [20, 0, 1]);
    stream.acknowledge(cursor, 10);
    assertEquals(cursor.delivered, 20);
    clock.pass(50);
    await settle();
    assertEquals([log.cursors[0]?.durable, told.safe, clock.timers], [20, 1, 0]);
    stream.acknowledge(cursor, 20);
    assertEquals(clock.timers, 0);
    const without = made({ log: null });
    const other = await without.add("a", 0);
    without.push(50);
    without.stream.acknowledge(other, 30);
    assertEquals([other.delivered, without.told.safe, clock.timers], [30, 1, 0]);
    without.stream.acknowledge(other, 30);
    assertEquals(without.told.safe, 1);
  });

  test("lags by what it has not got", async (clock) => {
    const { stream, push, add } = made();
    const cursor = await add("a", 0);
    push(60);
    clock.pass(2000);
    assertEquals(stream.lagOf(cursor), { lagBytes: 60, lagMessages: 6, lagSeconds: 2 });
    stream.accept(cursor, 20);
    assertEquals([stream.pendingOf(cursor), stream.unstoredFor(cursor)], [40, 60]);
    stream.acknowledge(cursor, 60);
    assertEquals(stream.lagOf(cursor), { lagBytes: 0, lagMessages: 0, lagSeconds: 0 });
  });

  test("lags by messages of the usual length where memory has none", async () => {
    const { stream, push } = made();
    push(60);
    push(40);
    const [half, end] = [
      await atOnce(stream.addCursor("half", 50)),
      await atOnce(stream.addCursor("end", 85)),
    ];
    assertEquals([stream.lagOf(half).lagMessages, stream.lagOf(end).lagMessages], [5, 2]);
  });
});

describe("a gap", () => {
  test("is skipped: it is sent and, where all before it is, delivered", async () => {
    const { stream, push, add, events } = made();
    const cursor = await add("a", 0);
    push(50);
    cursor.holes.push({ from: 5, to: 10 }, { from: 15, to: 30 });
    stream.skip(cursor, 10);
    assertEquals([cursor.sent, cursor.delivered, cursor.holes.length], [10, 10, 1]);
    cursor.sent = 15;
    stream.skip(cursor, 30);
    assertEquals([cursor.sent, cursor.delivered, cursor.holes], [30, 10, []]);
    stream.reportGaps();
    assertEquals(events, [
      { of: "a", event: "gap", from: 0, to: 10 },
      { of: "a", event: "gap", from: 15, to: 30, why: "drop-newest" },
    ]);
  });

  test("is reported once it has grown for a second", async (clock) => {
    const { stream, add, events } = made();
    const cursor = await add("a", 0);
    stream.miss(cursor, 0, 10);
    stream.miss(cursor, 10, 20);
    clock.pass(999);
    stream.review();
    assertEquals(events, []);
    clock.pass(1);
    stream.review();
    assertEquals([events, cursor.gaps], [[{ of: "a", event: "gap", from: 0, to: 20 }], 1]);
  });

  const gapOf = async (
    one: ReturnType<typeof made>,
    from: number,
    to: number,
    hole?: [from: number, to: number],
  ) => {
    const cursor = one.stream.cursorOf("a") ?? await one.add("a", 0);
    one.stream.reportGaps();
    one.events.length = 0;
    cursor.holes.length = 0;
    if (hole !== undefined) cursor.holes.push({ from: hole[0], to: hole[1] });
    one.stream.miss(cursor, from, to);
    one.stream.reportGaps();
    const { of: _of, event: _event, ...gap } = one.events[0] as Record<string, unknown>;
    return gap;
  };

  test("is of what was dropped for it", async () => {
    const spill = made();
    assertEquals(await gapOf(spill, 10, 20, [10, 20]), { from: 10, to: 20, why: "drop-newest" });
    assertEquals(await gapOf(spill, 10, 20, [20, 30]), { from: 10, to: 20 });
    const drop = made({ policy: policyOf("drop") });
    assertEquals(await gapOf(drop, 10, 20, [10, 20]), { from: 10, to: 20, why: "drop" });
  });

  test("is of what a killed server had only in memory, at most", async () => {
    const one = made({ replayable: false, log: { end: 50, reserved: 80 } });
    const lost = { why: "killed", atMost: true };
    assertEquals(await gapOf(one, 40, 50), { from: 40, to: 50 });
    assertEquals(await gapOf(one, 40, 51), { from: 40, to: 51, ...lost });
    assertEquals(await gapOf(one, 79, 90), { from: 79, to: 90, ...lost });
    assertEquals(await gapOf(one, 80, 90), { from: 80, to: 90 });
    assertEquals(await gapOf(one, 60, 70, [60, 70]), {
      ...{ from: 60, to: 70, why: "drop-newest", atMost: true },
    });
  });

  test("is of what a repair has skipped, at most", async () => {
    const one = made();
    const to = REPAIR_STEP * 2;
    assertEquals(await gapOf(one, 10, to), { from: 10, to, why: "repair", atMost: true });
    assertEquals(await gapOf(one, 10, to + 1), { from: 10, to: to + 1 });
  });

  test("is of what the source has lost", async () => {
    const one = made();
    one.push(20);
    one.push(10, 50);
    one.push(10);
    assertEquals(await gapOf(one, 10, 20), { from: 10, to: 20 });
    assertEquals(await gapOf(one, 10, 21), { from: 10, to: 21, why: "source" });
    assertEquals(await gapOf(one, 49, 60), { from: 49, to: 60, why: "source" });
    assertEquals(await gapOf(one, 50, 60), { from: 50, to: 60 });
  });

  test("is of what is damaged", async () => {
    const one = made({ log: { damaged: [{ from: 20, to: 30 }] } });
    assertEquals(await gapOf(one, 25, 30), { from: 25, to: 30, why: "damage" });
    assertEquals(await gapOf(one, 30, 40), { from: 30, to: 40 });
    assertEquals(await gapOf(made({ log: null }), 30, 40), { from: 30, to: 40 });
  });

  test("is of what was deleted", async () => {
    const one = made({ log: logOf(0, 100) });
    assertEquals(await atOnce(one.stream.dropOldest("retain")), true);
    assertEquals(await gapOf(one, 99, 120), { from: 99, to: 120, why: "retain" });
    assertEquals(await gapOf(one, 100, 120), { from: 100, to: 120 });
    assertEquals(await atOnce(one.stream.dropOldest("drop-oldest")), true);
    assertEquals(await gapOf(one, 100, 120), { from: 100, to: 120, why: "drop-oldest" });
  });
});

describe("the oldest part on disk", () => {
  test("is deleted, and readers that are away miss it", async (clock) => {
    const { stream, log, add, events } = made({ log: logOf(0, 100) });
    const far = await add("far", 20, "away");
    const near = await add("near", 100, "away");
    const here = await add("here", 0);
    far.holes.push({ from: 50, to: 100 });
    stream.review();
    events.length = 0;
    assertEquals([clock.timers, await atOnce(stream.dropOldest("retain"))], [0, true]);
    stream.reportGaps();
    assertEquals(events, [{ of: "far", event: "gap", from: 20, to: 100, why: "retain" }]);
    assertEquals([far.delivered, far.sent, far.holes], [100, 100, []]);
    assertEquals([near.delivered, near.sent, near.gaps], [100, 100, 0]);
    assertEquals([here.delivered, here.sent, here.gaps], [0, 0, 0]);
    // It is recorded soon.
    assertEquals(clock.timers, 1);
    clock.pass(50);
    await settle();
    assertEquals(log.cursors[0]?.offset, 100);
    assertEquals((await allOf(stream, here))[0], 100);
    stream.reportGaps();
    assertEquals(events[1], { of: "here", event: "gap", from: 0, to: 100, why: "retain" });
  });

  test("is nothing where nothing is stored, or deleted", async () => {
    assertEquals(await atOnce(made({ log: null }).stream.dropOldest("retain")), false);
    const { stream, log } = made();
    assertEquals(await atOnce(stream.dropOldest("retain")), false);
    assertEquals(log.calls, []);
    const other = made({ log: logOf(0) });
    other.log.dropOldest = () => Promise.resolve(0);
    const cursor = await other.add("a", 0);
    assertEquals(await atOnce(other.stream.dropOldest("retain")), false);
    other.stream.miss(cursor, 0, 10);
    // What has not been deleted is not why it is missing.
    other.stream.reportGaps();
    assertEquals(other.events, [{ of: "a", event: "gap", from: 0, to: 10 }]);
  });

  test("is deleted once it is older than it may be", async (clock) => {
    const log = new MadeLog();
    log.store(0, 100);
    clock.pass(50);
    log.store(100, 100);
    clock.pass(50);
    log.store(200, 100);
    const { stream } = made({ log });
    await atOnce(stream.expire(100));
    assertEquals([log.start, log.calls], [0, []]);
    clock.pass(1);
    await atOnce(stream.expire(100));
    assertEquals(log.start, 100);
    await atOnce(stream.expire(50));
    assertEquals(log.start, 200);
    await atOnce(stream.expire(-10));
    assertEquals([log.start, log.end], [300, 300]);
    await atOnce(stream.expire(-10));
    await atOnce(made({ log: null }).stream.expire(0));
  });

  test("is still why it is missing where the next one cannot be deleted", async () => {
    const { stream, log, add, events } = made({ log: logOf(0, 100) });
    assertEquals(await atOnce(stream.dropOldest("retain")), true);
    log.dropOldest = () => Promise.resolve(100);
    assertEquals(await atOnce(stream.dropOldest("drop-oldest")), false);
    stream.miss(await add("a", 50), 50, 100);
    stream.reportGaps();
    assertEquals(events.at(-1), { of: "a", event: "gap", from: 50, to: 100, why: "retain" });
  });

  test("is asked for once where it cannot be deleted", async () => {
    const { stream, log } = made({ log: logOf(0, 100) });
    let asked = 0;
    log.dropOldest = () => Promise.resolve(++asked > 5 ? 100 : 0);
    await atOnce(stream.expire(-10));
    assertEquals(asked, 1);
  });

  test("is told of with what is stored", (clock) => {
    const { stream, log } = made({ log: logOf(0, 100) });
    clock.pass(2500);
    const { stream: name } = log;
    assertEquals(stream.figures, { stream: name, bytes: 200, segments: 2, oldestSeconds: 2.5 });
    assertEquals(made().stream.figures, { stream: name, bytes: 0, segments: 0, oldestSeconds: 0 });
    assertEquals(made({ log: null }).stream.figures, undefined);
  });

  test("may have readers that an earlier process has recorded", () => {
    const log = logOf(0);
    log.cursors = [new MadeCursor("known", 30)];
    const { stream } = made({ log });
    assertEquals([...stream.cursors].map(({ name }) => name), ["known"]);
  });
});
