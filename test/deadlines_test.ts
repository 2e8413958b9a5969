/** Deadlines of a sender for a reader that is behind: with a clock of the test's own, and in a server. */
import { describe, test } from "node:test";
import { assert, assertEquals } from "#std/assert";
import { DeadlineWatch } from "../src/send/deadlines.ts";
import { serving, SIZE } from "./serve_here.ts";

describe("a soft limit", () => {
  test("passes once the backlog has been above it for long enough without a break", () => {
    const watch = new DeadlineWatch({ after: { bytes: 100, ms: 1000 } });
    const at = (ms: number, backlog: number) => watch.check(backlog, 0, ms);
    assertEquals(at(0, 200), undefined);
    assertEquals(at(900, 200), undefined);
    assertEquals(at(950, 100), undefined);
    assertEquals(at(1100, 101), undefined);
    assertEquals(at(2099, 5000), undefined);
    assertEquals(at(2100, 101), "after");
  });
});

describe("a write deadline", () => {
  test("passes if what was due at one moment is not taken in time, whatever came later", () => {
    const watch = new DeadlineWatch({ writeDeadlineMs: 1000 });
    assertEquals(watch.check(0, 500, 0), undefined);
    assertEquals(watch.check(100, 500, 10), undefined);
    // 600 bytes were due then; they are taken after 990 ms, and 700 more are due.
    assertEquals(watch.check(700, 599, 999), undefined);
    assertEquals(watch.check(700, 600, 1000), undefined);
    assertEquals(watch.check(900, 1299, 1999), undefined);
    assertEquals(watch.check(900, 1299, 2000), "writeDeadline");
  });

  test("does not pass while nothing is due", () => {
    const watch = new DeadlineWatch({ writeDeadlineMs: 10 });
    for (let ms = 0; ms < 100; ms += 5) assertEquals(watch.check(0, 700, ms), undefined);
  });
});

/** The messages of a queue with a name are relayed, the others are a plain flood. */
for (
  const [kind, more] of [["a flood", {}], ["a relay", { readerId: "address" as const }]] as const
) {
  for (
    const [passed, deadline] of [
      ["after", { after: { bytes: 10 * SIZE, ms: 200 } }],
      ["writeDeadline", { writeDeadlineMs: 300 }],
    ] as const
  ) {
    test(`${kind} disconnects a reader that does not read: ${passed}`, async () => {
      await serving(
        { overflow: "close", sendBuffer: 4608, ...deadline, ...more },
        async (served) => {
          const reader = await served.connect();
          const { messages } = await served.saw("overflow");
          const { reason, seconds } = await served.saw("closed");
          assertEquals(served.all("overflow").map((event) => event.passed), [passed]);
          assertEquals(reason, "local");
          assert(messages > 0 && seconds >= 0.2, `${messages} messages, ${seconds} s`);
          reader.close();
        },
      );
    });
  }
}
