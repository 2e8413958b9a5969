/**
 * Measures the durable queue: how fast a server spills, what that costs its other readers, how a
 * reader that was disconnected is caught up, whether an upstream server notices a slow reader, and what
 * many readers cost that stay away.
 *
 *     node --no-warnings bench/spill.ts --folder . --out spill.json
 */
import { tmpdir } from "node:os";
import { choice, flag, option, parseCommandLine } from "../src/cli/command_line.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import { ProgressLine } from "../src/text/progress.ts";
import { formatTable } from "../src/text/table.ts";
import {
  formatByteRate,
  formatBytes,
  formatSeconds,
  parseByteRate,
  parseBytes,
  parseCount,
} from "../src/text/units.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { RUNTIMES } from "./programs.ts";
import { type Cell, runRounds } from "./rounds.ts";
import { compileC } from "./readers/compile.ts";
import { describeMachine, ROW_HEAD, writeResult } from "./rows.ts";
import { formatMachine } from "../src/report/machine.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { type AwayRun, runAway } from "./spill_away.ts";
import { type CrowdRun, runCrowd } from "./spill_crowd.ts";
import { Folder, runDd } from "./spill_disk.ts";
import {
  awayRows,
  crowdRows,
  formatSpillRow,
  type SpillRow,
  sustainedRows,
  windowRows,
} from "./spill_rows.ts";
import { runSpill, runWindow, type SpillRun, type WindowRun } from "./spill_runs.ts";
import { SYNC } from "./spill_server.ts";

const spec = {
  name: "spill",
  summary: "Measures a server with --overflow spill on Deno, Bun and Node: against dd on\n" +
    "the same disk, against a server without a queue, and against its guarantees.\n" +
    "Reports which targets are reached.",
  usage: ["spill.ts [OPTIONS]"],
  options: {
    runtime: choice({
      help: "the runtime of server and reader",
      choices: ["all", ...RUNTIMES],
      default: "all",
    }),
    runs: option({
      value: "N",
      help: "rounds of the part sustained; one more, the first, is not counted",
      default: "5",
      parse: (text) => parseCount(text, { most: 1000 }),
    }),
    bytes: option({
      value: "SIZE",
      help: "backlog of the reader that is disconnected",
      default: "5G",
      parse: (text) => parseBytes(text, { least: 1 << 20 }),
    }),
    rate: option({
      value: "RATE|max",
      help: "rate at which that backlog is stored",
      default: "100MB/s",
      parse: (text) => text === "max" ? undefined : parseByteRate(text),
    }),
    folder: option({
      value: "DIR",
      help: "a directory on the disk to measure (default: that of temporary files)",
      parse: (text) => text,
    }),
    only: choice({
      help: "measures only one part",
      choices: ["all", "sustained", "away", "window", "crowd"],
      default: "all",
    }),
    out: option({
      value: "FILE.json",
      help: "also writes all figures to this file",
      parse: parseOutFile,
    }),
    quick: flag("one short round with little data, as a test: the figures mean nothing"),
  },
};

/** Durations and amounts of all parts; bytes and seconds. */
interface Sizes {
  runs: number;
  warmUps: number;
  ddMebibytes: number;
  seconds: number;
  bytes: number;
  floodSeconds: number;
  pacedSeconds: number;
  windowSeconds: number;
  crowdSeconds: number;
}

const QUICK: Sizes = {
  runs: 1,
  warmUps: 0,
  ddMebibytes: 64,
  seconds: 0.5,
  bytes: 256 << 20,
  floodSeconds: 0.5,
  pacedSeconds: 0.05,
  windowSeconds: 0.5,
  crowdSeconds: 10,
};
const USUAL: Omit<Sizes, "runs" | "bytes"> = {
  warmUps: 1,
  ddMebibytes: 1024,
  seconds: 3,
  floodSeconds: 2,
  pacedSeconds: 4,
  windowSeconds: 30,
  crowdSeconds: 60,
};

/** Rate to each of two readers, as a share of the rate at which one reader alone is spilled. */
const BESIDE_SHARE = 0.6;
/** Rate of the upstream; bytes a second. */
const UPSTREAM_RATE = 50e6;
/** Readers that are away, and the rate of their source; bytes a second. */
const CROWD = 100;
const CROWD_RATE = 1e6;
/** In the order of the table; only the first has a target. */
const SYNCS = [SYNC, "always", "off"];

