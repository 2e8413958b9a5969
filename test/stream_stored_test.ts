/** What a stream stores and records, while it runs and at its end. */
import { describe, test as plainTest } from "node:test";
import { assertEquals } from "#std/assert";
import { policyOf } from "../src/send/overflow.ts";
import { type MadeClock, settle, withClock } from "./made_clock.ts";
import { atOnce, made } from "./made_stream.ts";

const test = (title: string, body: (clock: MadeClock) => void | Promise<void>) =>
  plainTest(title, () => withClock(body));

describe("at its end a stream", () => {
  test("stores what is in memory, and records its readers and what may have been sent", async () => {
    const { stream, log, push, add, events, told } = made();
    const [cursor, away] = [await add("here", 0), await add("away", 0, "away")];
    push(60);
    stream.acknowledge(cursor, 25);
    away.sent = 80;
    stream.miss(cursor, 0, 10);
    log.calls.length = 0;
    await atOnce(stream.store());
    assertEquals(events.slice(0, 1), [{ of: "here", event: "gap", from: 0, to: 10 }]);
    assertEquals([log.start, log.end, log.reserved], [0, 60, 80]);
    assertEquals(log.cursors.map(({ durable }) => durable), [25, 0]);
    assertEquals(log.calls[0], "append 0 60");
    assertEquals(log.calls.at(-1), "reserve 80");
    assertEquals(told.safe > 0, true);
  });

  test("reserves all of it where no reader has more", async () => {
    const { stream, log, push, add } = made();
    await add("here", 0);
    push(60);
    await atOnce(stream.store());
    assertEquals(log.reserved, 60);
  });

  test("records later on what comes after it, until it has ended", async (clock) => {
    const { stream, log, push, add } = made();
    const cursor = await add("here", 0);
    push(60);
    await atOnce(stream.store());
    stream.acknowledge(cursor, 30);
    clock.pass(50);
    await settle();
    assertEquals(log.cursors[0]?.durable, 30);
    stream.acknowledge(cursor, 40);
    stream.end();
    stream.acknowledge(cursor, 50);
    clock.pass(1000);
    await settle();
    assertEquals([log.cursors[0]?.durable, clock.timers], [30, 0]);
  });

  test("records nothing by itself while it stores", async (clock) => {
    const { stream, log, push, add } = made();
    const cursor = await add("here", 0);
    push(60);
    stream.acknowledge(cursor, 10);
    let store = () => {};
    log.held.set("append", new Promise((resolve) => store = resolve));
    const storing = stream.store();
    clock.pass(50);
    await settle();
    assertEquals(log.calls.filter((call) => call === "settled").length, 0);
    store();
    await atOnce(storing);
    assertEquals(log.cursors[0]?.durable, 10);
  });

  test("tells its gaps without a log, too", async () => {
    const { stream, add, events } = made({ log: null });
    stream.miss(await add("a", 0), 0, 10);
    await atOnce(stream.store());
    assertEquals(events.length, 1);
    stream.end();
  });

  test("does not try again what found no room", async (clock) => {
    const { stream, log, push, add } = made();
    await add("away", 0, "away");
    push(60);
    log.full = "max";
    await atOnce(stream.store());
    stream.end();
    const { length } = log.calls;
    log.full = undefined;
    clock.pass(10_000);
    await settle();
    assertEquals([log.calls.length, log.end], [length, 0]);
  });

  test("keeps on disk what its readers have not got, once the source has ended", async () => {
    const { stream, push, add, events } = made();
    const cursor = await add("a", 0);
    push(200);
    stream.review();
    stream.finish();
    cursor.sent = cursor.delivered = 200;
    stream.review();
    assertEquals([cursor.behind, events.length], [true, 1]);
  });
});

describe("what is stored", () => {
  test("is told, and is safe with the next record", async (clock) => {
    const { stream, push, add, told, log } = made({ durable: true });
    const cursor = await add("a", 0);
    push(100);
    const { fresh, safe } = told;
    clock.pass(20);
    await settle();
    assertEquals([log.end, log.durableEnd], [100, 0]);
    assertEquals([told.fresh - fresh, told.safe - safe], [1, 1]);
    stream.accept(cursor, 100);
    clock.pass(50);
    await settle();
    assertEquals([log.durableEnd, told.safe - safe], [100, 2]);
  });

  test("is stored at once where it is a whole block", async () => {
    const { push, log } = made({ durable: true, log: {} });
    push(100);
    push(100);
    await settle();
    assertEquals(log.end, 100);
  });

  test("frees memory", async () => {
    const { push, add, memory, stream } = made();
    await add("away", 0, "away");
    push(100);
    push(100);
    stream.review();
    assertEquals(memory.used, 200);
    await settle();
    assertEquals(memory.used, 100);
  });

  test("is recorded on demand", async () => {
    const { stream, add, push, log } = made();
    const cursor = await add("a", 0);
    push(60);
    cursor.delivered = 25;
    await atOnce(stream.record());
    // From the start of a message on, as it is not on disk.
    assertEquals(log.cursors[0]?.durable, 20);
  });

  test("is what a policy without a disk never has", async () => {
    const { push, add, stream } = made({ log: null, policy: policyOf("block") });
    await add("a", 0);
    push(60);
    assertEquals(await atOnce(stream.record()), undefined);
  });
});
