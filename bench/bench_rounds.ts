/**
 * Makes the remaining runs of a benchmark: in shuffled rounds, each written to the file at its end.
 */
import type { ProgressLine } from "../src/text/progress.ts";
import { formatByteRate, formatSeconds } from "../src/text/units.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { LEAST_NUMBERED_SIZE } from "../src/message/numbered.ts";
import type { BenchWriter } from "../src/report/bench_file.ts";
import type { BenchCell, BenchHeader, BenchRun } from "../src/report/bench_result.ts";
import { formatInterval } from "../src/report/limit_table.ts";
import { interrupted } from "../src/cli/program.ts";
import { type Installed, nameCell } from "./bench_cells.ts";
import { type RunEffort, runReader, runSender } from "./bench_runs.ts";
import { BenchTime, formatMinutes, type Pending } from "./bench_time.ts";
import { RUNTIMES } from "./programs.ts";
import { shuffled } from "./rounds.ts";

const EFFORTS: Record<"quick" | "full", RunEffort> = {
  quick: {
    search: { timeSeconds: 12 },
    seriesSeconds: 0.5,
    floodSeconds: 0.3,
  },
  full: {
    search: { timeSeconds: 25 },
    seriesSeconds: 1.5,
    floodSeconds: 1,
  },
};

/**
 * Floods for each search of a reader. Floods are short, and three of them would not be enough: two
 * sets of three figures from the same distribution do not overlap in a tenth of all cases, two sets
 * of six in 0.2 %.
 */
const FLOOD_RUNS = 2;

export interface MeasureOptions {
  header: BenchHeader;
  /** The runs made so far; new ones are added. */
  runs: BenchRun[];
  writer: BenchWriter;
  installed: Installed;
  progress: ProgressLine;
}

/** Makes all missing runs. Resolves to false where it was interrupted. */
export async function measureRuns(options: MeasureOptions): Promise<boolean> {
  const { header, runs, writer, installed, progress } = options;
  const { cells, quick, warmUps } = header;
  const effort = quick ? EFFORTS.quick : EFFORTS.full;
  const time = new BenchTime(cells, { quick, firstRound: warmUps });
  for (const run of runs) time.add(run);
  const pending = listPending(header, runs);
  const left = () => formatMinutes(time.left(pending));
  progress.line(
    `${pending.length} runs${runs.length > 0 ? ` of ${pending.length + runs.length} left` : ""}` +
      `, about ${left()}`,
  );
  while (pending.length > 0) {
    if (interrupted().aborted) return false;
    const { cell, round } = pending[0]!;
    const name = nameCell(cells[cell]!);
    const showProgress = (what: string) =>
      progress.update(
        `${runs.length + 1}/${runs.length + pending.length} ${name}${what}, ` +
          `${left()} left`,
      );
    showProgress("");
    const date = new Date().toISOString();
    const startMs = performance.now();
    let figures: BenchRun["figures"] | null;
    try {
      figures = await measure(cells[cell]!, {
        installed,
        effort,
        precision: header.precision,
        keptUpBefore: lowestKeptUp(cells, cell, runs),
        series: round === warmUps,
        latencyServer: round === warmUps && measuresLatency(header, cell)
          ? header.generator.runtime.split(" ")[0] as Runtime
          : undefined,
        showProgress,
        note: (text) => progress.line(`    ${name}: ${text}`),
      });
    } catch (error) {
      if (interrupted().aborted) return false;
      // A failed run is recorded as such, and the other runs continue.
      figures = { failed: (error as Error).message.trim().replace(/\s*\n\s*/g, " ") };
    }
    if (figures === null) return false;
    const seconds = (performance.now() - startMs) / 1000;
    const run: BenchRun = { type: "run", cell, round, date, seconds, figures };
    writer.append(run);
    runs.push(run);
    time.add(run);
    pending.shift();
    progress.line(
      `${String(runs.length).padStart(3)}/${runs.length + pending.length} ` +
        `${round < warmUps ? "warm-up " : ""}${name}: ${summarize(figures)}, ` +
        `${formatSeconds(seconds)}${pending.length > 0 ? `; ${left()} left` : ""}`,
    );
  }
  return true;
}

/** The runs that have not been made, each round in an order of its own. */
function listPending({ cells, runs, warmUps }: BenchHeader, done: readonly BenchRun[]): Pending[] {
  const pending: Pending[] = [];
  for (let round = 0; round < warmUps + runs * FLOOD_RUNS; round++) {
    // Readers need no warm-up round, because each search begins with a ramp.
    const searches = round >= warmUps && (round - warmUps) % FLOOD_RUNS === 0;
    const inRound = cells.map((_, cell) => cell).filter((cell) =>
      (searches || cells[cell]!.kind !== "reader") &&
      !done.some((run) => run.cell === cell && run.round === round)
    );
    pending.push(...shuffled(inRound).map((cell) => ({ cell, round })));
  }
  return pending;
}

/**
 * Latency is measured for our own readers, with the smallest size that can be numbered; not in a
 * quick run.
 */
function measuresLatency({ cells, quick }: BenchHeader, cell: number): boolean {
  const { kind, who, size } = cells[cell]!;
  const sizes = cells.filter((each) => each.kind === "reader").map((each) => each.size)
    .filter((each) => each >= LEAST_NUMBERED_SIZE);
  return !quick && kind === "reader" && RUNTIMES.some((each) => each === who) &&
    size === Math.min(...sizes);
}

/** The lowest rate at which earlier runs of this reader kept up, with messages of any size. */
function lowestKeptUp(
  cells: readonly BenchCell[],
  cell: number,
  runs: readonly BenchRun[],
): number | undefined {
  const same = cells[cell]!;
  const rates = runs.flatMap(({ cell, figures }) => {
    const other = cells[cell]!;
    if (same.kind !== "reader" || other.kind !== "reader" || !("keepsUpAt" in figures)) return [];
    return other.who === same.who && other.mode === same.mode && figures.keepsUpAt > 0
      ? [figures.limit?.lower ?? figures.keepsUpAt]
      : [];
  });
  return rates.length === 0 ? undefined : Math.min(...rates);
}

interface RunOptions {
  installed: Installed;
  effort: RunEffort;
  precision: number;
  keptUpBefore: number | undefined;
  series: boolean;
  latencyServer: Runtime | undefined;
  showProgress: (what: string) => void;
  note: (text: string) => void;
}

async function measure(
  cell: BenchCell,
  { showProgress, note: onNote, ...options }: RunOptions,
): Promise<BenchRun["figures"] | null> {
  if (cell.kind !== "reader") return await runSender(cell, options);
  return await runReader(cell, {
    ...options,
    onNote,
    onEvent(event) {
      if (event.event === "trial-begins") showProgress(` at ${formatByteRate(event.rate)}`);
    },
  });
}

function summarize(figures: BenchRun["figures"]): string {
  if ("failed" in figures) return `failed: ${figures.failed}`;
  if ("bytesPerSecond" in figures) return formatByteRate(figures.bytesPerSecond);
  const { limit, outcome, keepsUpAt } = figures;
  if (limit !== null) return formatInterval(limit.lower, limit.upper);
  return outcome === "generator-limited"
    ? `above ${formatByteRate(keepsUpAt)}`
    : `${outcome}: ${figures.message}`;
}