async function main(args: readonly string[]): Promise<void> {
  const { options } = parseCommandLine(spec, args);
  const { only, quick, rate } = options;
  const runtimes = options.runtime === "all" ? RUNTIMES : [options.runtime];
  const sizes = quick ? QUICK : { ...USUAL, runs: options.runs, bytes: options.bytes };
  const folder = new Folder(options.folder ?? tmpdir(), { settle: !quick });
  const machine = await describeMachine(runtimes);
  const progress = new ProgressLine();
  const rows: SpillRow[] = [];
  const cut = cutToDisk(sizes, folder);
  if (cut !== undefined) progress.line(cut);

  if (only === "all" || only === "sustained") {
    rows.push(...await sustained({ runtimes, folder, sizes, progress }));
  }
  if (only === "all" || only === "away") {
    const { bytes, floodSeconds: seconds, pacedSeconds } = sizes;
    const paced = await compileC(new URL("readers/paced.c", import.meta.url));
    const how = rate === undefined ? "as fast as possible" : `at ${formatByteRate(rate)}`;
    progress.line(`away: ${formatBytes(bytes)} ${how} for each of ${runtimes.length} runtimes`);
    const runs = new Map<Runtime, AwayRun>();
    for (const runtime of runtimes) {
      progress.update(`away: ${runtime}`);
      const how = { bytes, rate, seconds, paced, pacedSeconds };
      const run = await runAway({ runtime, folder, ...how });
      runs.set(runtime, run);
    }
    progress.end();
    rows.push(...awayRows(runs, how));
  }
  if (only === "all" || only === "window") {
    const seconds = sizes.windowSeconds;
    progress.line(`window: ${formatSeconds(seconds)} for each of ${runtimes.length} runtimes`);
    const runs = new Map<Runtime, WindowRun>();
    for (const runtime of runtimes) {
      progress.update(`window: ${runtime}`);
      runs.set(runtime, await runWindow({ runtime, folder, seconds, rate: UPSTREAM_RATE }));
    }
    progress.end();
    rows.push(...windowRows(runs, { rate: UPSTREAM_RATE, seconds }));
  }

  if (only === "all" || only === "crowd") {
    const seconds = sizes.crowdSeconds;
    progress.line(`crowd: ${formatSeconds(seconds)} for each of ${runtimes.length} runtimes`);
    const runs = new Map<Runtime, CrowdRun>();
    const how = { readers: CROWD, rate: CROWD_RATE, seconds };
    for (const runtime of runtimes) {
      progress.update(`crowd: ${runtime}`);
      runs.set(runtime, await runCrowd({ runtime, folder, ...how }));
    }
    progress.end();
    rows.push(...crowdRows(runs, how));
  }

  const judged = rows.filter(({ met }) => met !== null);
  const met = judged.filter((row) => row.met).length;
  printLine(formatTable([ROW_HEAD, ...rows.map(formatSpillRow)]));
  printLine(
    `\n${met} of ${judged.length} targets reached; sustained: median (least-most) of ${sizes.runs}, ` +
      `${sizes.seconds} s each, the rest once${quick ? "; quick: figures mean nothing" : ""}\n` +
      (cut === undefined ? "" : `${cut}\n`) + formatMachine(machine),
  );
  if (options.out === undefined) return;
  writeResult(options.out, {
    schema: "speedlimit/spill@1",
    environment: machine,
    options: { ...sizes, runtime: options.runtime, rate: rate ?? "max", only, quick },
    ...(cut === undefined ? {} : { cut }),
    rows,
  });
}

/** Limits the backlog to half of the free disk space; returns a line about that if it did. */
function cutToDisk(sizes: Sizes, { free }: Folder): string | undefined {
  if (sizes.bytes * 2 <= free) return undefined;
  const requested = sizes.bytes;
  sizes.bytes = Math.floor(free / 2);
  return `the disk has ${formatBytes(free)} free: the backlog is reduced to ` +
    `${formatBytes(sizes.bytes)} from ${formatBytes(requested)}`;
}

interface Stage {
  runtimes: readonly Runtime[];
  folder: Folder;
  sizes: Sizes;
  progress: ProgressLine;
}

async function sustained({ runtimes, folder, sizes, progress }: Stage): Promise<SpillRow[]> {
  const { runs, warmUps, seconds, ddMebibytes } = sizes;
  const rates = new Map<Runtime, number>();
  for (const runtime of runtimes) {
    progress.update(`sustained: how fast ${runtime} spills alone`);
    const { spilled } = await runSpill({ runtime, folder, seconds });
    rates.set(runtime, spilled! * BESIDE_SHARE);
  }
  const cells: Cell<SpillRun>[] = [
    { name: "dd", run: async () => ({ spilled: await runDd(folder, ddMebibytes) }) },
    ...runtimes.flatMap((runtime) => {
      const rate = rates.get(runtime)!;
      const beside = { runtime, folder, seconds, rate, fast: true };
      return [
        ...SYNCS.map((sync) => ({
          name: `${sync}, ${runtime}`,
          run: () => runSpill({ runtime, folder, seconds, sync }),
        })),
        { name: `alone, ${runtime}`, run: () => runSpill({ ...beside, stopped: false }) },
        { name: `beside, ${runtime}`, run: () => runSpill(beside) },
      ];
    }),
  ];
  const rounds = warmUps + runs;
  // Including start, end and the pause for the disk.
  const perRun = seconds + 1 + folder.settleSeconds;
  const longest = Math.ceil(rounds * cells.length * perRun / 60);
  progress.line(
    `sustained: ${cells.length} runs in each of ${rounds} rounds, about ${longest} min`,
  );
  const results = await runRounds(cells, {
    runs,
    warmUps,
    onRun: ({ round, rounds, name }) => progress.update(`sustained ${round}/${rounds}: ${name}`),
  });
  progress.end();
  return sustainedRows(results, { runtimes, syncs: SYNCS, rates, share: BESIDE_SHARE });
}

if (import.meta.main) await runMain("spill", main);
