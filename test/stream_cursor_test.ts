/** How far one reader has come: what was sent to it, what is dropped for it, and what it needs. */
import { describe, test } from "node:test";
import { assert, assertEquals } from "#std/assert";
import type { Cursor, Log } from "../src/queue/queue.ts";
import { type CursorConnection, StreamCursor } from "../src/relay/stream_cursor.ts";
import { withClock } from "./made_clock.ts";

const cursorAt = (offset: number, offered = offset) =>
  new StreamCursor("reader", offset, undefined, offered);
const FREE: CursorConnection = { blockedSince: undefined };

describe("a cursor", () => {
  test("begins with nothing", () => {
    const { ...fields } = cursorAt(100);
    assertEquals(fields, {
      name: "reader",
      stored: undefined,
      delivered: 100,
      sent: 100,
      inFlight: 0,
      behind: false,
      holes: [],
      dropped: 0,
      droppedWhileAbsent: 0,
      gaps: 0,
      behindFrom: 0,
    });
  });

  test("has its record", () => {
    const stored = {} as Cursor;
    assert(new StreamCursor("reader", 100, stored, 100).stored === stored);
  });

  test("is connected from its begin to its end", () => {
    const cursor = cursorAt(100);
    assertEquals([cursor.connected, cursor.isStuck], [false, true]);
    cursor.begin(FREE, 100, undefined);
    assertEquals([cursor.connected, cursor.isStuck], [true, false]);
    cursor.end();
    assertEquals([cursor.connected, cursor.isStuck], [false, true]);
    cursor.begin({ blockedSince: 5 }, 100, undefined);
    assertEquals([cursor.connected, cursor.isStuck], [true, true]);
  });

  test("continues at what is not delivered", () => {
    const cursor = cursorAt(100);
    cursor.begin(FREE, 120, undefined);
    assertEquals([cursor.delivered, cursor.sent], [100, 120]);
    cursor.sent = 500;
    cursor.inFlight = 50;
    cursor.delivered = 300;
    cursor.end();
    assertEquals([cursor.delivered, cursor.sent, cursor.inFlight], [300, 300, 0]);
  });

  test("reads ahead while it is connected, where there is a log", () => {
    const cursor = cursorAt(100);
    cursor.begin(FREE, 100, undefined);
    assertEquals(cursor.readAhead, undefined);
    cursor.end();
    cursor.begin(FREE, 100, {} as Log);
    const { readAhead } = cursor;
    assert(readAhead !== undefined);
    let stopped = 0;
    readAhead.stop = () => stopped++;
    cursor.end();
    assertEquals([cursor.readAhead, stopped], [undefined, 1]);
  });

  test("is expected for a second, until it is connected", () =>
    withClock((clock) => {
      const cursor = cursorAt(100);
      assertEquals(cursor.isExpected, false);
      cursor.expect();
      clock.pass(999);
      assertEquals(cursor.isExpected, true);
      clock.pass(1);
      assertEquals(cursor.isExpected, false);
      cursor.expect();
      cursor.begin(FREE, 100, undefined);
      assertEquals(cursor.isExpected, false);
      cursor.end();
      assertEquals(cursor.isExpected, false);
    }));
});

describe("what may have been sent to a reader", () => {
  test("is what an earlier process may have sent, and all that was on their way since", () => {
    const cursor = cursorAt(100, 400);
    assertEquals(cursor.offered, 400);
    cursor.begin(FREE, 100, undefined);
    cursor.sent = 380;
    cursor.inFlight = 20;
    assertEquals(cursor.offered, 400);
    cursor.inFlight = 21;
    assertEquals(cursor.offered, 401);
    cursor.end();
    assertEquals([cursor.sent, cursor.offered], [100, 401]);
    cursor.begin(FREE, 100, undefined);
    assertEquals(cursor.offered, 401);
  });

  test("is not less where a connection begins before it", () => {
    const cursor = cursorAt(100, 50);
    cursor.begin(FREE, 60, undefined);
    assertEquals([cursor.sent, cursor.offered], [60, 100]);
  });
});

describe("messages that are dropped for one reader", () => {
  test("are counted", () => {
    const cursor = cursorAt(100);
    cursor.drop(200, 220, 2);
    assertEquals([cursor.dropped, cursor.droppedWhileAbsent], [2, 2]);
    cursor.begin(FREE, 100, undefined);
    cursor.drop(240, 270, 3);
    assertEquals([cursor.dropped, cursor.droppedWhileAbsent], [5, 2]);
    cursor.end();
    cursor.drop(280, 290, 1);
    assertEquals([cursor.dropped, cursor.droppedWhileAbsent], [6, 3]);
  });

  test("are one hole where they join", () => {
    const cursor = cursorAt(100);
    cursor.drop(200, 220, 2);
    cursor.drop(220, 230, 1);
    cursor.drop(231, 240, 1);
    cursor.drop(240, 245, 1);
    assertEquals(cursor.holes, [{ from: 200, to: 230 }, { from: 231, to: 245 }]);
  });

  test("are found by their offsets", () => {
    const cursor = cursorAt(100);
    assertEquals([cursor.holeAt(200), cursor.holeAfter(200)], [undefined, Infinity]);
    cursor.drop(200, 220, 2);
    const first = { from: 200, to: 220 };
    assertEquals([199, 200, 219, 220].map((at) => cursor.holeAt(at)), [
      ...[undefined, first, first, undefined],
    ]);
    assertEquals([199, 200, 220].map((at) => cursor.holeAfter(at)), [200, Infinity, Infinity]);
    cursor.drop(240, 250, 1);
    assertEquals([220, 240, 249].map((at) => cursor.holeAt(at)?.from), [undefined, 240, 240]);
    assertEquals([199, 200, 239, 240].map((at) => cursor.holeAfter(at)), [200, 240, 240, Infinity]);
  });

  test("are forgotten once they are passed", () => {
    const cursor = cursorAt(100);
    for (const at of [200, 240, 280, 320]) cursor.drop(at, at + 20, 1);
    const left = () => cursor.holes.map(({ from }) => from);
    cursor.passHoles(219);
    assertEquals(left(), [200, 240, 280, 320]);
    cursor.passHoles(220);
    assertEquals(left(), [240, 280, 320]);
    // A connection begins after some of them.
    cursor.begin(FREE, 310, undefined);
    assertEquals(left(), [320]);
    cursor.passHoles(400);
    assertEquals(left(), []);
  });
});

test("a reader needs all that is not delivered, but for what is dropped", () => {
  const cursor = cursorAt(150);
  assertEquals(cursor.needs(100, 140), false);
  assertEquals(cursor.needs(100, 150), false);
  assertEquals(cursor.needs(100, 151), true);
  cursor.drop(200, 220, 2);
  assertEquals(cursor.needs(200, 220), false);
  assertEquals(cursor.needs(205, 215), false);
  assertEquals(cursor.needs(199, 220), true);
  assertEquals(cursor.needs(200, 221), true);
  assertEquals(cursor.needs(220, 221), true);
  cursor.delivered = 205;
  assertEquals(cursor.needs(180, 220), false);
  assertEquals(cursor.needs(180, 221), true);
});
