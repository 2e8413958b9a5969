/**
 * Kills (SIGKILL) servers that spill, and their readers, under load, in all combinations of sources,
 * acknowledgements, readers and runtimes; then checks every message of each reader against the
 * guarantees in docs/serve.md.
 *
 *     node --no-warnings bench/kill.ts --kills 200 --out kill.json
 *     node --no-warnings bench/kill.ts --seed 7 --cell tcp/reader/5/bun --round 2
 */
import { choice, flag, option, parseCommandLine, UsageError } from "../src/cli/command_line.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { interrupted, logLine, printLine, runMain } from "../src/cli/program.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { formatMachine } from "../src/report/machine.ts";
import { ProgressLine } from "../src/text/progress.ts";
import { formatTable } from "../src/text/table.ts";
import {
  formatBytes,
  formatSeconds,
  parseCount,
  parseDuration,
  UnitError,
} from "../src/text/units.ts";
import { ACKS, cellName, type KillCell, parseCell, SOURCES } from "./kill_cells.ts";
import { NO_FIGURES } from "./kill_check.ts";
import { killRound, type RoundFigures } from "./kill_rounds.ts";
import { RUNTIMES } from "./programs.ts";
import { describeMachine, writeResult } from "./rows.ts";
import { randomFrom } from "./random.ts";

const spec = {
  name: "kill",
  summary: "Kills servers with a durable queue, and their readers, at random moments under\n" +
    "load. Then it checks every message of each reader, and prints a line for each\n" +
    "guarantee that does not hold; exits with 1 if there is one.",
  usage: ["kill.ts [OPTIONS]"],
  options: {
    kills: option({
      value: "N",
      help: "number of kills, spread over all combinations",
      default: "200",
      parse: (text) => parseCount(text, { most: 100_000 }),
    }),
    seed: option({
      value: "N",
      help: "repeats the same kills (default: a new seed, which is printed)",
      parse: (text) => parseCount(text, { most: 2 ** 31 }),
    }),
    cell: option({
      value: "SOURCE/ACK/READERS/RUNTIME",
      help: "only this combination, such as flood/reader/5/deno: as violations name it",
      parse: parseCellName,
    }),
    round: option({
      value: "N",
      help: "only this round of it, as violations name it; needs --cell",
      parse: (text) => parseCount(text, { most: 100_000 }),
    }),
    runtime: choice({
      help: "the runtime of servers and readers",
      choices: ["all", ...RUNTIMES],
      default: "all",
    }),
    source: choice({
      help: "where the messages come from; chain: from a first server, which is killed as well",
      choices: ["all", ...SOURCES],
      default: "all",
    }),
    time: option({
      value: "TIME",
      help: "begins no round after this time",
      default: "3600s",
      parse: parseDuration,
    }),
    keep: flag("keeps what a round with a violation has stored, and prints where"),
    out: option({
      value: "FILE.json",
      help: "also writes all figures to this file",
      parse: parseOutFile,
    }),
  },
};

function parseCellName(text: string): KillCell {
  const cell = parseCell(text);
  if (cell !== undefined) return cell;
  throw new UnitError(
    `must be SOURCE/ACK/READERS/RUNTIME: one of ${SOURCES.join(", ")}; of ${ACKS.join(", ")}; ` +
      `a number; one of ${RUNTIMES.join(", ")}`,
  );
}

/** Kills in a round: all combinations get some soon, and later rounds many in a row. */
const killsOf = (round: number): number => round === 1 ? 4 : 10;

const CELLS: readonly KillCell[] = SOURCES.flatMap((source) =>
  ACKS.flatMap((ack) =>
    [1, 5].flatMap((readers) => RUNTIMES.map((runtime) => ({ source, ack, readers, runtime })))
  )
);

/** One line of the result: all rounds of a combination. */
export interface KillRow extends KillCell, RoundFigures {
  rounds: number;
  met: boolean;
}

/** Adds a round to what the rounds before it found. */
function addRound(row: KillRow, figures: RoundFigures): void {
  const { violations, ...numbers } = figures;
  for (const key of Object.keys(numbers) as (keyof typeof numbers)[]) {
    const most = key.startsWith("most") || key === "beyondStated";
    row[key] = most ? Math.max(row[key], numbers[key]) : row[key] + numbers[key];
  }
  row.rounds++;
  row.violations.push(...violations);
  row.met = row.violations.length === 0;
}

const HEAD = [
  "source",
  "--ack",
  "readers",
  "runtime",
  "kills",
  "messages",
  "missing",
  "duplicates",
  "out of order",
  "damaged",
  "repeated at most",
  "verdict",
];

