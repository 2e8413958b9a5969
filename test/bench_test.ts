/**
 * The cross-runtime benchmark as a person runs it: a small one, one that is interrupted and resumed,
 * what is skipped, and its files.
 */
import { after, describe, test } from "node:test";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import process from "node:process";
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertGreater,
  assertMatch,
  assertThrows,
} from "#std/assert";
import { assemble, readBench, readBenchLines } from "../src/report/bench_file.ts";
import {
  BENCH_SCHEMA,
  type BenchHeader,
  type BenchResult,
  type BenchRun,
  type ReaderFigures,
  type SenderFigures,
} from "../src/report/bench_result.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { formatBench } from "../bench/bench_table.ts";
import { run } from "./process.ts";

const folder = mkdtempSync(join(tmpdir(), "speedlimit-bench-"));
after(() => rmSync(folder, { recursive: true }));

/** A search of each of the two readers in C, and a flood. */
const SMALL = [
  ...["--quick", "--readers", "c", "--senders", "c"],
  ...["--size", "13", "--runs", "1", "--precision", "20%"],
];
const bench = ["bench/runtimes.ts"];
const jsonLines = (out: string) => {
  const [name] = readdirSync(out).filter((name) => name.endsWith(".jsonl"));
  return join(out, name!);
};

/** A search may find no limit while a neighbour has the core, which is told and exits 1. */
const statusOf = ({ rows }: BenchResult) => rows.every(({ rate }) => rate !== null) ? 0 : 1;

/** What must hold however fast this machine is at the moment: of each row, what its runs have said. */
function assertResult(result: BenchResult): void {
  assertEquals(result.runs, 1);
  assertMatch(result.command, /^npm run bench -- --quick --readers c --senders c --size 13/);
  const [naive, drain, sender, control] = result.rows;
  assertEquals(naive!.cell, { kind: "reader", who: "c", mode: "naive", size: 13 });
  assertEquals(drain!.cell, { kind: "reader", who: "c", mode: "drain", size: 13 });
  for (const { rate, overload, runs } of [naive!, drain!]) {
    const figures = runs[0] as ReaderFigures;
    const { outcome, limit, keepsUpAt, limitedBy, series } = figures;
    const what = JSON.stringify(figures);
    assertGreater(keepsUpAt, 0, what);
    if (outcome !== "found") {
      assertMatch(outcome, /^(irregular|generator-limited|path-limited)$/, what);
      continue;
    }
    assertEquals(limitedBy, "reader", what);
    assertEquals([rate!.min, rate!.max], [limit!.lower, limit!.upper]);
    assert(rate!.min <= rate!.median && rate!.median <= rate!.max, what);
    assert(overload !== null && overload !== undefined && overload.drained > 0, what);
    for (const { time, offered, drained, backlog, window } of Object.values(series!)) {
      assertGreater(time.length, 10);
      for (const each of [offered, drained, backlog, window]) {
        assertEquals(each.length, time.length);
      }
      for (const [i, each] of backlog.entries()) {
        // Of the same sample; each is rounded, and the backlog also has what waited before it.
        assertAlmostEquals(each - backlog[0]!, offered[i]! - drained[i]!, 2);
      }
    }
  }
  for (const { rate, runs } of [sender!, control!]) {
    const rates = runs.map((figures) => (figures as SenderFigures).bytesPerSecond);
    assertEquals([rate!.min, rate!.max], [Math.min(...rates), Math.max(...rates)]);
    assertGreater(rate!.min, 0);
  }
  // A hundred times apart on any machine: 10 bytes a read against 64 KiB, and 13 bytes a send.
  if (naive!.rate !== null && drain!.rate !== null) {
    assertGreater(drain!.rate.median, naive!.rate.median);
  }
  assertGreater(control!.rate!.median, sender!.rate!.median);
}

const onPath = (name: string) =>
  (process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, name)).find(existsSync);

