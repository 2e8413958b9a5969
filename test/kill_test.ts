/**
 * kill -9 under load, as bench/kill.ts does it hundreds of times: some kills of each source on the
 * runtime that runs the suite. What must hold stands in bench/kill_check.ts; that it notices what does
 * not is tested here as well.
 */
import { describe, test } from "node:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, assertEquals, assertGreater } from "#std/assert";
import { type KillCell, parseCell, planRound } from "../bench/kill_cells.ts";
import { checkReader, missingIn, type ReaderRecord, without } from "../bench/kill_check.ts";
import { killRound } from "../bench/kill_rounds.ts";
import type { KeeperConnection } from "../bench/readers/keeper.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { fillNumbered } from "../src/message/numbered.ts";
import { within } from "./within.ts";
import { randomFrom } from "../bench/random.ts";

const CELLS: Omit<KillCell, "runtime">[] = [
  { source: "flood", ack: "reader", readers: 1 },
  { source: "file", ack: "tcp", readers: 5 },
  { source: "tcp", ack: "reader", readers: 5 },
  { source: "chain", ack: "reader", readers: 1 },
];

describe(`kill -9 on ${runtime}`, () => {
  for (const each of CELLS) {
    const { source, ack, readers } = each;
    test(`${source}, --ack ${ack}, ${readers} readers, 3 times`, async () => {
      const round = killRound({ cell: { ...each, runtime }, seed: 11, round: 1, kills: 3 });
      const { violations, messages, drawn, ...kills } = await within("all kills", 60_000, round);
      assertEquals(violations, [], drawn);
      assertEquals(kills.serverKills + kills.readerKills + kills.upstreamKills, 3);
      assertGreater(messages, 1000);
    });
  }
});

describe("what a seed repeats", () => {
  const cell = parseCell("chain/tcp/5/bun")!;
  const plan = (text: string) => planRound(cell, 20, randomFrom(text));

  test("is the whole plan, and another seed has another", () => {
    assertEquals(plan("1"), plan("1"));
    assert(JSON.stringify(plan("1")) !== JSON.stringify(plan("2")));
    const victims = new Set(plan("1").kills.map(({ victim }) => JSON.stringify(victim)));
    assert(victims.has('"server"') && victims.has('"upstream"') && victims.size > 3);
  });

  test("a cell has a name", () => {
    assertEquals(cell, { source: "chain", ack: "tcp", readers: 5, runtime: "bun" });
    for (const text of ["", "chain", "chain/tcp/5", "chain/tcp/x/bun", "chain/tcp/5/perl"]) {
      assertEquals(parseCell(text), undefined, text);
    }
  });
});

describe("ranges of numbers", () => {
  test("what is missing in some", () => {
    const ranges = [{ from: 5, to: 7 }, { from: 1, to: 3 }, { from: 2, to: 4 }];
    assertEquals(missingIn(ranges, 9), [{ from: 4, to: 5 }, { from: 7, to: 9 }]);
    assertEquals(missingIn(ranges, 7), [{ from: 4, to: 5 }]);
  });

  test("what is left of one without others", () => {
    const others = [{ from: 0, to: 2 }, { from: 4, to: 5 }, { from: 9, to: 20 }];
    assertEquals(without({ from: 1, to: 10 }, others), [{ from: 2, to: 4 }, { from: 5, to: 9 }]);
    assertEquals(without({ from: 4, to: 5 }, others), []);
  });
});