function formatRow(row: KillRow): string[] {
  const { source, ack, readers, runtime, messages, duplicates, outOfOrder, damaged, met } = row;
  const kills = row.serverKills + row.upstreamKills + row.readerKills;
  const missing = [
    String(row.missing - row.missingOfSource - row.missingOfReader),
    ...(row.missingOfSource > 0 ? [`${row.missingOfSource} of the source`] : []),
    ...(row.missingOfReader > 0 ? [`${row.missingOfReader} of killed readers`] : []),
  ].join(" + ");
  return [
    ...[source, ack, String(readers), runtime, `${kills}`, `${messages}`, missing],
    ...[duplicates, outOfOrder, damaged].map(String),
    row.mostRepeated === 0 ? "" : formatBytes(row.mostRepeated),
    met ? "holds" : "broken",
  ];
}

interface Job {
  cell: KillCell;
  round: number;
  kills: number;
}

/** The rounds, in an order that depends on the seed: where time runs out, that hits any of them. */
function planJobs(cells: readonly KillCell[], kills: number, seed: number): Job[] {
  const random = randomFrom(`${seed} order`);
  const order = [...cells].map((cell) => ({ cell, key: random() })).sort((a, b) => a.key - b.key);
  const jobs: Job[] = [];
  for (let i = 0, left = kills; left > 0; i++) {
    const { cell } = order[i % order.length]!;
    const round = Math.floor(i / order.length) + 1;
    jobs.push({ cell, round, kills: Math.min(left, killsOf(round)) });
    left -= killsOf(round);
  }
  return jobs;
}

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseCommandLine(spec, args);
  const { kills, cell, round, runtime, source, time, keep, out } = options;
  if (round !== undefined && cell === undefined) throw new UsageError("--round needs --cell");
  const seed = options.seed ?? Math.floor(Math.random() * 1e6);
  const cells = cell !== undefined
    ? [cell]
    : CELLS.filter((each) =>
      (runtime === "all" || each.runtime === runtime) &&
      (source === "all" || each.source === source)
    );
  const jobs = round === undefined || cell === undefined
    ? planJobs(cells, kills, seed)
    : [{ cell, round, kills: Math.min(kills, killsOf(round)) }];
  const runtimes = RUNTIMES.filter((each) => jobs.some(({ cell }) => cell.runtime === each));
  const machine = await describeMachine(runtimes as Runtime[]);
  const progress = new ProgressLine();
  const rows = new Map<string, KillRow>();
  const startMs = performance.now();
  progress.line(`seed ${seed}: ${kills} kills in ${jobs.length} rounds`);
  let done = 0;
  for (const job of jobs) {
    if (performance.now() - startMs > time) break;
    const name = cellName(job.cell);
    progress.update(`${done}/${jobs.length}: ${name}, round ${job.round}`);
    const { drawn, ...figures } = await killRound({ ...job, seed, keeps: keep });
    interrupted().throwIfAborted();
    done++;
    const where = `seed ${seed}, cell ${name}, round ${job.round} (${drawn})`;
    figures.violations = figures.violations.map((what) => `${where}: ${what}`);
    for (const line of figures.violations) logLine(`violation: ${line}`);
    const row = rows.get(name) ?? newRow(job.cell);
    rows.set(name, row);
    addRound(row, figures);
  }
  progress.end();
  const all = [...rows.values()].sort((a, b) => cellName(a).localeCompare(cellName(b)));
  const sum = (of: (row: KillRow) => number) => all.reduce((total, row) => total + of(row), 0);
  const killed = sum((row) => row.serverKills + row.upstreamKills + row.readerKills);
  const broken = sum(({ violations }) => violations.length);
  printLine(formatTable([HEAD, ...all.map(formatRow)]));
  printLine(
    `\nseed ${seed}: ${killed} kills in ${done} of ${jobs.length} rounds, ` +
      `${sum(({ messages }) => messages)} messages, ${
        formatSeconds((performance.now() - startMs) / 1000)
      }; ` +
      `${broken === 0 ? "all guarantees hold" : `${broken} violations`}\n${formatMachine(machine)}`,
  );
  if (out !== undefined) {
    writeResult(out, {
      schema: "speedlimit/kill@2",
      environment: machine,
      options: { kills, seed, runtime, source, ...(cell === undefined ? {} : { cell }) },
      rounds: { planned: jobs.length, done },
      rows: all,
    });
  }
  return broken === 0 ? 0 : 1;
}

const newRow = (cell: KillCell): KillRow => ({
  ...cell,
  ...{ rounds: 0, met: true, serverKills: 0, upstreamKills: 0, readerKills: 0, seconds: 0 },
  ...NO_FIGURES,
  violations: [],
});

if (import.meta.main) await runMain("kill", main);
