/**
 * Measures how fast the runtimes send and read compared with C: in separate processes, in the same
 * rounds, median of five.
 *
 *     node --no-warnings bench/speed.ts --out speed.json
 */
import { ProgressLine } from "../src/text/progress.ts";
import { formatTable } from "../src/text/table.ts";
import { parseCount, parseDuration } from "../src/text/units.ts";
import { formatMachine } from "../src/report/machine.ts";
import { choice, flag, option, parseCommandLine } from "../src/cli/command_line.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import { paceCells, paceRows } from "./pace.ts";
import { RUNTIMES } from "./programs.ts";
import { compileC } from "./readers/compile.ts";
import { type Cell, runRounds } from "./rounds.ts";
import { describeMachine, ROW_HEAD, writeResult } from "./rows.ts";
import { formatSpeedRow, type SpeedRow } from "./speed_rows.ts";
import { throughputCells, throughputRows } from "./throughput.ts";

const spec = {
  name: "speed",
  summary: "Measures the flood, the drain client and the pacer on Deno, Bun and Node against\n" +
    "peers in C, which it compiles. Reports which targets are met.",
  usage: ["speed.ts [OPTIONS]"],
  options: {
    runs: option({
      value: "N",
      help: "counted rounds; one warm-up round comes before them",
      default: "5",
      parse: (text) => parseCount(text, { most: 1000 }),
    }),
    seconds: option({
      value: "TIME",
      help: "duration of each run; at least 2 s for the pacer",
      default: "1s",
      parse: (text) => parseDuration(text, { least: 100, most: 3600_000 }),
    }),
    only: choice({
      help: "measure only a part",
      choices: ["all", "throughput", "pacer"],
      default: "all",
    }),
    out: option({
      value: "FILE.json",
      help: "also writes all figures to this file",
      parse: parseOutFile,
    }),
    quick: flag("only one short round, to try the benchmark itself"),
  },
};

const QUICK_SECONDS = 0.5;
/** Long enough to measure 1000 messages a second to 0.05 %. */
const PACE_SECONDS = 2;

async function main(args: readonly string[]): Promise<void> {
  const { options } = parseCommandLine(spec, args);
  const { quick, only } = options;
  const runs = quick ? 1 : options.runs;
  const warmUps = quick ? 0 : 1;
  const seconds = quick ? QUICK_SECONDS : options.seconds / 1000;
  const paceSeconds = quick ? QUICK_SECONDS : Math.max(PACE_SECONDS, seconds);
  const peer = await compileC(new URL("peers/peer.c", import.meta.url));
  const machine = await describeMachine(RUNTIMES);
  const progress = new ProgressLine();
  const measure = async <T>(what: string, cells: readonly Cell<T>[]) => {
    progress.line(`${what}: ${cells.length} runs in each of ${warmUps + runs} rounds`);
    const results = await runRounds(cells, {
      runs,
      warmUps,
      onRun: ({ round, rounds, name }) => progress.update(`${what} ${round}/${rounds}: ${name}`),
    });
    progress.end();
    return results;
  };

  const rows: SpeedRow[] = [];
  if (only !== "pacer") {
    rows.push(...throughputRows(await measure("throughput", throughputCells({ peer, seconds }))));
  }
  if (only !== "throughput") {
    const cells = paceCells({ peer, seconds: paceSeconds });
    rows.push(...paceRows(await measure("pacer", cells)));
  }

  const judged = rows.filter(({ met }) => met !== null);
  const met = judged.filter((row) => row.met).length;
  printLine(formatTable([ROW_HEAD, ...rows.map(formatSpeedRow)]));
  printLine(
    `\n${met} of ${judged.length} targets met; median (least-most) of ${runs} runs of ${seconds} s, ` +
      `${paceSeconds} s for the pacer${
        quick ? "; quick run: these figures are not precise" : ""
      }\n` +
      formatMachine(machine),
  );
  if (options.out === undefined) return;
  writeResult(options.out, {
    schema: "speedlimit/speed@1",
    environment: machine,
    options: { runs, warmUps, seconds, paceSeconds, only, quick },
    rows,
  });
}

if (import.meta.main) await runMain("speed", main);
