/** How much lies unread at real readers of a server with `unread`. */
import { describe, test, type TestContext } from "node:test";
import { assert, assertEquals, assertGreater, assertLessOrEqual } from "#std/assert";
import { ConnectionLookup, kernelSource } from "../src/kernel/kernel.ts";
import type { Connection } from "../src/net/net.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { assertUnbroken, serving } from "./serve_here.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

const QUANTUM = 16 << 10;

function withoutQueues(t: TestContext): boolean {
  if (kernelSource === "sock_diag") return false;
  skip(t, `the reader's queue is not seen: source is ${kernelSource}`);
  return true;
}

/** What lies in a reader's receive queue. */
const queueOf = (reader: Connection): number =>
  new ConnectionLookup(reader.local, reader.remote, () => reader.fd).state().near?.receiveQueue ??
    0;

/** Reads a part of the unbroken series of messages. */
async function read(reader: Connection, from: number, bytes: number): Promise<number> {
  let at = from;
  while (at < from + bytes) {
    const chunk = await within("the next bytes", 10_000, reader.read(4096));
    assert(chunk !== null);
    assertUnbroken(at, chunk);
    at += chunk.length;
  }
  return at;
}

for (
  const [kind, more] of [["a flood", {}], ["a relay", { readerId: "address" as const }]] as const
) {
  describe(`${kind} with a bound for what is unread, on ${runtime}`, () => {
    test("sends no more than that to a reader that does not read, and goes on when it has", async (t) => {
      if (withoutQueues(t)) return;
      await serving(
        { overflow: "block", unread: QUANTUM, rate: Infinity, ...more },
        async ({ connect }) => {
          const reader = await connect();
          let at = 0;
          for (let i = 0; i < 3; i++) {
            // Our adapters may have read ahead a little; nothing is, before the first read.
            if (i === 0) {
              await until("a full queue", 5000, () => queueOf(reader) === QUANTUM);
              await new Promise((done) => setTimeout(done, 100));
              assertEquals(queueOf(reader), QUANTUM);
            }
            at = await read(reader, at, 2 * QUANTUM);
            assertLessOrEqual(queueOf(reader), QUANTUM);
          }
          assertGreater(at, 6 * QUANTUM - 1);
        },
      );
    });

    test("auto: a reader that reads everything gets ever more at once", async (t) => {
      if (withoutQueues(t)) return;
      await serving(
        { overflow: "block", unread: "auto", rate: Infinity, ...more },
        async ({ connect }) => {
          const reader = await connect();
          await within("40 MB", 30_000, read(reader, 0, 40e6));
        },
      );
    });
  });
}