describe(`bench on ${runtime}`, () => {
  test("is interrupted, goes on with its file, and writes all of it", async () => {
    const out = join(folder, "resumed");
    const first = await run([...bench, ...SMALL, "--out", out], {
      timeoutMs: 90_000,
      // The fourth run is on its way then.
      signalAfter: { pattern: /^ +3\/\d/m },
    });
    assertEquals(first.status, 130, first.stderr);
    assertMatch(first.stderr, /^\d+ runs, about \d+ s$/m);
    assertMatch(first.stderr, /interrupted: bench --resume/);
    assertEquals(first.stdout, "");
    const path = jsonLines(out);
    const before = readBenchLines(path);
    assertEquals(before.end, undefined);
    assertEquals(readBench(path).complete, false);
    assert(!readdirSync(out).includes("latest.json"));

    // As if the machine had stopped in the middle of a line.
    appendFileSync(path, '{"type":"run","cell":0,');
    assertThrows(() => readBench(path), Error, "is truncated in its last line");
    const second = await run([...bench, "--resume", "--json", "--out", out], { timeoutMs: 90_000 });
    const result = readBench(join(out, "latest.json"));
    assertEquals(second.status, statusOf(result), second.stderr);
    assertMatch(second.stderr, /runs of \d+ left, about/);
    assertMatch(second.stderr, /^ *\d+\/\d+ .*c \w+, 13: .* s; .* left$/m);
    assertEquals(JSON.parse(second.stdout), JSON.parse(JSON.stringify(result)));
    const whole = readBenchLines(path);
    assertEquals(whole.runs.slice(0, before.runs.length), before.runs);
    const { cells } = before.header;
    const floods = cells.filter(({ kind }) => kind !== "reader").length;
    // A warm-up and two that count; of readers one.
    assertEquals(whole.runs.length, cells.length + 2 * floods);
    assert(result.complete);
    assertResult(result);
    assertEquals(readBench(path).rows, result.rows);
    const table = formatBench(result);
    assertMatch(table, /^c naive, 13 /m);
    assertMatch(table, /^control, 13 /m);

    const third = await run([...bench, "--resume", "--out", out]);
    assertEquals(third.status, 1);
    assertMatch(third.stderr, /^bench: nothing to resume: .* is complete$/m);
  });

  test("skips what is not installed, and says so", async () => {
    // PATH has a compiler, and no Python.
    const bin = join(folder, "bin");
    mkdirSync(bin);
    for (const name of ["cc", "gcc", "as", "ld", "cat"]) {
      const file = onPath(name);
      if (file !== undefined) symlinkSync(file, join(bin, name));
    }
    const out = join(folder, "skipped");
    const options = ["--quick", "--readers", "python", "--senders", "c", "--size", "1k"];
    const ran = await run([...bench, ...options, "--runs", "1", "--out", out], {
      env: { PATH: bin },
      timeoutMs: 60_000,
    });
    assertMatch(ran.stderr, /^skipped: python naive, 1k: no python3$/m);
    assertMatch(ran.stdout, /^python naive, 1k +skipped: no python3$/m);
    assertMatch(ran.stdout, /^python drain, 1k +skipped: no python3$/m);
    assertMatch(ran.stdout, /^iperf3, 1k +skipped: no iperf3$/m);
    assertEquals(ran.status, 0, ran.stderr);
    if (onPath("cc") !== undefined) assertMatch(ran.stdout, /^control, 1k +\S+ .B\/s/m);
    const { rows, skipped } = readBench(join(out, "latest.json"));
    assertEquals(rows.filter(({ cell }) => cell.who === "python"), []);
    assertEquals(skipped[0], {
      cell: { kind: "reader", who: "python", mode: "naive", size: 1024 },
      why: "no python3",
    });
  });

  for (
    const [args, message] of [
      [["--readers", "deno,perl"], /--readers "deno,perl" must be some of .*"perl" is not/],
      [["--size", "13,none"], /--size "13,none" must be sizes such as 13,1k,64k/],
      [["--runs", "0"], /--runs "0" must be a whole number/],
      [["--precision", "2"], /--precision "2" must be a share/],
      [["--readers", "none", "--senders", "none"], /leave nothing to measure/],
      [
        ["--resume", "--quick"],
        /--resume keeps the options of the first start: --quick cannot be combined/,
      ],
      [["--fast"], /unknown option "--fast"/],
    ] as const
  ) {
    test(`refuses ${args.join(" ")}`, async () => {
      const ran = await run([...bench, ...args, "--out", join(folder, "refused")]);
      assertEquals(ran.status, 2, ran.stderr);
      assertEquals(ran.stdout, "");
      assertMatch(ran.stderr, /^bench: .* \(see --help\)\n$/);
      assertMatch(ran.stderr, message);
    });
  }

  test("has nothing to resume in an empty folder", async () => {
    const ran = await run([...bench, "--resume", "--out", join(folder, "empty")]);
    assertEquals(ran.status, 1);
    assertMatch(ran.stderr, /^bench: nothing to resume: no bench-\*\.jsonl in /);
  });
});

