/**
 * kill -9 under load, as bench/kill.ts does it hundreds of times: 20 kills on the runtime that runs
 * the suite. What is promised, and the bounds of what is not, stand in `brokenPromises`:
 *
 * - what is missing when a reader is killed without having acknowledged: at most what its kernel's
 *   receive buffer may hold (tcp_rmem), and what its runtime had read and not passed on;
 * - what comes twice then: at most what it takes between two looks of the server at what its kernel
 *   acknowledged (10 ms; here 100);
 * - what comes twice when the server is killed: at most what the reader takes until the note of it
 *   is on disk (50 ms, and the 100 of `--sync interval`; here 500).
 */
import { describe, test } from "node:test";
import { assertEquals, assertGreater } from "#std/assert";
import { brokenPromises, killCase } from "../bench/kill.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { within } from "./within.ts";

const CASES = [
  { victim: "server", ack: "reader", sync: "always", kills: 4 },
  { victim: "server", ack: "reader", sync: "off", kills: 3 },
  { victim: "server", ack: "tcp", sync: "interval:100ms", kills: 4 },
  { victim: "reader", ack: "reader", sync: "interval:100ms", kills: 3 },
  { victim: "reader", ack: "reader", sync: "always", kills: 3 },
  { victim: "reader", ack: "tcp", sync: "off", kills: 3 },
] as const;

describe(`kill -9 on ${runtime}`, () => {
  for (const { kills, ...kind } of CASES) {
    const { victim, ack, sync } = kind;
    test(`of the ${victim}, ${kills} times: --ack ${ack} --sync ${sync}`, async () => {
      const figures = await within("all kills", 60_000, killCase(kind, runtime, kills));
      assertEquals(brokenPromises(kind, figures), [], JSON.stringify(figures));
      assertEquals(figures.kills, kills);
      // The kills fell into a stream, and not before it.
      assertGreater(figures.messages, 1000);
    });
  }
});
