/** Overflows of a flood, and the policies: what each does, and to which messages. */
import { describe, test } from "node:test";
import { assertEquals, assertGreater } from "#std/assert";
import { textMessage } from "../src/message/message.ts";
import {
  FULL_AFTER_MS,
  isFloodPolicy,
  type Overflowing,
  type Policy,
  POLICY_NAMES,
  policyOf,
} from "../src/send/overflow.ts";
import { open } from "./send_by_hand.ts";
import { within } from "./within.ts";

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
    const inside = open({ policy: "drop", writeSize: 6 }, 0);
    inside.flood.start(1000, 0);
    await inside.ticker.tick(2);
    inside.connection.blockedSince = 2;
    await inside.ticker.tick(5);
    // The write that waits has one and a half messages.
    assertEquals([inside.flood.dropped, inside.connection.offers], [3, [6]]);
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
    flood.drop();
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
    drop: ["drop"],
    "drop-oldest": ["drop"],
    // The backlog is stored as soon as it is above the bound.
    spill: [],
  };
  for (const name of POLICY_NAMES) {
    test(`${name} does what it says`, () => {
      const calls: string[] = [];
      const backlog: Overflowing = {
        drop: () => void calls.push("drop"),
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
    assertEquals(POLICY_NAMES, ["close", "reset", "block", "drop", "drop-oldest", "spill"]);
    assertEquals(which(isFloodPolicy), ["close", "reset", "block", "drop", "drop-oldest"]);
    assertEquals(which((name) => policyOf(name).needsQueue), ["spill"]);
    assertEquals(which((name) => policyOf(name).makesSourceWait), ["block"]);
    assertEquals(which((name) => policyOf(name).drops !== undefined), ["drop", "drop-oldest"]);
    assertEquals(
      which((name) => policyOf(name).keepsForAbsentReaders),
      ["block", "drop", "drop-oldest", "spill"],
    );
  });
});