const header: BenchHeader = {
  type: "header",
  schema: BENCH_SCHEMA,
  id: "a",
  machine: {
    date: "2026-01-01T00:00:00.000Z",
    cpu: "one",
    cores: 2,
    memory: 1,
    kernel: "Linux",
    runtimes: {},
    loadBefore: 0,
  },
  generator: { runtime: "deno 2", kernelSource: "sock_diag" },
  programs: {},
  command: "npm run bench",
  quick: false,
  precision: 0.01,
  runs: 2,
  warmUps: 1,
  cells: [
    { kind: "reader", who: "c", mode: "naive", size: 13 },
    { kind: "control", who: "c", size: 13 },
  ],
  skipped: [],
};

function flood(round: number, bytesPerSecond: number): BenchRun {
  const figures = { bytesPerSecond, senderBusy: 1, readerBusy: 0, limitedBy: "sender" as const };
  return { type: "run", cell: 1, round, date: "", seconds: 2, figures };
}

function search(round: number, figures: Partial<ReaderFigures>): BenchRun {
  return {
    type: "run",
    cell: 0,
    round,
    date: "",
    seconds: 3,
    figures: {
      outcome: "found",
      message: "the limit was found and confirmed by longer trials",
      limit: null,
      overload: null,
      recovery: null,
      trials: [],
      keepsUpAt: 0,
      limitedBy: "reader",
      ...figures,
    },
  };
}

const limit = (lower: number, upper: number) => ({ lower, upper, messagesPerSecond: lower / 13 });

describe("a result of bench", () => {
  test("drops the warm-up, and has the middle, the least and the most", () => {
    const runs = [flood(0, 1000), flood(1, 30), flood(2, 10), flood(3, 20)];
    const { rows, complete, seconds } = assemble(header, runs, undefined);
    assertEquals(rows[1]!.rate, { median: 20, min: 10, max: 30 });
    assertEquals(rows[0]!.rate, null);
    assertEquals(complete, false);
    assertEquals(seconds, 8);
  });

  test("knows of a reader's limit what all its bounds say", () => {
    const runs = [search(1, { limit: limit(10, 12) }), search(2, { limit: limit(14, 16) })];
    const end = { type: "end" as const, date: "", seconds: 7 };
    const { rows, complete, seconds } = assemble(header, runs, end);
    assertEquals(rows[0]!.rate, { median: 13, min: 10, max: 16 });
    assertEquals([complete, seconds], [true, 7]);
  });

  test("takes a limit of the generator for no limit of the reader", () => {
    const outcome = "generator-limited" as const;
    const runs = [search(1, { limit: limit(10, 12) }), search(2, { outcome, keepsUpAt: 20 })];
    assertEquals(assemble(header, runs, undefined).rows[0]!.rate, {
      median: 15.5,
      min: 10,
      max: 20,
      atLeast: true,
    });
  });

  test("has no rate where nothing was found", () => {
    const failed: BenchRun = { ...search(2, {}), figures: { failed: "it broke" } };
    const runs = [search(1, { outcome: "reader-failed", limitedBy: "unknown" }), failed];
    const [row] = assemble(header, runs, undefined).rows;
    assertEquals(row!.rate, null);
    assertEquals(row!.overload, null);
    assertEquals(row!.runs.length, 2);
  });

  for (
    const [name, text, message] of [
      ["cut.json", '{"schema":"speedlimit/bench@2","rows":[', "is truncated or is not JSON"],
      [
        "other.json",
        '{"schema":"speedlimit/bench@9"}',
        "its schema is speedlimit/bench@9, which must",
      ],
      ["none.json", "{}", "it has no schema"],
      ["rows.json", '{"schema":"speedlimit/bench@2"}', "it has no rows"],
      ["empty.jsonl", "", "is truncated in its first line"],
      ["other.jsonl", '{"schema":"x"}\n', "its schema is x"],
      ["damaged.jsonl", `${JSON.stringify(header)}\n{"type":\n`, "is damaged in line 2"],
      ["cell.jsonl", `${JSON.stringify(header)}\n{"type":"run","cell":9}\n`, "in line 2"],
    ] as const
  ) {
    test(`is refused: ${name}`, () => {
      const path = join(folder, name);
      writeFileSync(path, text);
      const error = assertThrows(() => readBench(path), Error, message);
      assertEquals(error.message.includes("\n"), false);
    });
  }

  test("is refused when it is not there", () => {
    assertThrows(() => readBench(join(folder, "absent.json")), Error, "cannot read");
  });
});