/** Checks a file in which each connection has these numbers. */
function check(
  cell: Omit<KillCell, "runtime" | "readers">,
  connections: { numbers: number[]; why?: KeeperConnection["why"]; offset?: number }[],
  more: Partial<ReaderRecord> = {},
): string[] {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-check-"));
  const size = 64;
  const file = join(folder, "stream");
  const numbers = connections.flatMap(({ numbers }) => numbers);
  const bytes = new Uint8Array(numbers.length * size);
  for (const [i, first] of numbers.entries()) {
    const fill = { first, count: 1, size, plannedMs: 0, everyMs: 0 };
    fillNumbered(bytes.subarray(i * size, (i + 1) * size), fill);
  }
  writeFileSync(file, bytes);
  let at = 0;
  let next = 0;
  const made = connections.map(({ numbers, why = "lost", offset }, i): KeeperConnection => {
    const begin = offset ?? numbers[0]! * size;
    const made = {
      time: 1000 * i,
      at,
      why: i === 0 ? "start" : why,
      requested: next,
      offset: begin,
    };
    at += numbers.length * size;
    next = begin + numbers.length * size;
    return made as KeeperConnection;
  });
  const violations: string[] = [];
  const record = { name: "r", file, size, connections: made, growth: [], end: 6, gapEvents: 0 };
  try {
    checkReader(
      { ...cell, readers: 1, runtime },
      { ...record, serverKills: [], ...more },
      (what) => violations.push(what),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
  return violations;
}

describe("what a reader has stored", () => {
  const acknowledged = { source: "file", ack: "reader" } as const;
  const killed = { time: 500, unstored: undefined, stored: undefined };

  test("is complete over two connections", () => {
    assertEquals(check(acknowledged, [{ numbers: [0, 1, 2] }, { numbers: [3, 4, 5] }]), []);
  });

  test("lacks a message, at the end or between", () => {
    assertEquals(check(acknowledged, [{ numbers: [0, 1, 2] }, { numbers: [4, 5] }]), [
      "reader r: 1 messages missing: 3-3",
    ]);
    assertEquals(check(acknowledged, [{ numbers: [0, 1, 2, 3] }]), [
      "reader r: 2 messages missing: 4-5",
    ]);
  });

  test("has a message twice: none is allowed to that acknowledges, some to another", () => {
    const twice = [{ numbers: [0, 1, 2, 3] }, { numbers: [2, 3, 4, 5] }];
    assertEquals(check(acknowledged, twice, { serverKills: [killed] }), [
      "reader r: 2 messages came twice",
    ]);
    const plain = { source: "file", ack: "none" } as const;
    assertEquals(check(plain, twice, { serverKills: [killed] }), []);
    // Nobody killed the server.
    assertEquals(check(plain, twice), [
      "reader r: 128 bytes came twice after it ended, at most 0 expected",
    ]);
  });

  test("is out of order within a connection", () => {
    assertEquals(check({ source: "file", ack: "tcp" }, [{ numbers: [0, 1, 3, 2, 4, 5] }]), [
      "reader r: 1 messages outOfOrder, the first is 2",
    ]);
  });

  test("lacks what the kernel of a killed reader had: only with --ack reader none", () => {
    const lost = [{ numbers: [0, 1] }, { numbers: [4, 5], why: "start" as const }];
    assertEquals(check({ source: "file", ack: "tcp" }, lost), []);
    assertEquals(check(acknowledged, lost), ["reader r: 2 messages missing: 2-3"]);
  });

  test("lacks what a plain source cannot repeat: the reader is told, and nothing on disk is lost", () => {
    const plain = { source: "tcp", ack: "reader" } as const;
    const lost = [{ numbers: [0, 1], offset: 0 }, { numbers: [4, 5], offset: 500 }];
    const unstored = { ...killed, unstored: { from: 1, to: 4 } };
    assertEquals(check(plain, lost, { serverKills: [unstored] }), []);
    const quiet = [{ numbers: [0, 1], offset: 0 }, { numbers: [4, 5], offset: 128 }];
    assertEquals(check(plain, quiet, { serverKills: [unstored] }), [
      "reader r: messages 2-3 are skipped, and it was not told",
    ]);
    const stored = new Map([["r", [{ from: 1, to: 3 }]]]);
    assertEquals(check(plain, lost, { serverKills: [{ ...unstored, stored }] }), [
      "reader r: messages were on disk at kill 1 of the server, and never came: 2-2",
    ]);
  });
});
