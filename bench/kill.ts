/**
 * Kills (SIGKILL) a server that spills, or its reader, hundreds of times under load. Counts missing,
 * duplicate, out-of-order and damaged messages, and checks them against the guarantees.
 *
 *     node --no-warnings bench/kill.ts --kills 200 --out kill.json
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { choice, option, parseCommandLine } from "../src/cli/command_line.ts";
import { environment } from "../src/kernel/environment.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import { ProgressLine } from "../src/text/progress.ts";
import { openSqliteQueue } from "../src/queue/sqlite_queue.ts";
import { formatTable } from "../src/text/table.ts";
import { parseCount } from "../src/text/units.ts";
import { type KillOptions, killRounds, type KillTotals } from "./kill_rounds.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { RUNTIMES } from "./programs.ts";
import { describeMachine, writeResult } from "./rows.ts";
import { formatMachine } from "../src/report/machine.ts";
import { parseOutFile } from "../src/cli/out_file.ts";

const spec = {
  name: "kill",
  summary: "Kills a server with a durable queue, or its reader, many times under load. Then\n" +
    "it checks every message and reports which guarantees hold. Exits with 1 if one\n" +
    "does not.",
  usage: ["kill.ts [OPTIONS]"],
  options: {
    runtime: choice({
      help: "the runtime of server and reader",
      choices: ["all", ...RUNTIMES],
      default: "all",
    }),
    kills: option({
      value: "N",
      help: "number of kills on each runtime, spread over all combinations",
      default: "200",
      parse: (text) => parseCount(text, { most: 100_000 }),
    }),
    out: option({
      value: "FILE.json",
      help: "also writes all figures to this file",
      parse: parseOutFile,
    }),
  },
};

/** Which program is killed, and the options that decide the guarantees. */
export type KillCase = Pick<KillOptions, "victim" | "ack" | "sync">;

const KILL_CASES: readonly KillCase[] = (["server", "reader"] as const).flatMap((victim) =>
  (["reader", "tcp"] as const).flatMap((ack) =>
    ["always", "interval:100ms", "off"].map((sync) => ({ victim, ack, sync }))
  )
);

/** Length of the messages in kill_rounds.ts; bytes. */
const SIZE = 64;
/** Offered rate; bytes a second. */
const RATE = 20e6;
/** Kills in one round: its programs have a deadline. */
const MOST_KILLS = 25;

/** What the reader received, and what the queue recorded. */
export interface KillFigures extends KillTotals {
  /** Messages that are still in the queue after its server has ended. */
  left: number;
  /** Messages that the queue has recorded as delivered. */
  delivered: number;
}

/** One round of kills in its own directory. */
export async function killCase(
  { victim, ack, sync }: KillCase,
  runtime: Runtime,
  kills: number,
  onKill?: (kills: number) => void,
): Promise<KillFigures> {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-kill-"));
  try {
    const options = { runtime, victim, ack, sync, kills, rate: RATE, folder };
    const totals = await killRounds(onKill === undefined ? options : { ...options, onKill });
    const queue = await openSqliteQueue(join(folder, "queue.db"));
    const { stored, delivered } = await queue.open("reader");
    await queue.close();
    return { ...totals, left: stored.messages, delivered: delivered / SIZE };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The largest receive buffer of Linux's defaults, where tcp_rmem cannot be read; bytes. */
const RECEIVE_BUFFER = 32 << 20;
/** Limit for what a killed reader has read but not passed on; bytes. */
const IN_USER_SPACE = 1 << 20;
/** Rate at which the slow reader of kill_rounds.ts catches up; bytes a second. */
const CATCH_UP = 64 * 1024 / 500e-6;
/**
 * Limit for the time until the server notices a TCP acknowledgement: it polls every 10 ms, but the
 * machine may be busy.
 */
const NOTICED_S = 0.1;
/**
 * Limit for the time until a delivery is recorded on disk: it is gathered for 50 ms, and with --sync
 * interval for 100 ms more.
 */
const NOTED_S = 0.5;

/**
 * The guarantees that do not hold, a line each; none: all hold.
 *
 * `--ack reader`: each message exactly once, in order, whichever program is killed. `--ack tcp`:
 * undamaged and in order. If the server is killed, no message is missing, and messages whose delivery
 * the queue has not recorded yet are sent again. If the reader is killed, it loses the messages in
 * its kernel's receive buffer, and those whose acknowledgement the server has not seen are sent again.
 */
export function brokenPromises({ victim, ack }: KillCase, figures: KillFigures): string[] {
  const { kills, messages, missing, duplicates, outOfOrder, damaged, left, delivered } = figures;
  const most = { missing: 0, duplicates: 0 };
  if (ack === "tcp") {
    const held = (environment().tcpRmem?.[2] ?? RECEIVE_BUFFER) + IN_USER_SPACE;
    if (victim === "reader") most.missing = kills * held / SIZE;
    most.duplicates = kills * CATCH_UP * (victim === "reader" ? NOTICED_S : NOTED_S) / SIZE;
  }
  const broken: string[] = [];
  const check = (what: string, value: number, most: number) => {
    if (value > most) broken.push(`${value} ${what}, at most ${Math.floor(most)}`);
  };
  check("missing", missing, most.missing);
  check("duplicates", duplicates, most.duplicates);
  check("out of order", outOfOrder, 0);
  check("damaged", damaged, 0);
  check("left in the queue", left, 0);
  // Missing messages at the end are visible only in the queue's record. The flood of a killed server
  // resumes at its last position on disk, so that the stream may end after the recorded offset.
  const ended = messages - duplicates + missing;
  if (victim === "server" ? ended < delivered : ended !== delivered) {
    broken.push(`ends after message ${ended}, but the queue has recorded ${delivered}`);
  }
  if (messages === 0) broken.push("no messages received");
  return broken;
}

/** One line of the result. */
interface KillRow extends KillCase, KillFigures {
  runtime: Runtime;
  broken: string[];
  met: boolean;
}

async function measure(
  kind: KillCase,
  runtime: Runtime,
  kills: number,
  onKill: (kills: number) => void,
): Promise<KillRow> {
  const total: KillFigures = {
    kills: 0,
    messages: 0,
    missing: 0,
    duplicates: 0,
    outOfOrder: 0,
    damaged: 0,
    left: 0,
    delivered: 0,
  };
  const broken: string[] = [];
  while (total.kills < kills) {
    const next = Math.min(MOST_KILLS, kills - total.kills);
    const before = total.kills;
    const figures = await killCase(kind, runtime, next, (done) => onKill(before + done));
    broken.push(...brokenPromises(kind, figures));
    for (const key of Object.keys(total) as (keyof KillFigures)[]) total[key] += figures[key];
  }
  return { runtime, ...kind, ...total, broken, met: broken.length === 0 };
}

const HEAD = [
  "runtime",
  "killed",
  "--ack",
  "--sync",
  "kills",
  "messages",
  "missing",
  "duplicates",
  "out of order",
  "damaged",
  "verdict",
];

function formatRow(row: KillRow): string[] {
  const { runtime, victim, ack, sync, broken } = row;
  const { kills, messages, missing, duplicates, outOfOrder, damaged } = row;
  return [
    ...[runtime, victim, ack, sync],
    ...[kills, messages, missing, duplicates, outOfOrder, damaged].map(String),
    broken.length === 0 ? "holds" : `broken: ${broken.join("; ")}`,
  ];
}

async function main(args: readonly string[]): Promise<number> {
  const { options: { runtime: chosen, kills, out } } = parseCommandLine(spec, args);
  const runtimes = chosen === "all" ? RUNTIMES : [chosen];
  const machine = await describeMachine(runtimes);
  const progress = new ProgressLine();
  const rows: KillRow[] = [];
  for (const runtime of runtimes) {
    for (const [i, kind] of KILL_CASES.entries()) {
      const share = Math.floor(kills / KILL_CASES.length) + (i < kills % KILL_CASES.length ? 1 : 0);
      if (share === 0) continue;
      const what = `${runtime}: ${kind.victim}, --ack ${kind.ack} --sync ${kind.sync}`;
      const row = await measure(kind, runtime, share, (done) => {
        progress.update(`${what}: ${done} of ${share} kills`);
      });
      progress.line(`${what}: ${row.kills} kills, guarantee ${row.met ? "holds" : "broken"}`);
      rows.push(row);
    }
  }
  const total = (count: (row: KillRow) => number) => rows.reduce((sum, row) => sum + count(row), 0);
  printLine(formatTable([HEAD, ...rows.map(formatRow)]));
  printLine(
    `\n${total(({ met }) => met ? 1 : 0)} of ${rows.length} guarantees hold; ` +
      `${total((row) => row.kills)} kills, ${total((row) => row.messages)} messages\n` +
      formatMachine(machine),
  );
  if (out !== undefined) {
    writeResult(out, {
      schema: "speedlimit/kill@1",
      environment: machine,
      options: { runtime: chosen, kills, rate: RATE, size: SIZE },
      rows,
    });
  }
  return rows.every(({ met }) => met) ? 0 : 1;
}

if (import.meta.main) await runMain("kill", main);
